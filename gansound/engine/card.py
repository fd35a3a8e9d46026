"""The card of a fine-tuned model: what it comes from, what it learnt from, and what came of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.counts import counted
from gansound.engine.folder import write_beside
from gansound.mel import MelSpec
from gansound.visible import visible

if TYPE_CHECKING:
    from gansound.engine.kept import Best

OURS = "<!-- Written by gansound train at each save; without this line it stays as you make it. -->"
_MOST_BYTES = 1 << 20


def write_card(folder: Path, about: Mapping[str, Any], mel: MelSpec, best: "Best") -> None:
    """`README.md` in a model folder, unless a person has written one.

    Args:
        folder: of the model.
        about: what its config.json says of it.
        mel: its convention.
        best: of the validations so far.
    """
    path = folder / "README.md"
    if path.exists() and OURS not in path.read_bytes()[:_MOST_BYTES].decode(errors="replace"):
        return
    write_beside(path, card(about, mel, best))


def card(about: Mapping[str, Any], mel: MelSpec, best: "Best") -> str:
    """The text of it, Markdown with the Hugging Face Hub's head."""
    corpus = about.get("corpus", {})
    recordings = corpus.get("recordings", 0)
    learnt = f"{recordings:,} recording{'s' * (recordings != 1)}, {corpus.get('hours', 0):.2f} h"
    if "mels" in corpus:
        learnt += f", with {counted(corpus['mels'], 'mel')} (offset {corpus['mel_offset_frames']:+d} frames)"
    if "pitch" in corpus:
        learnt += f", with the pitch that was {corpus['pitch']}"
    rows = [
        ("started from", about["init_from"]),
        ("which is", about.get("origin", "not said")),
        ("licence of that", about.get("licence", "not said")),
        ("learnt from", learnt),
        ("steps", f"{about['steps']:,}"),
        (
            "mel",
            f"{mel.sample_rate} Hz, {mel.n_mels} bands, hop {mel.hop_length}, {mel.fmin:g} to {mel.fmax:g} Hz",
        ),
    ]
    if best.before is not None:
        rows.append(("held-out mel distance before", f"{best.before:.4f}"))
    if best.step:
        rows.append(("the best since", f"{best.score:.4f}, at step {best.step:,}"))
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows)
    return (
        "---\nlibrary_name: gansound\ntags: [vocoder, audio]\n---\n"
        f"{OURS}\n\n# A fine-tuned vocoder\n\n| | |\n|---|---|\n{table}\n\n"
        "The mel distance is the mean absolute difference of log-mels, in the model's own convention, of held-out "
        "recordings and what the model makes of the mels it is given. Lower is better; nobody has listened.\n\n"
        "```python\nimport gansound\n\n"
        'vocoder = gansound.Vocoder.from_pretrained("THIS FOLDER")\n'
        f"audio = vocoder(mel{', f0=f0' * ('pitch' in corpus)})\n```\n"
    )


def _cell(value: Any) -> str:
    return visible(str(value)).replace("|", "\\|")
