"""Model folders: what goes in comes out, what can't be trusted stays out, and nothing is half-written."""

import errno
import json
import os
import random
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

import gansound.model_folder as model_folder
from gansound.mel import MelSpec
from gansound.model_folder import ModelFolderError, load_model_folder, save_model_folder
from tests.tiny import save_tiny_model

HERE = "tests.test_model_folder"
MEL = MelSpec(8000, 64, 16, 64, 8, 0, 4000)
CONFIG = {"class_path": f"{HERE}.Tiny", "init_args": {"width": 6}}


class Tiny(nn.Module):
    """Upsamples by the hop; one weight-normed layer, one spectral-normed, a table that isn't saved."""

    def __init__(self, width: int, mel: MelSpec, rates: tuple[int, ...] = (4, 4)):
        super().__init__()
        if width < 1:
            raise ValueError(f"width: got {width}, expected at least 1")
        self.n_mels, self.hop_length, self.mel = mel.n_mels, mel.hop_length, mel
        self.first = weight_norm(nn.Conv1d(mel.n_mels, width, 3, padding=1))
        self.last = spectral_norm(nn.Conv1d(width, mel.hop_length, 1))
        self.register_buffer("count", torch.tensor(3))
        self.register_buffer("bank", mel.filter_bank(), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        x = self.last(torch.relu(self.first(mel))) * self.bank.sum()
        return x.transpose(1, 2).flatten(1)


class NotAModule:
    pass


def tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny(6, MEL)


def saved(path: Path, generator: nn.Module | None = None, **more) -> Path:
    return save_model_folder(
        path, generator or tiny(), MEL, config=CONFIG, **{"info": {"licence": "CC0"}} | more
    )


def some_mel() -> Tensor:
    return torch.randn(2, 8, 11, generator=torch.Generator().manual_seed(1))


def listing(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_round_trip(tmp_path):
    generator = tiny().eval()
    expected = generator(some_mel())
    loaded = load_model_folder(saved(tmp_path / "m", generator), allow=["tests"])
    assert torch.equal(loaded.generator(some_mel()), expected)
    assert (loaded.mel, loaded.info, loaded.path) == (MEL, {"licence": "CC0"}, tmp_path / "m")
    assert not loaded.generator.training
    assert set(loaded.generator.state_dict()) == {
        "first.weight",
        "first.bias",
        "last.weight",
        "last.bias",
        "count",
    }
    described = json.loads((tmp_path / "m" / "config.json").read_text())
    assert described["generator"] == CONFIG | {"init_args": {"width": 6, "rates": [4, 4]}}
    assert described["mel"] == MEL.to_dict()
    assert listing(tmp_path) == ["m"]
    again = save_model_folder(tmp_path / "n", loaded.generator, MEL, config=CONFIG, info=loaded.info)
    assert (again / "model.safetensors").read_bytes() == (tmp_path / "m" / "model.safetensors").read_bytes()


def test_saving_and_loading_leave_training_alone(tmp_path):
    generator = tiny().train()
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    torch.manual_seed(5)
    random.seed(5)
    state = torch.get_rng_state()
    saved(tmp_path / "m", generator)
    saved(tmp_path / "m", generator)
    load_model_folder(tmp_path / "m", allow=["tests"])
    assert torch.equal(torch.get_rng_state(), state)
    after = generator.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert "first.parametrizations.weight.original0" in after
    assert generator.training
    assert generator.last.parametrizations.weight.training
    generator(some_mel()).sum().backward()
    assert generator.first.parametrizations.weight.original1.grad is not None


def test_half_is_read_as_float32(tmp_path):
    generator = tiny().eval()
    with torch.no_grad():
        generator.last.bias[0] = 1e5  # beyond float16: stays float32
    loaded = load_model_folder(saved(tmp_path / "m", generator, half=True), allow=["tests"]).generator
    stored = safetensors.torch.load_file(tmp_path / "m" / "model.safetensors")
    assert stored["first.weight"].dtype == torch.float16
    assert stored["last.bias"].dtype == torch.float32
    assert stored["count"].dtype == torch.int64
    assert {v.dtype for v in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.first.weight, generator.first.weight.half().float())
    assert float(loaded.last.bias[0].detach()) == 1e5


def test_a_default_device_or_dtype_does_not_reach_in(tmp_path):
    saved(tmp_path / "m")
    with torch.device("meta"):
        loaded = load_model_folder(tmp_path / "m", allow=["tests"])
    assert {p.device.type for p in loaded.generator.parameters()} == {"cpu"}


def test_gansounds_own_generators_need_no_allowing(tmp_path):
    from gansound.generators.melgan import MelGANGenerator

    spec = MelSpec.preset("melgan_neurips")
    generator = MelGANGenerator(channels=32)
    config = {"class_path": "gansound.generators.melgan.MelGANGenerator", "init_args": {"channels": 32}}
    save_model_folder(tmp_path / "m", generator, spec, config=config)
    loaded = load_model_folder(tmp_path / "m").generator
    # Defaults too, which another version may have changed when it reads the folder.
    written = json.loads((tmp_path / "m" / "config.json").read_text())["generator"]["init_args"]
    assert written == {
        "n_mels": 80, "channels": 32, "upsample_rates": [8, 8, 2, 2], "residual_dilations": [1, 3, 9],
        "causal": False,
    }  # fmt: skip
    mel = torch.randn(1, 80, 8)
    torch.testing.assert_close(loaded(mel), generator.eval()(mel), atol=1e-6, rtol=1e-5)


def test_replacing_carries_other_files_over(tmp_path):
    saved(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("mine")
    saved(tmp_path / "m", tiny(1), info={"steps": 2})
    assert listing(tmp_path / "m") == ["README.md", "config.json", "model.safetensors"]
    assert load_model_folder(tmp_path / "m", allow=["tests"]).info == {"steps": 2}


def test_other_folders_and_files_are_not_replaced(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "thesis.txt").write_text("x")
    (tmp_path / "f").write_text("x")
    for name in ("d", "f"):
        with pytest.raises(ModelFolderError, match="isn't a model folder"):
            saved(tmp_path / name)
    assert (tmp_path / "d" / "thesis.txt").read_text() == "x"
    (tmp_path / "empty").mkdir()
    saved(tmp_path / "empty")


@pytest.mark.parametrize("step", ["_write", "_read_back", "rename"])
def test_a_failure_leaves_the_old_model(tmp_path, monkeypatch, step):
    saved(tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()

    def fail(*args):
        raise OSError(28, "No space left on device")

    if step == "rename":
        real = Path.rename
        monkeypatch.setattr(
            Path, "rename", lambda self, to: fail() if self.suffix == ".tmp" else real(self, to)
        )
    else:
        monkeypatch.setattr(model_folder, step, fail)
    with pytest.raises(OSError, match="No space"):
        saved(tmp_path / "m", tiny(1))
    monkeypatch.undo()
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert listing(tmp_path) == ["m"]
    with pytest.raises(ModelFolderError):  # and where there was none, none
        saved(tmp_path / "new", info={"x": object()})
    assert listing(tmp_path) == ["m"]


def test_a_kill_between_the_renames_loses_nothing(tmp_path, monkeypatch):
    saved(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text("mine")

    class Killed(BaseException):
        pass

    real = Path.rename

    def rename(self, to):
        if self.suffix == ".tmp":
            raise Killed
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(
        model_folder.shutil, "rmtree", lambda *a, **k: None
    )  # a killed process doesn't tidy up
    with pytest.raises(Killed):
        saved(tmp_path / "m", tiny(1))
    monkeypatch.undo()
    assert not (tmp_path / "m").exists()
    torch.testing.assert_close(
        load_model_folder(tmp_path / "m", allow=["tests"]).generator.first.bias, tiny().first.bias
    )
    saved(tmp_path / "m", tiny(2))
    assert listing(tmp_path) == ["m"]
    assert "README.md" in listing(tmp_path / "m")
    torch.testing.assert_close(
        load_model_folder(tmp_path / "m", allow=["tests"]).generator.first.bias, tiny(2).first.bias
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({"info": {"x": float("nan")}}, "JSON can't hold"),
        ({"info": {"x": Path("y")}}, "JSON can't hold"),
        ({"config": {"class_path": f"{HERE}.Tiny", "init_args": {"width": 7}}}, "wouldn't load again"),
        ({"config": {"class_path": "__main__.Tiny"}}, "wouldn't load again"),
        ({"config": {}}, "wouldn't load again"),
    ],
)
def test_what_would_not_load_is_not_saved(tmp_path, change, words):
    with pytest.raises(ModelFolderError) as error:
        save_model_folder(tmp_path / "m", tiny(), MEL, **{"config": CONFIG} | change)
    assert words in str(error.value)
    assert listing(tmp_path) == []


def test_weights_or_mels_that_can_not_be_are_not_saved(tmp_path):
    generator = tiny()
    with pytest.raises(ModelFolderError, match="hop_length 16, its mel 32"):
        save_model_folder(tmp_path / "m", generator, MelSpec(8000, 64, 32, 64, 8, 0, 4000), config=CONFIG)
    with torch.no_grad():
        generator.first.bias[2] = float("nan")
    with pytest.raises(ModelFolderError, match=r"first\.bias holds NaN"):
        saved(tmp_path / "m", generator)
    assert listing(tmp_path) == []


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 25000\n"


def rewrite(path: Path, **changes) -> None:
    config = path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))


def spoil_mel(path: Path) -> None:
    rewrite(path, mel=MEL.to_dict() | {"fmax": 9000})


def spoil_weights(path: Path, **changes: Tensor | None) -> None:
    state = safetensors.torch.load_file(path / "model.safetensors") | {
        k.replace("__", "."): v for k, v in changes.items()
    }
    safetensors.torch.save_file({k: v for k, v in state.items() if v is not None}, path / "model.safetensors")


def node(path: str, **init_args) -> dict:
    return {"class_path": path, "init_args": init_args}


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda p: (p / "config.json").unlink(), "has no config.json"),
        (lambda p: (p / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda p: (p / "config.json").write_text("{"), "isn't JSON"),
        (lambda p: (p / "config.json").write_bytes(b"\xff\xfe"), "isn't JSON"),
        (lambda p: (p / "config.json").write_text("[" * 200_000), "isn't JSON"),
        (lambda p: (p / "config.json").write_text('{"resblock": "1"}'), "isn't a gansound model's config"),
        (lambda p: rewrite(p, format=2), "got format 2, expected 1"),
        (lambda p: rewrite(p, mel=3), "got mel 3"),
        (spoil_mel, "mel fmax: got 9000 Hz"),
        (lambda p: rewrite(p, mel={}), "missing key"),
        (lambda p: (p / "model.safetensors").write_bytes(b"\x80\x04pickle"), "can't be read as safetensors"),
        (lambda p: (p / "model.safetensors").write_text(POINTER), "git lfs pull"),
        (
            lambda p: (p / "model.safetensors").write_bytes((p / "model.safetensors").read_bytes()[:-9]),
            "can't be read",
        ),
        (lambda p: spoil_weights(p, first__bias=None), "first.bias is missing"),
        (lambda p: spoil_weights(p, extra=torch.ones(1)), "extra is unknown"),
        (lambda p: spoil_weights(p, first__bias=torch.ones(7)), "first.bias has shape (7,), expected (6,)"),
        (lambda p: spoil_weights(p, first__bias=torch.full((6,), torch.nan)), "first.bias holds NaN"),
        (lambda p: rewrite(p, generator=node("os.system", command="true")), "os.system is refused"),
        (
            lambda p: rewrite(p, generator=node("gansound.mel.MelFrontEnd")),
            "gansound.mel.MelFrontEnd is refused",
        ),
        (lambda p: rewrite(p, generator=node("torch.optim.SGD", lr=1)), "torch.optim.SGD is refused"),
        (
            lambda p: rewrite(p, generator=node(f"{HERE}.Tiny", width={"class_path": "subprocess.Popen"})),
            "Popen is refused",
        ),
        (lambda p: rewrite(p, generator=node(f"{HERE}.NotAModule")), "expected a Module"),
        (lambda p: rewrite(p, generator=node(f"{HERE}.Nope")), "no class 'Nope'"),
        (lambda p: rewrite(p, generator=node(f"{HERE}.Tiny", width=0)), "at least 1"),
        (lambda p: rewrite(p, generator=node(f"{HERE}.Tiny", width="x")), "generator.width: got 'x'"),
        (lambda p: rewrite(p, generator=node(f"{HERE}.Tiny", widht=3)), "did you mean 'width'"),
        (lambda p: rewrite(p, generator={}), "class_path"),
    ],
)
def test_spoiled_folders_are_refused(tmp_path, spoil, words):
    spoil(saved(tmp_path / "m"))
    with pytest.raises(ModelFolderError) as error:
        load_model_folder(tmp_path / "m", allow=["tests"])
    assert words in str(error.value)
    assert str(tmp_path / "m") in str(error.value)


