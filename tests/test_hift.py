"""HiFT against a plain-torch reference, and its layers; imported from files named as CosyVoice's and Chatterbox's.

The reference's weights have the names that those projects' checkpoints have.
"""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from gansound.generators.hift import HiFTGenerator, hift_keys
from gansound.importers import import_checkpoint
from gansound.importers.checkpoint import ImportFailed
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder
from gansound.nn import streaming
from gansound.nn.exact import ExactConv1d
from gansound.nn.fold import fold_parametrizations
from gansound.nn.harmonic_source import NOISE_FRAMES, HarmonicSource
from gansound.nn.inference_form import InferenceForm
from gansound.nn.stft import STFT
from gansound.nn.streaming import Cursor
from tests.reference import hift as reference
from tests.streams import Streams, chunk_by_chunk, error, serve

PHASES = ("summed", "interpolated", "held")
# Which net, by its files: preset, rates, taps, of the source, phases, causal.
NETS = {
    "cosyvoice1": ("hifigan", (8, 8), (16, 16), (7, 11), "summed", False),
    "cosyvoice2": ("cosyvoice2", (8, 5, 3), (16, 11, 7), (7, 7, 11), "interpolated", False),
    "chatterbox": ("cosyvoice2", (8, 5, 3), (16, 11, 7), (7, 7, 11), "summed", False),
    "cosyvoice3": ("cosyvoice3", (8, 5, 3), (16, 11, 7), (7, 7, 11), "held", True),
}


def sizes(name, channels=8):
    _, rates, taps, source, phases, causal = NETS[name]
    chains, sides = ((1, 3, 5),) * 3, ((1, 3, 5),) * len(rates)
    return {
        "channels": channels, "upsample_rates": rates, "upsample_kernel_sizes": taps,
        "residual_kernel_sizes": (3, 7, 11), "residual_dilations": chains,
        "source_kernel_sizes": source, "source_dilations": sides,
        "pitch_channels": channels, "harmonics": 8, "phases": phases, "causal": causal,
    }  # fmt: skip


@torch.no_grad()
def theirs_of(name, dtype=torch.float64):
    """With pitches of some hundred Hz, and heard."""
    torch.manual_seed(0)
    spec = MelSpec.preset(NETS[name][0])
    net = reference.Generator(spec.sample_rate, spec.n_mels, *sizes(name).values()).eval()
    net.f0_predictor.classifier.weight *= 2000
    for layer in net.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            layer.weight *= 1.7
    return net.to(dtype)


