"""Every backend gives, whole or streamed, what PyTorch gives for the whole mel."""

import itertools
import threading
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gansound.generators.hifigan import HiFiGANGenerator
from gansound.generators.melgan import MelGANGenerator
from gansound.inference.backends import (
    BackendUnavailable,
    make_runner,
)
from gansound.inference.backends.eager import GRID_FRAMES, EagerRunner, few_lengths
from gansound.inference.backends.runner import (
    PUSHED_FRAMES,
    STEP_FRAMES,
    Runner,
    computes_its_model,
    step_lengths,
)
from gansound.inference.backends.step_graph import plain_graph
from gansound.machine import cpuinfo
from gansound.nn.conv import Conv1d
from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from gansound.nn.istft import ChannelsLast
from gansound.nn.pqmf import PQMF
from gansound.nn.single_pass import SinglePassPhases
from gansound.nn.streaming import Cursor, Pointwise
from tests.families import N_MELS
from tests.streams import awaken, chunking
from tests.test_streaming_models import awake, mels, rms

pytestmark = pytest.mark.usefixtures("one_thread", "traced_once")

PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino", "onnx", "onnxscript"),
}
# Tracing takes ten seconds a net, whatever its size; the other families are run on each in test_families.py.
QUICK = ("melgan", "freev")
SLOW = ("hifigan v1", "multi-band melgan", "vocos", "bigvgan", "istftnet")
# Without VNNI a processor adds products of int8 in pairs of 16 bits, which saturate.
MIN_SNR_DB = {"bf16": 25.0, "int8": 25.0 if "vnni" in cpuinfo().get("flags", "") else 20.0}


