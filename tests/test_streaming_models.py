"""Every generator of the package streamed equals itself on the whole utterance, and looks as far as it says."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from gansound.audio import resample
from gansound.generators import bigvgan, hifigan
from gansound.generators.bigvgan import BigVGANGenerator
from gansound.generators.freev import FreeVGenerator
from gansound.generators.hifigan import HiFiGANGenerator
from gansound.generators.istftnet import ISTFTNetGenerator
from gansound.generators.melgan import MelGANGenerator
from gansound.generators.multi_band_melgan import MultiBandMelGANGenerator
from gansound.generators.vocos import VocosGenerator
from gansound.inference.backends.eager import EagerRunner
from gansound.inference.vocoder import in_convention
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder
from gansound.nn.codes import CodeEmbedding
from gansound.nn.conv import Conv1d
from gansound.nn.exact import ExactConv1d, MayBeExact
from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from gansound.nn.group_delay import GroupDelay
from gansound.nn.harmonic_source import GlidingSine, HarmonicSource
from gansound.nn.istft import ISTFT
from gansound.nn.onsets import Beginnings
from gansound.nn.stft import STFT
from gansound.nn.streaming import Cursor
from gansound.recipe import build
from tests.families import FAMILIES, N_MELS
from tests.streams import awaken, chunk_by_chunk, chunking, error, of_generator, serve

SAMPLES = Path(__file__).resolve().parents[1] / "samples"
every_generator = pytest.mark.parametrize("name", FAMILIES)
causal_or_not = pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])


def mels(frames, dtype, seed=0, batch=1):
    return torch.randn(batch, N_MELS, frames, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def awake(name, causal, dtype=torch.float64, seed=0, *, traced=False):
    """A generator that is heard, and hears its mel through every layer; or the one that its graphs are traced of."""
    made = copy.deepcopy(_awoken(name, causal, dtype, seed, traced))
    torch.manual_seed(seed)  # what a test draws after is the same whether or not it was made here
    return made


@cache  # each takes a forward for each of its layers
@torch.no_grad()
def _awoken(name, causal, dtype, seed, traced):
    torch.manual_seed(seed)
    family = FAMILIES[name].traced if traced else FAMILIES[name]
    generator = family.make(causal).to(dtype).eval()
    mel = mels(40, dtype, batch=2)
    for layer in [layer for layer in generator.modules() if isinstance(layer, ExactConv1d)]:
        layer.weight *= 150 if len(layer.weight) == 1 else 3  # to hundreds of Hz
    if any(isinstance(layer, Conv1d) for layer in generator.modules()):
        awaken(generator, mel)
    else:
        for parameter in generator.parameters():  # as drawn, a net at frame rate says almost nothing
            nn.init.normal_(parameter, std=0.3)
    for istft in [layer for layer in generator.modules() if isinstance(layer, ISTFT)]:
        # What its last layer with weights gives first are logs of amplitudes, or what is added to them.
        last = [layer for layer in generator.modules() if isinstance(layer, nn.Linear | Conv1d)][-1]
        last.bias[: istft.n_fft // 2 + 1] += float(np.log(0.3 / rms(generator(mel))))
    return generator.requires_grad_(False)


class Forgetful(HarmonicSource):
    """What depends on the same frames, but for what is remembered, and a gradient flows."""

    def _excited(self, window, begins, start, number):
        voiced = window.repeat_interleave(self.hop_length, 1)[
            :, self.context * self.hop_length - self.lead_samples :
        ]
        slopes = window[:, self.context :].repeat_interleave(self.hop_length, 1)
        return (voiced[:, : slopes.shape[1]] + slopes) / 1e4, start


class Smooth(CodeEmbedding):
    """What depends on the same codes, and a gradient flows."""

    def forward(self, codes):
        picked = codes[:, self.rows].unflatten(1, (self.columns, -1))  # (B, columns, codebooks, F)
        along = picked.permute(0, 2, 3, 1).flatten(2)
        return along.repeat_interleave(self.tables.shape[1], 1)


class ForgetfulSine(GlidingSine):
    """Likewise."""

    def _sines(self, window, start, still=None):
        each = (window[:, :-1] + window[:, 1:])[..., None] * self.times / 1e4
        return each.flatten(1)[:, None], start


def heard_alone(generator):
    """The same, all of whose sound is before an onset and has its moments, so that what tells of these is heard.

    And whose pitch is heard as it is, not as the phase of a sine, through which no gradient flows; without a limit.
    """
    for layer in generator.modules():
        if isinstance(layer, nn.Hardtanh):
            layer.min_val, layer.max_val = -1e9, 1e9
        if type(layer) is HarmonicSource:
            layer.__class__ = Forgetful
        if type(layer) is CodeEmbedding:
            layer.__class__ = Smooth
        if type(layer) is GlidingSine:
            layer.__class__ = ForgetfulSine
        if isinstance(layer, GroupDelay):
            layer.always.fill_(1)
        if isinstance(layer, Beginnings):
            layer.ratios.fill_(1e3)
    return generator


def rms(audio):
    return float(audio.square().mean().sqrt())


@causal_or_not
@every_generator
def test_many_streams_in_one_batch_equal_the_whole(name, causal):
    """In double; in single precision `test_families.py` and `test_backends.py` stream them."""
    generator = awake(name, causal)
    lengths = [1, 2, 3, 30, 5, 1, 14]  # most are shorter than what a sample depends on
    utterances = [mels(frames, torch.float64, seed)[0] for seed, frames in enumerate(lengths)]
    expected = [generator(mel[None]) for mel in utterances]
    assert rms(torch.cat(expected, 1)) > 0.1
    samples = [audio.shape[1] for audio in expected]
    assert samples == [frames * generator.hop_length for frames in lengths]
    # Which chunks there were doesn't matter to rounding.
    for seed, largest in ((2, 6), (3, 50)):
        got = serve(of_generator(generator), utterances, samples, seed, max_chunk=largest)
        assert error(got, expected) <= 1e-12


@causal_or_not
@every_generator
def test_any_chunking_equals_the_whole(name, causal):
    generator = awake(name, causal)
    rng = np.random.default_rng(4)
    interior = generator.interior_frames
    for frames in (1, 2, 4, interior + 12):
        mel = mels(frames, torch.float64, frames, batch=2)
        expected = generator(mel)[:, None]
        for chunks in {(frames,), *(tuple(chunking(frames, largest, rng)) for largest in (3, 20))}:
            for promised in (None, interior) if sum(chunks[:-1]) >= interior else (None,):
                got = chunk_by_chunk(of_generator(generator), mel, list(chunks), promised)
                assert error([got], [expected]) <= 1e-12


@every_generator
def test_a_runner_synthesizes_through_the_stream(name):
    generator = awake(name, False, torch.float32)
    mel = mels(90, torch.float32, 6, batch=2)
    expected = generator(mel)
    if name == "universal":  # what tells moments makes more of rounding, and is in double at inference
        net, exact = copy.deepcopy(generator).double(), mel.double()
        assert error([net.for_inference()(exact)], [net(exact)]) <= 1e-9
        form = copy.deepcopy(generator).for_inference()
        for layer in form.modules():
            if isinstance(layer, MayBeExact):
                layer.exactly()
        expected = form(mel)
    runner = EagerRunner(generator)
    for runner.offline_frames in (13, 64, 200):
        assert error([runner.synthesize(mel)], [expected]) <= 1e-5


@causal_or_not
@every_generator
def test_the_receptive_field_is_what_gradients_reach(name, causal):
    generator = heard_alone(awake(name, causal))
    field, hop = generator.receptive_field, generator.hop_length
    assert field.rate == hop
    middle = field.lookback_inputs + 1
    mel = mels(middle + field.lookahead_inputs + 3, torch.float64, 7).requires_grad_()
    for layer in generator.modules():
        if isinstance(layer, ISTFT):  # Hann's first sample is zero, and hides whether its frame is heard
            layer.window += 0.1
    audio = generator(mel)
    for t in range(middle * hop, (middle + 1) * hop, max(1, hop // 12)):
        (gradient,) = torch.autograd.grad(audio[0, t], mel, retain_graph=True)
        touched = gradient[0].abs().sum(0).nonzero().flatten()
        if FAMILIES[name].strided:  # what waits for a stride says so, and is rounded to it
            first, last = -((field.lookback - t) // hop), (t + field.lookahead) // hop
            assert first <= int(touched.min()) <= first + 1, t
            assert last - 1 <= int(touched.max()) <= last, t
            continue
        lookahead = field.lookahead - FAMILIES[name].begins_samples
        first, last = -((field.lookback - t) // hop), (t + lookahead) // hop
        assert (int(touched.min()), int(touched.max())) == (first, last), t


@every_generator
def test_causal_generators_look_ahead_by_their_last_layer_only(name):
    generator = heard_alone(awake(name, True))
    late = FAMILIES[name].waits_samples
    assert generator.receptive_field.lookahead == late
    mel = mels(30, torch.float64, 8)
    changed = mel.clone()
    changed[..., 20:] = 3.0
    same = 20 * generator.hop_length - late + FAMILIES[name].begins_samples
    before, after = generator(mel), generator(changed)
    assert torch.equal(before[:, :same], after[:, :same])
    assert not torch.equal(before[:, same : same + 2], after[:, same : same + 2])


@pytest.mark.parametrize(
    "make, samples, frames",
    [
        (MelGANGenerator, 1425, 6),
        (HiFiGANGenerator, 3258, 13),
        (lambda **settings: HiFiGANGenerator(**hifigan.V2, **settings), 3258, 13),
        (lambda **settings: HiFiGANGenerator(**hifigan.V3, **settings), 2582, 11),
        (MultiBandMelGANGenerator, 2719, 11),
        (lambda **settings: BigVGANGenerator(**bigvgan.BASE, **settings), 4433, 18),
        (lambda **settings: BigVGANGenerator(channels=64, **settings), 9501, 38),
        (ISTFTNetGenerator, 3090, 13),
    ],
    ids=[
        "melgan",
        "hifigan v1",
        "hifigan v2",
        "hifigan v3",
        "multi-band melgan v2",
        "bigvgan base",
        "bigvgan",
        "istftnet",
    ],
)
def test_look_ahead_of_the_published_sizes(make, samples, frames):
    """REFERENCE, "Look-ahead": frames each side, and 1425 samples of MelGAN's."""
    field = make().receptive_field
    assert (field.lookahead, field.lookahead_inputs) == (samples, frames)
    # A whole frame's samples look back from its first on: one hop less than the last sample's.
    assert -(-field.lookback // 256) in (frames, frames + 1)
    wait = {MultiBandMelGANGenerator: 31, ISTFTNetGenerator: 6}.get(make, 0)
    assert make(causal=True).receptive_field.lookahead == wait


def test_look_ahead_of_nets_at_frame_rate():
    """Per block and embedding half a kernel of frames; then the inverse STFT's (1024 - 256) / 2 samples, or 1024 / 2.

    REFERENCE says 27 + 2 of Vocos.
    """
    vocos = VocosGenerator(MelSpec.preset("vocos_24khz"), 8, 8)
    assert vocos.receptive_field.lookahead == 27 * 256 + 512
    assert VocosGenerator(MelSpec.preset("vocos_24khz"), 8, 8, causal=True).receptive_field.lookahead == 512
    spec = MelSpec.preset("hifigan")
    assert FreeVGenerator(spec, 8, 8, 6).receptive_field.lookahead == 7 * 3 * 256 + 384
    assert FreeVGenerator(spec, 8, 8, 6, causal=True).receptive_field.lookahead == 384


@pytest.mark.parametrize(
    "name, samples",
    [
        ("melgan.MelGANGenerator", 0),
        ("hifigan.HiFiGANGenerator", 0),
        ("multi_band_melgan.MultiBandMelGANGenerator", 31),
        ("freev.FreeVGenerator", 384),
        ("vocos.VocosGenerator", 384),
        ("bigvgan.BigVGANGenerator", 0),
        ("istftnet.ISTFTNetGenerator", 6),
    ],
)
def test_causal_true_in_a_recipe_takes_the_look_ahead_away(name, samples):
    node = {"class_path": f"gansound.generators.{name}", "init_args": {"causal": True, "channels": 64}}
    generator = build(node, StreamingGenerator, "generator", context={"mel": MelSpec.preset("hifigan")})
    assert generator.receptive_field.lookahead == samples


# --- the shipped model, on speech


# `default` is a steep function of its mel: what is rounding in it is more in its sound.
SHIPPED = {"default": 2e-4, "default-live": 1e-4, "default-44khz": 1e-4}


@pytest.fixture(scope="module", params=SHIPPED)
def speech(request):
    """A shipped generator, a second and a half's mel, loud enough for an RMS above 0.1, and what rounding may do."""
    path = SAMPLES / "allison_hold.flac"
    if not path.exists():
        pytest.skip(f"needs {path}")
    model = load_model_folder(request.param)
    given, sample_rate = soundfile.read(path, dtype="float32")
    audio = resample(given, sample_rate, model.mel.sample_rate)[: 128 * model.mel.hop_length]
    loud = torch.from_numpy(audio * (0.15 / np.sqrt(np.mean(audio**2))))
    return model.generator.requires_grad_(False), model.mel.mel(loud[None]), SHIPPED[request.param]


def test_the_shipped_model_streams_speech(speech):
    generator, mel, most = speech
    expected = generator(mel)[:, None]
    assert rms(expected) > 0.1
    frames = mel.shape[-1]
    assert frames > generator.interior_frames
    for chunks in ([1] * frames, chunking(frames, 40, np.random.default_rng(9)), [frames]):
        for interior in (None, generator.interior_frames)[max(chunks) == 1 :]:
            got = chunk_by_chunk(of_generator(generator), mel, chunks, interior)
            assert error([got], [expected]) <= most


def test_the_shipped_model_streams_speech_in_double(speech):
    generator, mel = copy.deepcopy(speech[0]).double(), speech[1].double()
    expected = generator(mel)[:, None]
    assert expected.dtype == torch.float64
    chunks = chunking(mel.shape[-1], 20, np.random.default_rng(10))
    assert error([chunk_by_chunk(of_generator(generator), mel, chunks)], [expected]) <= 1e-12


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_model_streams_noise(name):
    """Whose peaks are chosen by a last digit, and whose frames contradict each other."""
    model = load_model_folder(name)
    drawn = torch.randn(1, 100 * model.mel.hop_length, generator=torch.Generator().manual_seed(2))
    mel = model.mel.mel(drawn / 10)
    runner = EagerRunner(model.generator.requires_grad_(False))
    whole, one_by_one = runner.synthesize(mel), [1] * mel.shape[-1]
    assert error([chunk_by_chunk(of_generator(runner._form), mel, one_by_one)], [whole[:, None]]) <= 2e-5


def test_frames_made_twice_as_many_are_not_rounded():
    """Phases add up what they are told of frequencies: a stream's rounding, and that of bf16, over seconds."""
    path = SAMPLES / "allison_hold.flac"
    if not path.exists():
        pytest.skip(f"needs {path}")
    spec = MelSpec.preset("cosyvoice2")
    given, sample_rate = soundfile.read(path, dtype="float32")
    mel = spec.mel(
        torch.from_numpy(resample(given, sample_rate, spec.sample_rate)[: 140 * spec.hop_length])[None]
    )
    generator = in_convention(load_model_folder("default"), spec).generator.requires_grad_(False)
    runner = EagerRunner(generator)
    whole, one_by_one = runner.synthesize(mel), [1] * mel.shape[-1]
    assert error([chunk_by_chunk(of_generator(runner._form), mel, one_by_one)], [whole[:, None]]) <= 1e-5
    assert error([whole], [generator(mel)]) <= SHIPPED["default"]
    half = EagerRunner(generator, "bf16").synthesize(mel)
    assert rms(half - whole) < 0.02 * rms(whole)


# --- export


class Step(nn.Module):
    """A generator's step as a function of tensors."""

    def __init__(self, generator: StreamingGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, mel, state):
        return self.generator.step(mel, state)


# Tracing takes seconds: the quick ones are those whose layers no graph of the quick tests has.
EXPORTED = ("hifigan v3", "multi-band melgan", "vocos", "istftnet")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in EXPORTED)) for name in FAMILIES]
)
def test_an_exported_step_reproduces_the_whole(name):
    generator = awake(name, False, torch.float32, traced=True)
    state = generator.init_state(2)
    frames = torch.export.Dim("frames", min=1, max=64)
    example = (mels(4, torch.float32, batch=2), state)
    program = torch.export.export(
        Step(generator), example, dynamic_shapes=({2: frames}, tuple({} for _ in state)), strict=False
    )
    step = program.module()
    streams = of_generator(generator)
    streams.step = lambda x, state, interior=False: _with_channel(step(x, state))
    mel = mels(31, torch.float32, 12, batch=2)
    expected = generator(mel)[:, None]
    got = chunk_by_chunk(streams, mel, [1, 5, 2, 1, 20, 2])
    assert error([got], [expected]) <= 1e-5


