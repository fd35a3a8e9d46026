"""Decoders that speak with an embedding made elsewhere: others' nets written independently, and the files of voices."""

import sys
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate, leaky_relu

from gansound.cli import main
from gansound.frames import Interpolation, LatentSpec
from gansound.importers import ImportFailed, import_checkpoint
from gansound.model_folder import load_model_folder
from tests.reference import bigvgan, hifigan
from tests.test_importers import HIFIGAN, SIZES, assert_same, loud, mels, write

NUMBERS = 6  # of an embedding
VOICE = torch.randn(1, NUMBERS, 1, generator=torch.Generator().manual_seed(5))
VITS = {
    "data": {"sampling_rate": 16000, "hop_length": 8},
    "model": {key: HIFIGAN[key] for key in ("upsample_rates", "resblock_dilation_sizes")},
}
XTTS_SIZES = {
    "bands": 20, "width": 16, "rates": (8, 8, 2, 2), "kernels": (16, 16, 4, 4), "block_kernels": (3, 5, 7),
    "block_dilations": ((1, 3, 5),) * 3,
}  # fmt: skip
XTTS = {
    "input_sample_rate": 22050,
    "output_sample_rate": 24000,
    "output_hop_length": 256,
    "gpt_code_stride_len": 1024,
}
INDEX_TTS = {
    "bigvgan": HIFIGAN
    | {
        "gpt_dim": 20,
        "feat_upsample": False,
        "activation": "snakebeta",
        "snake_logscale": True,
        "sampling_rate": 24000,
    }
}


class Voiced(torch.nn.Module):
    """A net of convolutions with an embedding added behind its first and, where it is so, behind each upsampling."""

    def __init__(self, net, width, stages):
        super().__init__()
        self.net = net
        self.cond = torch.nn.Conv1d(NUMBERS, width, 1)
        self.conds = torch.nn.ModuleList(torch.nn.Conv1d(NUMBERS, width >> (i + 1), 1) for i in range(stages))

    def forward(self, x):
        net = self.net
        x = net.conv_pre(x) + self.cond(VOICE)
        periodic = isinstance(net, bigvgan.Generator)
        for i, up in enumerate(net.ups):
            x = up[0](x) if periodic else up(leaky_relu(x, 0.1))
            x = x + self.conds[i](VOICE) if self.conds else x
            x = (
                sum(block(x) for block in net.resblocks[i * net.branches : (i + 1) * net.branches])
                / net.branches
            )
        return torch.tanh(net.conv_post(net.activation_post(x) if periodic else leaky_relu(x, 0.01)))

    def state(self, prefix, cond="cond_layer"):
        of_net = {prefix + name: value for name, value in self.net.state_dict().items()}
        added = {f"{prefix}{cond}.{name}": value for name, value in self.cond.state_dict().items()}
        return (
            of_net
            | added
            | {f"{prefix}conds.{name}": value for name, value in self.conds.state_dict().items()}
        )


def voiced(make=hifigan.Generator, sizes=SIZES, stages=0):
    torch.manual_seed(0)
    return loud(Voiced(make(**sizes), sizes["width"], stages))


def xtts(folder):
    net = voiced(sizes=XTTS_SIZES, stages=4)
    net.net.conv_post.bias.data.zero_()
    state = net.state("xtts.hifigan_decoder.waveform_decoder.")
    state.pop("xtts.hifigan_decoder.waveform_decoder.conv_post.bias")
    state |= {
        "xtts.gpt.a.weight": torch.ones(2),
        "xtts.hifigan_decoder.speaker_encoder.b.weight": torch.ones(2),
    }
    file = write(folder, "model.pth", {"model": state}, {"model_args": XTTS})
    voices = {"Ana Florence": VOICE, "Ben": -VOICE}
    voices = {
        name: {"gpt_cond_latent": torch.ones(1, 2, 3), "speaker_embedding": at} for name, at in voices.items()
    }
    torch.save(voices, folder / "speakers_xtts.pth")
    return file, net


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".pth", ".safetensors"])
def test_a_decoder_of_gpt_sovits_speaks_with_a_given_voice(tmp_path, suffix):
    net = voiced()
    content = {"weight": net.state("dec.", "cond") | {"enc_p.a.weight": torch.ones(2)}, "info": "8epoch"}
    file = write(tmp_path / "in", "ana_e8_s200.pth", content, VITS)
    voice = tmp_path / "in" / f"ana{suffix}"  # among the weights, as it is no weights itself
    match suffix:
        case ".npy":
            np.save(voice, VOICE.numpy())
        case ".safetensors":
            save_file({"ge": VOICE[0]}, voice)
        case _:
            torch.save(VOICE, voice)
    assert main(["import", str(file.parent), "--voice", str(voice), "-o", str(tmp_path / "out")]) == 0
    assert_same(tmp_path / "out", net, mels())
    assert load_model_folder(tmp_path / "out").info["speaker"] == voice.name


def test_gpt_sovits_writes_its_settings_as_an_object_and_its_version_over_the_zip(tmp_path, monkeypatch):
    class HParams:
        def __init__(self, **fields):
            vars(self).update(fields)

    HParams.__module__, HParams.__qualname__ = "utils", "HParams"
    module = types.ModuleType("utils")
    module.HParams = HParams
    monkeypatch.setitem(sys.modules, "utils", module)
    net = voiced()
    settings = HParams(data=HParams(**VITS["data"]), model=HParams(**VITS["model"]))
    file = write(tmp_path / "in", "ana.pth", {"weight": net.state("dec.", "cond"), "config": settings})
    monkeypatch.delitem(sys.modules, "utils")  # which nothing imports
    file.write_bytes(b"05" + file.read_bytes()[2:])
    torch.save(VOICE, tmp_path / "voice.pt")
    import_checkpoint([file], tmp_path / "out", voice=tmp_path / "voice.pt")
    assert_same(tmp_path / "out", net, mels())