def pairs():
    for name in (*QUICK, *SLOW):
        for backend, precision in (
            ("eager", "fp32"), ("eager", "bf16"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"),
            ("openvino", "fp32"), ("openvino", "bf16"), ("compile", "fp32"),
        ):  # fmt: skip
            if precision == "int8" and name != "freev":
                continue
            slow = backend == "compile" or (name in SLOW and backend != "eager")
            yield pytest.param(name, backend, precision, marks=[pytest.mark.slow] * slow)


every_pair = pytest.mark.parametrize("name, backend, precision", list(pairs()))


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("GANSOUND_BACKEND", raising=False)


@cache
def generator_of(name):
    if name == "melgan":
        torch.manual_seed(0)
        small = MelGANGenerator(N_MELS, 16, (32,), (3,))
        return awaken(small, mels(40, torch.float32, batch=2)).requires_grad_(False)
    return awake(name, False, torch.float32)


@cache
def _runner(name, backend, precision):
    return make_runner(generator_of(name), backend, precision)


def runner_of(name: str, backend: str, precision: str = "fp32") -> Runner:
    for package in PACKAGES.get(backend, ()):
        pytest.importorskip(package, reason=f"backend {backend} needs {package}: gansound[{backend}]")
    try:
        return _runner(name, backend, precision)
    except BackendUnavailable as error:
        pytest.skip(str(error))


def assert_close(runner: Runner, got: Tensor, expected: Tensor, most_snr_db: float = 80) -> None:
    assert got.shape == expected.shape
    assert got.dtype == torch.float32
    difference = got - expected
    if runner.precision == "fp32":
        assert float(difference.abs().max()) <= 1e-5
    else:
        snr_db = 20 * np.log10(rms(expected) / rms(difference))
        assert MIN_SNR_DB[runner.precision] < snr_db < most_snr_db


@every_pair
def test_whole_utterances_of_any_length(name, backend, precision):
    runner, generator = runner_of(name, backend, precision), generator_of(name)
    assert (runner.name, runner.precision) == (backend, precision)
    chunk = PUSHED_FRAMES
    loud = []
    for frames in (1, 3, chunk - 1, chunk, chunk + 1, 3 * chunk):
        mel = mels(frames, torch.float32, seed=frames, batch=2)
        expected = generator(mel)
        assert_close(runner, runner.synthesize(mel), expected)
        loud.append(rms(expected))
    assert max(loud) > 0.1


def test_a_chunk_is_of_what_layers_hand_on_and_not_of_weights_that_are_normed():
    """Of HiFi-GAN V1 as it trains, a chunk was a frame: a weight norm's is its largest tensor, whatever the frames."""
    generator = HiFiGANGenerator(N_MELS, 64, (8, 4), (64, 8))
    assert EagerRunner(generator.eval()).cached_frames() == 256
    assert EagerRunner(fold_parametrizations(generator)).cached_frames() == 256
    for channels, frames in ((1792, 256), (1793, 128), (4096, 64)):  # 1.75 MiB of float32 at most
        assert EagerRunner(Wide(channels)).cached_frames() == frames


class Stepping(EagerRunner):
    """In steps of a frame, as other runtimes take theirs."""

    pieces = Runner.pieces
    offline_frames = 1  # type: ignore[assignment]


def test_pieces_are_never_empty_and_of_nothing_there_are_none():
    generator = generator_of("melgan")
    runner, mel = Stepping(generator), mels(9, torch.float32)
    assert runner.lookahead_frames > 1
    pieces = list(runner.pieces([mel[..., :4], mel[..., 4:4], mel[..., 4:]]))
    assert all(piece.numel() for piece in pieces)
    assert_close(runner, torch.cat(pieces, -1), generator(mel))
    for nothing in ([], [mel[..., :0]]):
        assert list(runner.pieces(nothing)) == []


@pytest.mark.parametrize("precision, way", [("fp32", "init_state"), ("bf16", "whole_state")])
def test_what_is_checked_is_what_computes_in_that_precision(precision, way, monkeypatch):
    """A stream of OpenVINO's begins in fp32, of which bf16's sound says nothing."""
    runner, asked = EagerRunner(generator_of("melgan"), precision), []
    for name in ("init_state", "whole_state"):
        begin = partial(EagerRunner.init_state, runner)
        monkeypatch.setattr(
            runner, name, lambda batch, name=name, begin=begin: asked.append(name) or begin(batch)
        )
    assert computes_its_model(runner)
    assert set(asked) == {way}


@pytest.mark.parametrize("overlap", [2, 27])
def test_windows_of_few_lengths_cover_an_utterance(overlap):
    lengths = set()
    for frames in range(1, 400):
        starts, size = few_lengths(frames, overlap)
        assert starts[0] == 0
        assert starts[-1] + size == frames
        assert all(0 < b - a <= size - overlap for a, b in itertools.pairwise(starts))
        assert len(starts) * size < 2 * frames
        if frames >= 2 * GRID_FRAMES + overlap:
            assert size % GRID_FRAMES == 0
            lengths.add(size)
    assert len(lengths) <= 400 // GRID_FRAMES


@pytest.mark.parametrize("name", ["melgan", "hifigan v1"])
def test_where_each_length_costs_an_utterance_is_put_together_of_few(name, monkeypatch):
    """Of AMX's kernels those for a new length take HiFi-GAN V1 three times as long to make as to run."""
    generator = generator_of(name)
    runner = EagerRunner(generator)
    runner._lengths_cost = True  # what would be so in bf16 on such a processor
    lengths = []
    form = runner._form
    monkeypatch.setattr(runner, "_form", lambda mel: lengths.append(mel.shape[-1]) or form(mel))
    for frames in (1, 31, 96, 97, 150, 223):
        mel = mels(frames, torch.float32, seed=frames)
        pieces = list(runner.pieces(mel.split(70, -1)))
        for sound in (runner.synthesize(mel), torch.cat(pieces, -1)):
            assert float((sound - generator(mel)).abs().max()) <= 1e-5
    assert {n for n in lengths if n > 60} == {64, 96, 128}


@pytest.mark.parametrize(
    "name, precision, flags, cost",
    [
        ("melgan", "bf16", "avx512f amx_bf16", True),
        ("melgan", "fp32", "avx512f amx_bf16", False),
        ("melgan", "bf16", "avx512f avx512_bf16", False),
        ("freev", "bf16", "avx512f amx_bf16", False),
    ],
)
def test_a_length_costs_convolutions_in_bf16_on_amx(name, precision, flags, cost, monkeypatch):
    monkeypatch.setattr("gansound.inference.backends.eager.cpuinfo", lambda: {"flags": flags})
    assert EagerRunner(generator_of(name), precision)._lengths_cost == cost


@pytest.mark.parametrize("name", QUICK)
def test_onnx_runtime_takes_no_steps_for_a_short_utterance(name, monkeypatch):
    runner, generator = runner_of(name, "onnxruntime"), generator_of(name)
    stepped = []
    step = runner.step
    monkeypatch.setattr(
        runner, "step", lambda mel, *a, **how: stepped.append(mel.shape[::2]) or step(mel, *a, **how)
    )
    for frames, plain in ((15, False), (16, True), (255, True), (256, False)):
        stepped.clear()
        mel = mels(frames, torch.float32, seed=frames, batch=2)
        assert_close(runner, runner.synthesize(mel), generator(mel))
        assert (not stepped) == plain, frames
    rest = 256 + runner.lookahead_frames - runner.offline_frames
    assert stepped[-1] == (2, rest if rest else runner.offline_frames)  # together, and no more than there is
    stepped.clear()  # nor of several lengths, which the plain net knows nothing of
    sound = runner.synthesize(mels(40, torch.float32, batch=2), torch.tensor([40, 20]))
    assert stepped
    assert not sound[1, 20 * runner.hop_length :].any()


def test_onnx_runtime_runs_the_interior_by_its_own_net_where_that_is_promised(monkeypatch):
    runner = runner_of("melgan", "onnxruntime")
    ran = []
    for name in ("_ends", "_interior"):
        session = getattr(runner, name)
        run = SimpleNamespace(run=lambda *a, name=name, session=session: ran.append(name) or session.run(*a))
        monkeypatch.setattr(runner, name, run)
    state = runner.init_state(1)
    for interior in (False, True):
        _, state = runner.step(mels(300, torch.float32), state, interior=interior)
    assert ran == ["_ends"] * 2 + ["_interior"] * 2


def test_onnx_runtime_refuses_int8_of_a_net_without_products_before_it_traces_it(monkeypatch):
    for package in PACKAGES["onnxruntime"]:
        pytest.importorskip(package)
    from gansound.inference import export

    monkeypatch.setattr(export, "onnx_model", None)
    with pytest.raises(ValueError, match="int8"):
        make_runner(MelGANGenerator(N_MELS, 16, (8,), (1,)), "onnxruntime", "int8")


def test_a_net_that_has_no_plain_graph_goes_in_steps_in_onnx_runtime():
    for package in PACKAGES["onnxruntime"]:
        pytest.importorskip(package)
    net = Wide().requires_grad_(False)
    net.layers.insert(0, Odd())
    runner, mel = (
        make_runner(net, "onnxruntime"),
        mels(41, torch.float32),
    )  # of odd lengths it is the same in steps
    assert_close(runner, runner.synthesize(mel), net(mel))


class Followed(StreamingGenerator):
    """Phases that go on from frame to frame, as samples."""

    def __init__(self) -> None:
        super().__init__()
        self.n_mels, self.hop_length = N_MELS, 1
        phases = SinglePassPhases(64, 16, bins=8)
        self.layers = nn.Sequential(ChannelsLast(), phases, nn.Linear(N_MELS + 2 * 8, 1))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_what_goes_on_through_a_long_step_is_followed_to_its_beginning(backend):
    for package in PACKAGES[backend]:
        pytest.importorskip(package)
    torch.manual_seed(0)
    net = Followed().requires_grad_(False)
    runner = make_runner(net, backend)
    frames = STEP_FRAMES[0] + 40
    tone = torch.exp(-((torch.arange(N_MELS) - 4.3) ** 2) / 2)[None, :, None].repeat(1, 1, frames)
    got, _ = runner.step(tone, runner.init_state(1))
    assert_close(runner, got, net(tone))
    runner.settle()
    for compiled in getattr(runner, "_nets", {}).values():  # OpenVINO's, rewritten
        kinds = {
            node.get_rt_info()["layerType"].astype(str) for node in compiled.get_runtime_model().get_ops()
        }
        assert "Gather" in kinds
        assert "GatherElements" not in kinds


class Wide(StreamingGenerator):
    """A convolution over 73 columns, as HiFi-GAN V3 has one."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.n_mels, self.hop_length = N_MELS, 1
        self.layers = nn.Sequential(Conv1d(N_MELS, channels, 7, dilation=12))


def test_open_vino_streams_a_wide_convolution():
    """Its net for any number of frames didn't compile, and so no HiFi-GAN V3."""
    for package in PACKAGES["openvino"]:
        pytest.importorskip(package)
    torch.manual_seed(0)
    net = Wide().requires_grad_(False)
    runner, mel = make_runner(net, "openvino"), mels(300, torch.float32)
    state, late = runner.init_state(1), runner.lookahead_samples
    assert_close(runner, runner.synthesize(mel), net(mel))
    sounds = []
    for columns in mel.split((7, 256, 37), -1):
        sound, state = runner.step(columns, state)
        sounds.append(sound)
    begun, expected = torch.cat(sounds, -1)[:, late:], net(mel)[:, :-late]
    assert rms(expected) > 0.1
    assert float((begun - expected).abs().max()) <= 1e-5 * float(expected.abs().max())


class Banded(StreamingGenerator):
    """Four bands at the rate of frames, and a PQMF."""

    def __init__(self) -> None:
        super().__init__()
        self.n_mels, self.hop_length = N_MELS, 4
        self.layers = nn.Sequential(Conv1d(N_MELS, 4, 3), PQMF(4))


def test_open_vino_sums_the_bands_of_a_pqmf_in_bf16():
    torch.manual_seed(0)
    net = Banded().requires_grad_(False)
    for package in PACKAGES["openvino"]:
        pytest.importorskip(package)
    if "BF16" not in __import__("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this processor has no bf16")
    runner, mel = make_runner(net, "openvino", "bf16"), mels(70, torch.float32)
    expected = net(mel)
    assert rms(expected) > 0.1
    assert_close(runner, runner.synthesize(mel), expected)
    # What streams in the meantime is in fp32: unfused it would be rounded more often.
    begun, late = runner.step(mel, runner.init_state(1))[0], runner.lookahead_samples
    assert float((begun[:, late:] - expected[:, : begun.shape[-1] - late]).abs().max()) <= 1e-5


class Odd(Pointwise):
    """Asks for the length in a way that no graph of any length answers."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 if x.shape[-1] % 2 else 2)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        return x


def test_a_net_whose_forward_is_no_graph_has_none_and_is_asked_once(monkeypatch):
    pytest.importorskip("onnxscript")
    net = MelGANGenerator(N_MELS, 16, (8,), (1,))
    net.layers.insert(0, Odd())
    assert plain_graph(net) is None
    from gansound.inference import export

    monkeypatch.setattr(export, "onnx_model", None)
    assert plain_graph(net) is None


@every_pair
def test_a_batch_of_several_lengths(name, backend, precision):
    runner, generator = runner_of(name, backend, precision), generator_of(name)
    long = 2 * runner.offline_frames + 2 * runner.interior_frames  # so that an end comes after an interior
    frames = [long, 1, runner.interior_frames + 1, long - runner.offline_frames, long - 3]
    mel = mels(long + 3, torch.float32, batch=len(frames))
    got = runner.synthesize(mel, torch.tensor(frames))
    assert got.shape == (len(frames), mel.shape[-1] * runner.hop_length)
    for sound, item, n in zip(got, mel, frames, strict=True):
        end = n * runner.hop_length
        if n > 1:  # a frame of noise is too little to tell noise of rounding by
            assert_close(runner, sound[None, :end], generator(item[None, :, :n]))
        assert not sound[end:].any()


@pytest.mark.parametrize("frames", [None, [300, 1, 40]])
def test_what_compiles_for_each_size_is_given_one_utterance_at_a_time(frames):
    """In a server batches come in all sizes: OpenVINO took 100 MB for each."""
    sizes, columns = set(), set()

    class Compiling(EagerRunner):
        compiles_each_length = True
        pieces = Runner.pieces
        offline_frames = 256  # type: ignore[assignment]

        def step(self, mel, state, *, interior=False):
            sizes.add(len(mel))
            columns.add(mel.shape[-1])
            return super().step(mel, state, interior=interior)

    generator = generator_of("melgan")
    mel = mels(300, torch.float32, batch=3)
    got = Compiling(generator).synthesize(mel, None if frames is None else torch.tensor(frames))
    assert got.shape == (3, 300 * generator.hop_length)
    for sound, item, n in zip(got, mel, frames or [300] * 3, strict=True):
        end = n * generator.hop_length
        assert float((sound[:end] - generator(item[None, :, :n])[0]).abs().max()) <= 1e-5
        assert not sound[end:].any()
    assert sizes == {1}
    assert columns <= set(STEP_FRAMES)  # an odd rest is rounded up


def serve(runner: Runner, utterances: list[Tensor], seed: int, lanes: int = 3) -> list[Tensor]:
    """Utterances through the lanes of one batch, which start and end apart, and are interrupted now and then.

    The interior is promised wherever it may be.
    """
    rng = np.random.default_rng(seed)
    hop, late = runner.hop_length, runner.lookahead_samples
    waiting = list(range(len(utterances)))
    sounds: list[Tensor] = [torch.full((u.shape[1] * hop,), float("nan")) for u in utterances]
    current: list[int | None] = [None] * lanes
    pushed, ended = [0] * lanes, [False] * lanes
    state, promised = runner.init_state(lanes), 0
    while waiting or any(one is not None for one in current):
        begins = torch.zeros(lanes, dtype=torch.bool)
        for lane in range(lanes):
            if current[lane] is not None and rng.random() < 0.03:
                waiting.append(current[lane])  # type: ignore[arg-type]
                current[lane] = None
            if current[lane] is None and waiting and rng.random() < 0.7:
                current[lane], pushed[lane], ended[lane] = waiting.pop(0), 0, False
                begins[lane] = True
        if begins.any():
            state = runner.reset(state, begins)
        chunk = int(rng.integers(1, 9))
        mel = torch.randn(lanes, runner.n_mels, chunk)
        ends, remaining = torch.zeros(lanes, dtype=torch.bool), torch.zeros(lanes, dtype=torch.int64)
        for lane, one in enumerate(current):
            if one is None:
                continue
            left = max(0, utterances[one].shape[1] - pushed[lane])
            taken = min(left, chunk)
            mel[lane, :, :taken] = utterances[one][:, pushed[lane] : pushed[lane] + taken]
            if left <= chunk and not ended[lane]:
                ends[lane], remaining[lane], ended[lane] = True, left, True
        if ends.any():
            state = runner.finish(state, remaining, ends)
        # Idle lanes are promised nothing, and keep nothing: they are reset before they begin.
        busy = [lane for lane in range(lanes) if current[lane] is not None]
        interior = all(pushed[lane] >= runner.interior_frames and not ended[lane] for lane in busy)
        promised += interior
        audio, state = runner.step(mel, state, interior=interior)
        for lane in busy:
            one = current[lane]
            assert one is not None
            first = pushed[lane] * hop - late
            start, end = max(first, 0), min(first + audio.shape[1], len(sounds[one]))
            if end > start:
                sounds[one][start:end] = audio[lane, start - first : end - first]
            pushed[lane] += chunk
            if end >= len(sounds[one]):
                current[lane] = None
    assert promised > 3
    return sounds


@every_pair
def test_streams_of_one_batch_that_start_and_end_apart(name, backend, precision):
    if backend == "compile":
        pytest.skip("compiles for each number of frames: see test_compiled_streams")
    runner, generator = runner_of(name, backend, precision), generator_of(name)
    utterances = [mels(n, torch.float32, seed=n)[0] for n in (1, 2, 70, 3, 90, 25, 60)]
    for got, mel in zip(serve(runner, utterances, seed=0), utterances, strict=True):
        begins_in_fp32 = backend == "openvino"
        assert_close(runner, got[None], generator(mel[None]), 200 if begins_in_fp32 else 80)


def stream(runner: Runner, mel: Tensor, seed: int) -> Tensor:
    """In random chunks from the start to the flush, `(B, T)`."""
    rng = np.random.default_rng(seed)
    frames, position, parts = mel.shape[-1], 0, []
    state = runner.init_state(mel.shape[0])
    for chunk in chunking(frames, 12, rng):
        interior = position >= runner.interior_frames
        audio, state = runner.step(mel[..., position : position + chunk], state, interior=interior)
        parts.append(audio)
        position += chunk
    if runner.lookahead_frames:
        rest = torch.randn(mel.shape[0], runner.n_mels, runner.lookahead_frames)
        parts.append(runner.step(rest, runner.finish(state))[0])
    late = runner.lookahead_samples
    return torch.cat(parts, -1)[:, late : late + frames * runner.hop_length]


def test_open_vino_compiles_for_lengths_that_recur_behind_the_stream(monkeypatch):
    runner_of("melgan", "openvino")
    generator, mel = generator_of("melgan"), mels(60, torch.float32)
    runner = make_runner(generator, "openvino")
    runner.init_state(2)  # opened, it is ready
    assert {(2, -1, False), (2, -1, True)} < set(runner._nets)
    compiling, release = threading.Event(), threading.Event()
    compile_ = runner._compile

    def slowly(*shape):
        compiling.set()
        assert release.wait(60)
        return compile_(*shape)

    monkeypatch.setattr(runner, "_compile", slowly)
    _, state = runner.step(mel[..., :7], runner.init_state(1))
    assert not compiling.is_set()
    assert state.last.get_tensor("mel").shape[-1] == 7  # in one step
    _, state = runner.step(mel[..., 7:14], state)
    assert compiling.wait(60)
    runner.step(mel[..., 14:21], state)  # nor does one wait for it
    assert {frames for _, frames, _ in runner._nets} == {-1}
    for _ in range(2):  # nor do others queue, which the end of the process would wait for
        runner.step(mel[..., :9], runner.init_state(1))
    release.set()
    runner._compiling.result()
    assert (1, 9, False) not in runner._nets
    met = dict(runner._met)
    runner.synthesize(mel)  # which waits, and so sounds the same each time
    assert {frames for _, frames, _ in runner._nets} > {-1, 7}
    assert runner._met == met
    assert_close(runner, stream(runner, mel, seed=0), generator(mel))
    runner.settle()
    assert {frames for _, frames, _ in runner._nets} > {-1, 1, 7}
    assert_close(runner, stream(runner, mel, seed=0), generator(mel))
    # One that computes something else isn't taken.
    sound = runner._models[False].output("audio").node.input_value(0)
    negative = __import__("openvino").opset13.negative(sound).output(0)
    for reader in sound.get_target_inputs():
        if reader.get_node() is not negative.get_node():
            reader.replace_source_output(negative)
    sound.set_names(set())
    negative.set_names({"audio"})
    monkeypatch.setattr("gansound.inference.backends.open_vino.MOST_NETS", len(runner._nets) + 1)
    for frames in (33, 34):
        for _ in range(2):
            runner.step(mel[..., :frames], runner.init_state(1))
        runner.settle()
    assert runner._nets[1, 33, False] is runner._nets[1, -1, False]
    assert (1, 34, False) not in runner._nets  # enough
    # Nor one that can't be compiled.
    monkeypatch.setattr("gansound.inference.backends.open_vino.MOST_NETS", 99)
    monkeypatch.setattr(runner, "_compile", None)
    runner.settle()
    assert runner._nets[1, 34, False] is runner._nets[1, -1, False]


@pytest.mark.slow
def test_compiled_streams():
    runner, generator = runner_of("freev", "compile"), generator_of("freev")
    mel = mels(60, torch.float32)
    for seed in range(4):
        assert_close(runner, stream(runner, mel, seed), generator(mel))


@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_many_threads_over_one_runner(backend):
    runner, generator = runner_of("melgan", backend), generator_of("melgan")
    inputs = [mels(50 + i, torch.float32, seed=i) for i in range(6)]
    sounds: dict[int, Tensor] = {}

    def talk(i: int) -> None:
        sounds[i] = stream(runner, inputs[i], seed=i)

    threads = [threading.Thread(target=talk, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, mel in enumerate(inputs):
        assert_close(runner, sounds[i], generator(mel))


@pytest.mark.parametrize("beyond", [2**24, 2**31, 2**33])
@pytest.mark.parametrize("backend", ["eager", "onnxruntime", "openvino"])
def test_an_end_that_comes_after_hours_is_heard_as_any_other(backend, beyond):
    """As if so many samples lay behind: the positions are set, and the sound is that of the same last frames."""
    runner, generator = runner_of("melgan", backend), generator_of("melgan")
    behind = beyond // runner.hop_length
    mel = mels(60, torch.float32)
    state = runner.init_state(1)
    if isinstance(state, list | tuple):
        position = state[0] + behind
        state = type(state)((position, *state[1:]))
    else:
        state.position = state.position + behind
    parts = []
    for start in range(0, 60, 5):  # never promised: the ends' graph counts
        audio, state = runner.step(mel[..., start : start + 5], state)
        parts.append(audio)
    rest = torch.randn(1, N_MELS, runner.lookahead_frames)
    parts.append(runner.step(rest, runner.finish(state))[0])
    late, hop = runner.lookahead_samples, runner.hop_length
    got = torch.cat(parts, -1)[:, late : late + 60 * hop]
    known = runner.interior_frames * hop  # from there on nothing depends on what lay before
    assert_close(runner, got[:, known:], generator(mel)[:, known:])


def test_steps_of_a_few_lengths_make_up_any_number():
    for frames in range(1, 200):
        assert sum(step_lengths(frames)) == frames
        assert set(step_lengths(frames)) <= set(STEP_FRAMES)


def test_a_state_keeps_no_more_memory_than_it_needs():
    runner = runner_of("melgan", "eager")
    _, state = runner.step(mels(5000, torch.float32), runner.init_state(1))
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in state}
    assert sum(held.values()) <= 2**16 * len(state)  # a step's windows take a hundred times that


@pytest.mark.parametrize("family", ["hifigan v1", "melgan"])
def test_a_stream_on_images_keeps_channels_last(family):
    """In any other layout each convolution of a step lays its window out anew: V1 took 1.5 times as long."""
    runner = runner_of(family, "eager")
    state = tuple(buffer.contiguous() for buffer in runner.init_state(1))
    for _ in range(2):
        _, state = runner.step(mels(8, torch.float32), state)
    images = [buffer for buffer in state if buffer.dim() == 4]
    assert images
    assert all(image.is_contiguous(memory_format=torch.channels_last) for image in images)
