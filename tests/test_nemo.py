"""NeMo's archives: the HiFi-GAN inside, and archives that want more than they should get."""

import io
import re
import tarfile

import pytest
import torch
import yaml

from gansound.importers import ImportFailed, import_checkpoint
from gansound.mel import MelSpec
from tests.reference import hifigan
from tests.test_importers import SIZES, _Bomb, assert_same, loud, mels

CONFIG = {
    "generator": {
        "_target_": "nemo.collections.tts.modules.hifigan_modules.Generator", "resblock": 1, "upsample_rates": [4, 2],
        "upsample_kernel_sizes": [8, 4], "upsample_initial_channel": 16, "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 3], [1, 2]],
    },
    "preprocessor": {
        "nfilt": 20, "lowfreq": 0, "highfreq": 7000, "n_fft": 64, "n_window_size": 64, "n_window_stride": 8,
        "sample_rate": 16000, "window": "hann", "normalize": None, "preemph": None, "log": True,
        "log_zero_guard_type": "clamp", "log_zero_guard_value": 1e-05, "mag_power": 1.0, "exact_pad": True,
    },
}  # fmt: skip


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def archive(path, files, mode="w", change=None):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(change(member) if change else member, io.BytesIO(data))
    return path


def files_of(net, by_stage=True, config=CONFIG):
    state = {}
    for key, value in net.state_dict().items():
        found = re.fullmatch(r"resblocks\.(\d+)\.(.*)", key)
        if found and by_stage:
            stage, chain = divmod(int(found[1]), 2)
            key = f"resblocks.{stage}.{chain}.{found[2]}"
        state[f"generator.{key}"] = value
    state |= {
        "mpd.discriminators.0.convs.0.bias": torch.ones(2),
        "audio_to_melspec_precessor.fb": torch.ones(1, 2, 3),
    }
    return {"./model_config.yaml": yaml.safe_dump(config).encode(), "./model_weights.ckpt": saved(state)}


@pytest.fixture
def net():
    return loud(hifigan.Generator(**SIZES))


@pytest.mark.parametrize(
    "by_stage, mode, version, padding",
    [(True, "w", "2.5.0", "zero"), (False, "w:gz", "2.4.0rc2", "reflect"), (True, "w", None, "reflect")],
)
def test_its_generator_and_its_mel(tmp_path, net, by_stage, mode, version, padding):
    """The version that trained it says how its frames were padded; those before 1.7 say none."""
    config = CONFIG | ({} if version is None else {"nemo_version": version})
    file = archive(tmp_path / "hifigan.nemo", files_of(net, by_stage, config), mode)
    described = import_checkpoint([file], tmp_path / "out")
    assert_same(tmp_path / "out", net, mels())
    expected = {
        "framing": "same",
        "padding": padding,
        "window": "hann_symmetric",
        "magnitude_eps": 0.0,
        "floor": 1e-5,
    }
    assert described.takes == MelSpec(16000, 64, 8, 64, 20, 0, 7000, **expected)


def test_frames_are_centred_without_exact_padding(tmp_path, net):
    config = CONFIG | {"preprocessor": CONFIG["preprocessor"] | {"exact_pad": False}}
    file = archive(tmp_path / "hifigan.nemo", files_of(net, config=config))
    assert import_checkpoint([file], tmp_path / "out").takes.framing == "center"


def test_what_a_configuration_leaves_out_is_nemos_own(tmp_path, net):
    own = {"mag_power": 2.0, "preemph": 0.97, "log_zero_guard_type": "add", "normalize": "per_feature"}
    for name, value in own.items():
        said = {key: one for key, one in CONFIG["preprocessor"].items() if key != name}
        file = archive(tmp_path / "x.nemo", files_of(net, config=CONFIG | {"preprocessor": said}))
        with pytest.raises(ImportFailed, match=rf"preprocessor\.{name} is {value!r}, expected"):
            import_checkpoint([file], tmp_path / "out")
    config = CONFIG | {"preprocessor": CONFIG["preprocessor"] | {"use_grads": True}}
    file = archive(tmp_path / "x.nemo", files_of(net, config=config))
    assert import_checkpoint([file], tmp_path / "out").takes.magnitude_eps == 1e-5


def spoiled(how, path, net):
    """An archive with a fault, and what is said of it."""
    files = files_of(net)
    if how == "no weights":
        del files["./model_weights.ckpt"]
        return archive(path, files), "holds no model_weights.ckpt"
    if how == "no archive":
        path.write_bytes(b"nothing of the kind")
        return path, "can't be read as a checkpoint"
    if how == "a link":

        def link(member):
            if member.name.endswith("ckpt"):
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            return member

        return archive(path, files, change=link), "holds no model_weights.ckpt"
    if how == "a bomb":
        files["./model_config.yaml"] = b" " * (1 << 21)
        return archive(path, files, "w:gz"), r"model_config.yaml in it claims 2,097,152 bytes"
    if how == "grown":
        return archive(
            path, files | {"./model_weights.ckpt": bytes(1 << 22)}, "w:gz"
        ), "claims 4,194,304 bytes"
    if how == "another mel":
        config = CONFIG | {"preprocessor": CONFIG["preprocessor"] | {"log_zero_guard_type": "add"}}
        return archive(path, files_of(net, config=config)), "log_zero_guard_type is 'add', expected 'clamp'"
    bomb = _Bomb()
    bomb.path = str(path.parent / "ran")
    return archive(path, files | {"./model_weights.ckpt": saved({"x": bomb})}), "a pickle can run any code"


FAULTS = ("no weights", "no archive", "a link", "a bomb", "grown", "another mel", "code")


@pytest.mark.parametrize("how", FAULTS)
def test_an_archive_that_cannot_be_is_refused(tmp_path, net, how):
    file, said = spoiled(how, tmp_path / "x.nemo", net)
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint([file], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["x.nemo"]