def test_a_stranger_may_not_name_other_packages(tmp_path):
    saved(tmp_path / "m")
    with pytest.raises(
        ModelFolderError, match=r"tests\.test_model_folder\.Tiny is refused.*allow=\['tests'\]"
    ):
        load_model_folder(tmp_path / "m")


def test_names_that_are_nothing(tmp_path, monkeypatch):
    import huggingface_hub

    def offline(*args, **kwargs):
        raise RuntimeError("no network\ndetails")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    (tmp_path / "g_02500000").write_bytes(b"x")
    (tmp_path / "runs").mkdir()
    for name, words in [
        ("g_02500000", "is a file"),
        ("no-such", "no shipped model"),
        ("runs/typo", "no such model folder"),
        ("./a/b", "no such model folder"),
        ("owner/name", "can't be fetched from the Hugging Face Hub: no network"),
    ]:
        with pytest.raises(ModelFolderError) as error:
            load_model_folder(name)
        assert words in str(error.value)


def test_the_hub_gives_only_the_two_files(tmp_path, monkeypatch):
    import huggingface_hub

    asked = {}

    def download(repository, **kwargs):
        asked.update(kwargs, repository=repository)
        return str(saved(tmp_path / "cache"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert load_model_folder("owner/name", allow=["tests"]).mel == MEL
    assert asked == {"repository": "owner/name", "allow_patterns": ["config.json", "model.safetensors"]}


def test_a_full_disk_is_told_with_the_folder(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")  # as a write says it: without a name

    monkeypatch.setattr("gansound.model_folder._write", full)
    with pytest.raises(OSError, match="No space left") as caught:
        saved(tmp_path / "m")
    assert caught.value.filename == str(tmp_path / "m")
    assert caught.value.errno == errno.ENOSPC
    assert listing(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc, where not even root makes folders")
def test_where_nothing_can_be_made_is_told_by_the_name_asked_for():
    with pytest.raises(FileNotFoundError) as caught:
        saved(Path("/proc/m"))
    assert caught.value.filename == "/proc/m"


def test_a_folder_that_can_not_be_put_in_place_is_told_by_its_name(tmp_path, monkeypatch):
    def refused(self, target):
        raise PermissionError(errno.EACCES, "Permission denied", str(self), None, str(target))

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError) as caught:
        saved(tmp_path / "m")
    assert str(caught.value) == f"[Errno {errno.EACCES}] Permission denied: {str(tmp_path / 'm')!r}"
    assert listing(tmp_path) == []


def test_a_file_size_limit_leaves_nothing(tmp_path):
    pid = os.fork()
    if pid == 0:  # the limit is the whole process's, so it is a child's
        import resource
        import signal

        code = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
            saved(tmp_path / "m")
        except OSError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert listing(tmp_path) == []


def test_a_folder_of_sounds_does_not_hide_the_shipped_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "kick.wav").touch()
    assert load_model_folder("default").path.parent.name == "models"
    shutil.rmtree(tmp_path / "default")
    save_tiny_model(tmp_path / "default")
    assert load_model_folder("default").path == tmp_path / "default"
