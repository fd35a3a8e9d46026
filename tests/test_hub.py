"""`push_to_hub`, to a Hub that is a folder: what is loaded from there is the model, and its card is filled."""

import shutil
from dataclasses import replace

import pytest
import torch
import yaml

from gansound import MelSpec, Vocoder
from tests.tiny import save_tiny_model


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Repositories as folders, and what was asked of the Hub."""
    import huggingface_hub

    asked = []

    class Api:
        def __init__(self, token=None):
            asked.append(("token", token))

        def create_repo(self, repo_id, *, private, exist_ok):
            asked.append(("create", repo_id, private, exist_ok))
            if repo_id.startswith("stranger/"):
                raise RuntimeError("403 Forbidden: you may not.\nRequest ID: x")

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            asked.append(("upload", repo_id, commit_message))
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id, dirs_exist_ok=True)
            return f"https://huggingface.co/{repo_id}/commit/1"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda repo, **_: str(tmp_path / "hub" / repo), raising=True
    )
    return tmp_path / "hub", asked


def head_and_body(path):
    _, head, body = (path / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_what_is_pushed_is_loaded_by_its_name(hub, tmp_path):
    folder, asked = hub
    vocoder = Vocoder.from_pretrained(save_tiny_model(tmp_path / "tiny"), "cpu", backend="eager")
    vocoder.info = {"licence": "CC-BY-4.0", "data": "a | b\nc", "steps": 12}
    where = vocoder.push_to_hub("me/my.vocoder", private=True, token="hf_x")
    assert where == "https://huggingface.co/me/my.vocoder/commit/1"
    assert asked == [
        ("token", "hf_x"),
        ("create", "me/my.vocoder", True, True),
        ("upload", "me/my.vocoder", "A vocoder of gansound"),
    ]
    files = sorted(path.name for path in (folder / "me/my.vocoder").iterdir())
    assert files == ["README.md", "config.json", "model.safetensors"]
    again = Vocoder.from_pretrained("me/my.vocoder", "cpu", backend="eager")
    mel = torch.randn(1, vocoder.mel_spec.n_mels, 9) - 5
    torch.testing.assert_close(again(mel), vocoder(mel), rtol=0, atol=0)
    head, body = head_and_body(folder / "me/my.vocoder")
    assert head["license"] == "cc-by-4.0"
    assert head["library_name"] == "gansound"
    spec = vocoder.mel_spec
    assert f"{spec.sample_rate} Hz, {spec.hop_length} samples a frame" in body
    assert f"{vocoder.generator.receptive_field.lookahead} samples" in body
    assert f"{sum(p.numel() for p in vocoder.generator.parameters()) / 1e6:.2f} M parameters" in body
    assert 'from_pretrained("me/my.vocoder")' in body
    (data,) = (line for line in body.splitlines() if line.startswith("| data |"))
    assert "a \\| b" in data  # one row still, whatever a model says of itself
    assert "| steps | 12 |" in body


def test_a_card_that_someone_wrote_is_kept_and_gets_the_head_only(hub, tmp_path):
    folder, _ = hub
    path = save_tiny_model(tmp_path / "tiny")
    (path / "README.md").write_text("# Mine\n\nI heard it.\n")
    vocoder = Vocoder.from_pretrained(path, "cpu", backend="eager")
    vocoder.info = {"licence": "ask me: first"}
    vocoder.push_to_hub("me/one")
    head, body = head_and_body(folder / "me/one")
    assert (head["license"], head["license_name"]) == ("other", "ask me: first")
    assert body.strip() == "# Mine\n\nI heard it."
    (path / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    vocoder.push_to_hub("me/two")
    assert (folder / "me/two" / "README.md").read_text() == "---\nlicense: mit\n---\n# Mine\n"


def test_a_card_says_what_the_weights_that_are_pushed_take(hub, tmp_path):
    folder, _ = hub
    save_tiny_model(tmp_path / "tiny")
    told = replace(MelSpec.preset("hifigan"), log="log10")
    converted = Vocoder.from_pretrained(tmp_path / "tiny", "cpu", mel=told, backend="eager")
    converted.push_to_hub("me/own")
    again = Vocoder.from_pretrained("me/own", "cpu", backend="eager")
    text = (folder / "me/own" / "README.md").read_text()
    assert again.mel_spec.log == "ln"
    assert "log-mels (ln)" in text
    assert "`FreeVGenerator`" in text
    own = Vocoder.from_pretrained("default", "cpu", backend="eager")
    own.push_to_hub("me/default")
    assert "Here it is told" not in (folder / "me/default" / "README.md").read_text()
    Vocoder.from_pretrained("default", "cpu", mel="vocos_24khz", backend="eager").push_to_hub("me/at24")
    text = (folder / "me/at24" / "README.md").read_text()
    assert "**Here it is told to take log-mels (ln) of 100 bands, 0 to 12000 Hz; 24000 Hz" in text
    assert text.index("license") < text.index("Here it is told") < text.index("# `default`")
    assert Vocoder.from_pretrained("me/at24", "cpu", backend="eager").sample_rate == 24000


def test_what_the_hub_refuses_is_one_message(hub, tmp_path):
    vocoder = Vocoder.from_pretrained(save_tiny_model(tmp_path / "tiny"), "cpu", backend="eager")
    with pytest.raises(ValueError, match=r"stranger/x: .* 403 Forbidden: you may not\. Log in"):
        vocoder.push_to_hub("stranger/x")
    for name in ("x", "a/b/c", "../up", "me/"):
        with pytest.raises(ValueError, match="expected OWNER/NAME"):
            vocoder.push_to_hub(name)
    assert not hub[0].exists()
