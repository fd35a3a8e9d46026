"""A model on the Hugging Face Hub: its folder, with a card that says what it is."""

import json
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from gansound.frames import FrameSpec
from gansound.model_folder import model_spec
from gansound.nn.generator import StreamingGenerator
from gansound.visible import visible

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder

# The Hub's names of licences are SPDX's in small letters; any other is "other", with the name that it goes by.
_LICENCES = ("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-3.0", "cc-by-sa-4.0", "cc-by-sa-3.0",
             "cc-by-nc-4.0", "gpl-3.0", "unlicense")  # fmt: skip
_FIRST = ("name", "origin", "licence", "data", "recipe", "init_from", "steps")


def push(vocoder: "Vocoder", folder: Path, repo_id: str, *, private: bool, token: str | None) -> str:
    """What `Vocoder.push_to_hub` does."""
    if not re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", repo_id):
        raise ValueError(f"repo_id: got {repo_id!r}, expected OWNER/NAME")
    from huggingface_hub import HfApi

    with tempfile.TemporaryDirectory() as temporary:
        path = vocoder.save_pretrained(Path(temporary) / "model")
        (path / "README.md").write_text(card(vocoder, folder, repo_id), encoding="utf-8")
        try:
            api = HfApi(token=token)
            api.create_repo(repo_id, private=private, exist_ok=True)
            found = api.upload_folder(
                repo_id=repo_id, folder_path=path, commit_message="A vocoder of gansound"
            )
        except Exception as error:  # its HTTP library's own errors are no OSError
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ValueError(
                f"{repo_id}: can't be written to the Hugging Face Hub: {reason} Log in (`hf auth login`), or give a "
                "token that may write there"
            ) from error
    return str(getattr(found, "commit_url", found))


def card(vocoder: "Vocoder", folder: Path, repo_id: str) -> str:
    """The model's own README.md, or one made of what it says of itself; with the head that the Hub reads."""
    generator, spec = vocoder.as_saved()
    written = folder / "README.md"
    text = written.read_text(encoding="utf-8", errors="replace") if written.is_file() else None
    if text is None:
        return _head(vocoder) + _body(vocoder, repo_id, generator, spec)
    found = re.match(r"---\n(?:.*?\n---\n)?", text, re.DOTALL)
    head, body = (found[0], text[found.end() :]) if found else (_head(vocoder), text)
    if spec != model_spec(folder):
        body = f"**Here it is told to take {spec.in_words()}**; what follows is of it as it was.\n\n{body}"
    return head + body


def _head(vocoder: "Vocoder") -> str:
    licence = str(vocoder.info.get("licence", "unknown"))
    lines = ["library_name: gansound", "tags: [gansound, vocoder, audio, text-to-speech]"]
    if licence.lower() in _LICENCES:
        lines.append(f"license: {licence.lower()}")
    else:
        lines += ["license: other", f"license_name: {json.dumps(licence)}"]
    return "\n".join(["---", *lines, "---", "", ""])


def _body(vocoder: "Vocoder", repo_id: str, generator: nn.Module, spec: FrameSpec) -> str:
    rows: list[tuple[str, Any]] = [("takes", spec.in_words())]
    rows.append(("gives", f"{spec.sample_rate} Hz, {spec.hop_length} samples a frame"))
    parameters = sum(one.numel() for one in generator.parameters())
    rows.append(("net", f"`{type(generator).__name__}`, {parameters / 1e6:.2f} M parameters"))
    if isinstance(generator, StreamingGenerator):
        late = generator.receptive_field.lookahead
        rows.append(("look-ahead", f"{late} samples, {1000 * late / spec.sample_rate:.0f} ms"))
    info = vocoder.info
    names = [name for name in _FIRST if name in info] + sorted(set(info) - set(_FIRST))
    rows += [(name.replace("_", " "), info[name]) for name in names]
    rows += [(name, "not said") for name in ("licence", "data") if name not in info]
    table = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows)
    return (
        f"# {repo_id.partition('/')[2]}\n\nA vocoder for gansound (`pip install gansound`).\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        "```python\nimport gansound\n\n"
        f'vocoder = gansound.Vocoder.from_pretrained("{repo_id}")\naudio = vocoder(mel)\n```\n'
    )


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return visible(text).replace("|", "\\|")