def _with_channel(result):
    audio, state = result
    return audio[:, None], state


def test_layers_of_another_hop_are_refused():
    generator = FAMILIES["melgan"].make(False)
    generator.hop_length = 25
    with pytest.raises(
        ValueError, match="layers give 24 samples for each mel frame, but its hop_length is 25"
    ):
        EagerRunner(generator)


# --- the tests above, tested


@causal_or_not
@every_generator
def test_a_context_cut_by_one_shows(name, causal, monkeypatch):
    """Each item of a batch loses the oldest column of another layer's context."""
    generator = heard_alone(awake(name, causal))
    streams = of_generator(generator)
    contexts = len(streams.init_state(1)) - 2
    mel = mels(45, torch.float64, 13).expand(contexts, -1, -1)
    expected = generator(mel[:1])[:, None]
    window, cut = Cursor.window, set()

    def cut_one(self, x, context, *, padding="zeros", dim=-1):
        result = window(self, x, context, padding=padding, dim=dim)
        if context and len(x) == contexts:
            item = len(self._keep) - 1
            self._keep[-1] = self._keep[-1].clone()
            self._keep[-1][item].select(dim % x.dim() - 1, 0).zero_()
            cut.add(item)
        return result

    monkeypatch.setattr(Cursor, "window", cut_one)
    off = chunk_by_chunk(streams, mel, [15, 15, 15]) - expected
    shown = {item for item, one in enumerate(off) if one.abs().max() > 1e-7}
    # The oldest of an STFT's is of the frame at the end alone, and in few chunkings.
    assert len(cut - shown) == sum(isinstance(layer, STFT) for layer in generator.modules())
    assert shown <= cut != set()


def test_folding_leaves_the_stream_as_it_was():
    torch.manual_seed(14)
    generator = HiFiGANGenerator(N_MELS, 16, (4, 2), (8, 4)).double().requires_grad_(False)
    mel = mels(9, torch.float64)
    normed = chunk_by_chunk(of_generator(generator), mel, [4, 5])
    folded = chunk_by_chunk(of_generator(fold_parametrizations(generator)), mel, [4, 5])
    torch.testing.assert_close(normed, folded, rtol=0, atol=1e-14)