def mels(name, frames, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(1, MelSpec.preset(NETS[name][0]).n_mels, frames, generator=draw).to(dtype) - 2


def drawn(source, frames):
    """What our source has in place of draws, as each harmonic's own noise: its weighted sum is ours."""
    unit = source.weight / source.weight.norm()
    rows = source.noise[torch.arange(frames) % NOISE_FRAMES].flatten()
    rows = rows * (math.sqrt(12) if source.phases == "held" else 1)
    return rows[:, None] * unit, 2 * math.pi * source.begins


def ours_of(name, theirs):
    spec = MelSpec.preset(NETS[name][0])
    net = fold_parametrizations(HiFTGenerator(spec, **sizes(name))).to(theirs.conv_pre.weight.dtype).eval()
    keys, weights = hift_keys(net), theirs.state_dict()
    assert sorted(keys.values()) == sorted(weights)
    net.load_state_dict({k: weights[keys[k]].reshape(v.shape) for k, v in net.state_dict().items()})
    return net


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_it_equals_the_reference(name):
    theirs = theirs_of(name)
    ours = ours_of(name, theirs)
    source = ours.layers[0].source[1]
    for frames in (1, 2, 23):
        mel = mels(name, frames, seed=frames)
        expected = theirs(mel, *drawn(source, frames))
        got = ours(mel)
        assert got.shape == expected.shape == (1, frames * ours.hop_length)
        assert 0.02 < float(expected.square().mean().sqrt()) < 0.8
        # Phases lie on a grid of 2^-23 turns, and so do their overtones'; summed over 23 frames.
        assert error([got], [expected]) < 5e-5
    quiet = theirs(mel, *(0 * draw for draw in drawn(source, 23)))
    assert error([quiet], [expected]) > 1e-3  # the noise is heard
    pitch = theirs.f0_predictor(mel)
    assert float((pitch > 10).double().mean()) > 0.5
    assert float(pitch.mean()) > 50


def test_published_parameter_count():
    """Of CosyVoice's own code, `sum(p.numel() for p in hift.parameters())` without weight norm."""
    counts = {}
    for name, (preset, *_) in NETS.items():
        with torch.device("meta"):
            spec = MelSpec.preset(preset)
            net = HiFTGenerator(spec, **(sizes(name) | {"channels": 512, "pitch_channels": 512}))
        counts[name] = sum(p.numel() for p in fold_parametrizations(net).parameters())
    assert counts == {
        "cosyvoice1": 20_447_517,
        "cosyvoice2": 20_806_557,
        "chatterbox": 20_806_557,
        "cosyvoice3": 20_765_597,
    }


@pytest.mark.parametrize("phases", PHASES)
def test_a_stream_of_sources_equals_the_whole(phases):
    """Utterances of any length in lanes of one batch, and a chunking of one that outlasts its noise."""
    torch.manual_seed(0)
    source = HarmonicSource(22050, 6, 3, phases=phases).double()
    streams = Streams(
        lambda batch: streaming.init_state(source, torch.zeros(batch, 1, 1, dtype=torch.float64)),
        lambda x, state, interior=False: streaming.step(source, x, state, interior=interior),
        streaming.finish,
        streaming.reset,
        6,
        source.lead_samples,
    )
    pitches = [
        (torch.rand(1, frames, dtype=torch.float64) * 400 - 50).clamp(min=0)
        for frames in (1, 2, 9, 40, 3, 17)
    ]
    with torch.no_grad():
        expected = [source(f0[None])[0] for f0 in pitches]
        got = serve(streams, pitches, [y.shape[1] for y in expected], 1)
        assert error(got, expected) <= 1e-12
        assert min(float(y.abs().max()) for y in expected) > 1e-3
        long = (torch.rand(2, 1, 600, dtype=torch.float64) * 400 - 50).clamp(min=0)
        chunks = [1] * 30 + [7] * 30 + [360]
        for interior in (None, 3):
            assert error([chunk_by_chunk(streams, long, chunks, interior)], [source(long)]) <= 1e-12


def test_an_hour_later_a_phase_is_as_exact():
    """Of one pitch for 200 000 frames: what is left of that many times what a frame adds."""
    source = HarmonicSource(24000, 480, 0)
    state = streaming.init_state(source, torch.zeros(1, 1, 1))
    frames = 200_000
    with torch.no_grad():
        for chunk in torch.full((1, 1, frames), 123.4567).split(5_000, -1):
            _, state = streaming.step(source, chunk, state)
    frame = round((np.float32(123.4567) / np.float32(24000) * np.float32(480)) % 1 * 2**23)
    assert float(state[2]) == frames * frame % 2**23 / 2**23
    assert float(state[3]) == frames % NOISE_FRAMES


def test_a_spectrum_is_that_of_torch():
    for n_fft, hop in ((16, 4), (12, 6), (32, 4)):
        x = torch.randn(2, 10 * n_fft, dtype=torch.float64)
        window = torch.hann_window(n_fft, dtype=torch.float64)
        expected = torch.stft(x, n_fft, hop, window=window, return_complex=True)
        got = STFT(n_fft, hop)(x[:, None])
        torch.testing.assert_close(got, torch.cat([expected.real, expected.imag], 1), rtol=0, atol=1e-6)


def test_exact_sums_do_not_depend_on_how_many_there_are():
    """A frame's pitch, to the bit, alone and among others; and in the form for inference, whose weights are kept."""
    torch.manual_seed(0)
    layer = ExactConv1d(300, 40, left=1, right=1, elu=True)
    x = torch.randn(1, 300, 50)
    whole = layer(x)
    expected = nn.functional.elu(
        nn.functional.conv1d(x.double(), layer.weight.double(), layer.bias.double(), padding=1)
    )
    assert torch.equal(whole, expected.float())
    for t in range(1, 49):
        assert torch.equal(layer(x[..., t - 1 : t + 2])[..., 1], whole[..., t])
    assert torch.equal(layer.keep()(x), whole)
    assert not any(parameter.requires_grad for parameter in layer.parameters())


def test_pitches_stay_exact_in_half_precision():
    """Of a net run in bf16: its convolutions are, what tells the pitch isn't."""
    name = "cosyvoice1"
    ours = ours_of(name, theirs_of(name, torch.float32))
    form = InferenceForm(ours, dtype=torch.bfloat16)
    mel = mels(name, 12, torch.float32)
    pitch = ours.layers[0].source[0](mel)
    again = form.layers[1].source[0](form.layers[0](mel))
    assert torch.equal(again[:, :, 0], pitch)
    assert any(p.dtype == torch.bfloat16 for p in form.parameters())


def written(path, theirs, prefix="", **more):
    """As they save it: weight norm as a parametrization, everywhere but where the source comes in."""
    normed = [n for n, m in theirs.named_modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    for name in normed:
        if not name.startswith("source_downs"):
            weight_norm(theirs.get_submodule(name))
    state = {prefix + key: value.contiguous() for key, value in theirs.state_dict().items()} | more
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return path


FILES = {
    "cosyvoice1": ("hift.pt", "", {}),
    "cosyvoice2": ("hift.pt", "generator.", {"discriminator.x": torch.zeros(3)}),
    "chatterbox": ("s3gen.safetensors", "mel2wav.", {"flow.input_embedding.weight": torch.zeros(5, 2)}),
    "cosyvoice3": ("hift.pt", "", {}),
}


@pytest.mark.parametrize("name", NETS)
def test_a_file_of_theirs_is_imported(name, tmp_path):
    theirs = theirs_of(name, torch.float32)
    mel = mels(name, 9, torch.float32)
    with torch.no_grad():
        ours = ours_of(name, theirs)
        expected = theirs(mel, *drawn(ours.layers[0].source[1], 9))
    file, prefix, more = FILES[name]
    path = written(tmp_path / file, theirs, prefix, **more)
    described = import_checkpoint([path], tmp_path / "model")
    preset, *_, phases, _ = NETS[name]
    assert described.takes == MelSpec.preset(preset)
    loaded = load_model_folder(tmp_path / "model")
    assert loaded.generator.layers[0].source[1].phases == phases
    vocoder = Vocoder.from_pretrained(tmp_path / "model", device="cpu", backend="eager")
    assert (
        error([vocoder(mel, warn=False)], [expected]) < 1e-3
    )  # phases of theirs are rounded, see test_it_equals
    with vocoder.stream() as stream:
        parts = [stream.push(part[0].numpy()) for part in mel.split(2, -1)] + [stream.flush()]
    streamed = torch.from_numpy(np.concatenate(parts))[None]
    assert error([streamed], [loaded.generator(mel).detach()]) < 3e-5
    assert any("noise" in note for note in described.notes)


class Host(nn.Module):
    """What Chatterbox's `S3Token2Wav` (0.1.7) and CosyVoice's models do with the mel, in their words."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.hift = nn.Module()
        self.register_buffer("trim_fade", torch.linspace(0, 1, 960), persistent=False)

    @torch.inference_mode()
    def chatterbox(self, mel: Tensor) -> tuple[Tensor, Tensor | None]:
        wavs, sources = self.hift_inference(mel.to(self.dtype), None)
        wavs[:, : len(self.trim_fade)] *= self.trim_fade
        return wavs, sources

    def cosyvoice(self, mel: Tensor, **more: Tensor | bool) -> Tensor:
        speech, _ = self.hift.inference(speech_feat=mel, **more)
        return speech


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_it_stands_in_its_hosts_as_documented(dtype, tmp_path):
    theirs = theirs_of("chatterbox", torch.float32)
    import_checkpoint([written(tmp_path / "s3gen.safetensors", theirs, "mel2wav.")], tmp_path / "model")
    vocoder = Vocoder.from_pretrained(tmp_path / "model", device="cpu", backend="eager")
    mel = mels("chatterbox", 9, torch.float32)
    host = Host(dtype)
    host.hift_inference = lambda mel, _=None: (vocoder(mel), None)
    wavs, _ = host.chatterbox(mel)
    expected = vocoder(mel.to(dtype).float(), warn=False)
    assert torch.equal(wavs[:, 960:], expected[:, 960:])
    assert torch.equal(wavs[:, :960], expected[:, :960] * host.trim_fade)
    host.hift.inference = lambda speech_feat, **_: (vocoder(speech_feat), None)
    whole = vocoder(mel, warn=False)
    assert torch.equal(host.cosyvoice(mel, cache_source=torch.zeros(1, 1, 0)), whole)
    assert torch.equal(host.cosyvoice(mel, finalize=True), whole)


def test_what_is_no_published_net_is_refused_by_name(tmp_path):
    theirs = theirs_of("cosyvoice1", torch.float32)
    path = written(tmp_path / "hift.pt", theirs)
    state = torch.load(path)
    state["ups.1.parametrizations.weight.original1"] = torch.randn(4, 2, 8)
    torch.save(state, path)
    with pytest.raises(ImportFailed, match="kernels of 16, 8 taps"):
        import_checkpoint([path], tmp_path / "model")
    del state["m_source.l_linear.weight"]
    torch.save(state, path)
    with pytest.raises(ImportFailed, match=re.escape("has no m_source.l_linear.weight")):
        import_checkpoint([path], tmp_path / "model")
    assert not (tmp_path / "model").exists()


SPEC = replace(MelSpec.preset("hifigan"), n_mels=6)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({}, "hop is 256"),
        (
            {"upsample_rates": (8, 8), "upsample_kernel_sizes": (16, 16)},
            "one of source_kernel_sizes for each stage",
        ),
        ({"phases": "drawn"}, "'summed', 'interpolated' or 'held'"),
        ({"istft_hop_length": 3}, "make 360 samples"),
        ({"source_dilations": ((1,),)}, "a list of positive dilations for each"),
    ],
)
def test_a_generator_that_cannot_be_is_refused(arguments, said):
    spec = SPEC if not arguments.get("phases") else replace(SPEC, hop_length=480)
    with pytest.raises(ValueError, match=said):
        HiFTGenerator(
            spec if "source_dilations" not in arguments else replace(SPEC, hop_length=480), **arguments
        )


def test_an_odd_hop_has_no_middle():
    with pytest.raises(ValueError, match="must be even, got 7"):
        HarmonicSource(22050, 7, phases="interpolated")


def test_the_field_knows_that_phases_are_remembered():
    cursor = Cursor(None, [])
    HarmonicSource(22050, 4).stream(torch.zeros(1, 1, 1), cursor)
    assert cursor.remembers