def test_openvoices_second_converter_has_one_decoder_for_all_voices(tmp_path):
    net = voiced()
    config = VITS | {"model": VITS["model"] | {"zero_g": True}}
    file = write(tmp_path / "in", "checkpoint.pth", {"model": net.state("dec.", "cond")}, config)
    import_checkpoint([file], tmp_path / "out")
    net.cond.weight.data.zero_()
    assert_same(tmp_path / "out", net, mels())
    torch.save(VOICE, tmp_path / "se.pth")
    with pytest.raises(ImportFailed, match="has one voice only, got an embedding"):
        import_checkpoint([file], tmp_path / "no", voice=tmp_path / "se.pth")


def test_a_voice_given_goes_before_a_table(tmp_path):
    net = voiced()
    state = net.state("dec.", "cond") | {"emb_g.weight": torch.zeros(3, NUMBERS)}
    file = write(tmp_path / "in", "G_1.pth", {"model": state}, VITS)
    torch.save(VOICE, tmp_path / "blend.pt")
    import_checkpoint([file], tmp_path / "out", voice=tmp_path / "blend.pt")
    assert_same(tmp_path / "out", net, mels())


def test_xtts_speaks_as_one_of_its_speakers_or_as_any(tmp_path):
    file, net = xtts(tmp_path / "in")
    described = import_checkpoint([file], tmp_path / "out", speaker="Ana Florence")
    assert described.takes == LatentSpec(20, 24000, 256, (4.0, 24000 / 22050))
    vocoder = assert_same(tmp_path / "out", net, mels())
    assert vocoder.frame_spec == described.takes
    torch.save(
        {"speaker_embedding": VOICE, "gpt_conditioning_latents": torch.ones(1)}, tmp_path / "cloned.pth"
    )
    import_checkpoint([file], tmp_path / "cloned", voice=tmp_path / "cloned.pth")
    assert_same(tmp_path / "cloned", net, mels())
    for speaker, said in (
        (None, r"6 numbers: --voice FILE .*speakers_xtts\.pth"),
        ("Carl", "2 voices, got Carl.*Ben"),
    ):
        with pytest.raises(ImportFailed, match=said):
            import_checkpoint([file], tmp_path / "no", speaker=speaker)
    (file.parent / "speakers_xtts.pth").unlink()
    with pytest.raises(ImportFailed, match=r"no speakers_xtts\.pth lies beside it"):
        import_checkpoint([file], tmp_path / "no", speaker="Ben")


@pytest.mark.parametrize("interpolated", [False, True])
def test_index_tts_is_a_bigvgan_with_a_voice(tmp_path, interpolated):
    net = voiced(bigvgan.Generator, stages=2)
    content = {"generator": net.state("") | {"speaker_encoder.fc.weight": torch.ones(2)}}
    config = {"bigvgan": INDEX_TTS["bigvgan"] | {"feat_upsample": interpolated}}
    file = write(tmp_path / "in", "bigvgan_generator.pth", content, config, "config.yaml")
    np.save(tmp_path / "ana.npy", VOICE.squeeze().numpy())
    described = import_checkpoint([file], tmp_path / "out", voice=tmp_path / "ana.npy")
    assert described.takes == LatentSpec(20, 24000, 8, (4.0,) if interpolated else ())
    assert_same(tmp_path / "out", net, mels())


@pytest.mark.parametrize(
    "held, said",
    [
        (torch.zeros(1, 5, 1), r"shape \(1, 5, 1\), expected 6 numbers"),
        (torch.zeros(2, 3), r"shape \(2, 3\), expected 6 numbers"),
        (torch.full((6,), torch.nan), "NaN or infinity"),
        ({"a": torch.zeros(6), "b": torch.zeros(6)}, "holds a, b, expected one embedding"),
        ([1.0], "holds a list"),
    ],
)
def test_what_is_no_voice_is_refused(tmp_path, held, said):
    file = write(tmp_path / "in", "G_1.pth", {"model": voiced().state("dec.", "cond")}, VITS)
    torch.save(held, tmp_path / "voice.pt")
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint([file], tmp_path / "out", voice=tmp_path / "voice.pt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("factors", [(4, 24000 / 22050), (1 / 1.3, 4, 24000 / 22050), (2.5,), (0.3,)])
def test_latents_interpolated_in_pieces_are_those_interpolated_whole(factors):
    draw = torch.Generator().manual_seed(0)
    stream = Interpolation(factors)
    for count in (4, 50, 605):
        latents = torch.randn(2, 5, count, generator=draw)
        whole = latents
        for factor in factors:
            whole = interpolate(whole, scale_factor=[factor], mode="linear")
        parts = [stream.push(part) for part in latents.tensor_split([1, 1, 2, 3 * count // 4], -1)]
        assert sum(part.shape[-1] for part in parts) >= whole.shape[-1] - np.prod(factors) - 2
        torch.testing.assert_close(torch.cat([*parts, stream.flush()], -1), whole, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="no latents before the flush"):
        stream.flush()


def test_the_frames_of_a_model_that_interpolates(tmp_path):
    spec = LatentSpec(20, 24000, 256, (4, 24000 / 22050))
    assert LatentSpec.from_dict(spec.to_dict()) == spec
    assert spec.interpolate(mels().numpy()).shape == (2, 20, 100)
    with pytest.raises(ValueError, match="looks transposed"):
        spec.interpolate(mels().transpose(1, 2))
    for factors in ((0,), ("4",), 4, (True,), []):
        with pytest.raises(ValueError, match="interpolation by"):
            LatentSpec(20, 24000, 256, factors)
