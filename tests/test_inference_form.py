"""The inference form is the generator it was made from: the same function, the same reach, in any layout and type."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gansound.nn.conv import Conv1d, StridedConv1d, TransposedConv1d
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm
from gansound.nn.istft import ISTFT
from gansound.nn.istft_by_products import by_products
from gansound.nn.pqmf import PQMF
from gansound.nn.residual import Parallel, Residual
from gansound.nn.streaming import Cursor, Pointwise
from tests.families import FAMILIES, N_MELS
from tests.streams import error, of_generator, serve
from tests.test_streaming_models import awake, mels, rms

LENGTHS = [1, 2, 3, 25, 5, 1, 14]


def built(n_mels: int, hop_length: int, *layers: nn.Module, seed: int = 0) -> StreamingGenerator:
    """A generator of those layers, weights drawn wide enough to be heard."""
    generator = StreamingGenerator()
    generator.n_mels, generator.hop_length = n_mels, hop_length
    generator.layers = nn.Sequential(*layers)
    torch.manual_seed(seed)
    for parameter in generator.parameters():
        nn.init.normal_(parameter, std=0.5)
    return generator.double().eval().requires_grad_(False)


def assert_same(generator: StreamingGenerator, *, graph: bool = False) -> None:
    """In double precision, in a batch of staggered and interrupted streams."""
    form = InferenceForm(generator, graph=graph)
    assert form.receptive_field == generator.receptive_field
    noise = torch.Generator().manual_seed(0)
    utterances = [torch.randn(generator.n_mels, n, dtype=torch.float64, generator=noise) for n in LENGTHS]
    expected = [generator(mel[None]) for mel in utterances]
    assert error([form(mel[None]) for mel in utterances], expected) < 1e-11  # in one go
    two = torch.randn(2, generator.n_mels, 9, dtype=torch.float64, generator=noise)
    assert error(form(two), generator(two)) < 1e-11
    got = serve(of_generator(form), utterances, [audio.shape[1] for audio in expected], seed=1)
    assert min(rms(audio) for audio in expected) > 0.01
    assert error(got, expected) < 1e-11


# Not causal in no graph is what a runner streams, in `test_streaming_models.py`.
@pytest.mark.parametrize("causal, graph", [(False, True), (True, False)], ids=["graph", "causal"])
@pytest.mark.parametrize("name", FAMILIES)
def test_same_function_and_reach_for_every_family(name, causal, graph):
    assert_same(awake(name, causal), graph=graph)


class Snake(Pointwise):
    """Somebody's activation, whose widths stand beside columns: on images it would spread over four dimensions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.alpha * x).sin()


class Turned(Pointwise):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class Gated(Parallel):
    """Somebody's paths, combined along a dimension counted from the end."""

    def combine(self, *outputs: Tensor) -> Tensor:
        return outputs[0] * torch.softmax(outputs[1], dim=-2)


class Doubled(Conv1d):
    """Somebody's convolution with a stream of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        return 2 * super().stream(x, cursor)


def up(channels: int, out: int = 1) -> TransposedConv1d:
    return TransposedConv1d(channels, out, rate=3, kernel_size=7)


OTHERS = {
    "grouped": lambda: (Conv1d(4, 8, 3, groups=2), nn.ELU(), up(8)),
    "grouped pointwise ends": lambda: (
        Conv1d(4, 4, 5),
        Residual(Conv1d(4, 4, 1, groups=2), nn.Sequential(nn.Tanh(), Conv1d(4, 4, 3), Conv1d(4, 4, 1))),
        Residual(Conv1d(4, 4, 1), nn.Sequential(nn.Tanh(), Conv1d(4, 4, 3), Conv1d(4, 4, 1, groups=4))),
        up(4),
    ),
    "branch of one pointwise": lambda: (
        Residual(Conv1d(4, 4, 1), nn.Sequential(Conv1d(4, 4, 1))), nn.Tanh(), up(4),
    ),
    "no convolution first": lambda: (nn.Tanh(), nn.Sequential(nn.Identity(), Conv1d(4, 4, 3)), up(4)),
    "transposed first": lambda: (up(4, 6), nn.LeakyReLU(0.1), Conv1d(6, 1, 5, padding_mode="reflect")),
    "filter bank first": lambda: (PQMF(4, 14, 0.15), Conv1d(1, 1, 3)),
    "foreign activation": lambda: (Conv1d(4, 6, 3), Snake(6), up(6), Snake(1)),
    "foreign activation first": lambda: (Snake(4), up(4)),
    "foreign paths": lambda: (Conv1d(4, 6, 3), Gated(Conv1d(6, 6, 3), Conv1d(6, 6, 7)), up(6)),
    "foreign convolution": lambda: (Doubled(4, 6, 3), nn.Tanh(), up(6)),
    "frames, then columns": lambda: (
        Turned(), FrameConv(4, 6, 3), nn.LayerNorm(6), nn.Linear(6, 6), Turned(), Conv1d(6, 6, 3), up(6),
    ),
    "grouped frames": lambda: (
        Turned(), FrameConv(4, 8, 3, groups=2), FrameConv(8, 16, 5, groups=8),
        FrameConv(16, 16, 3, groups=16, causal=True), FrameConv(16, 18, 3), ISTFT(16, 4),
    ),
    # 9 samples a frame have 5 bins.
    "odd transform": lambda: (Turned(), FrameConv(4, 10, 3), ISTFT(9, 3)),
}  # fmt: skip


@pytest.mark.parametrize("graph", [False, True], ids=["", "graph"])
@pytest.mark.parametrize("name", OTHERS)
def test_same_function_for_stacks_of_other_kinds(name, graph):
    layers = OTHERS[name]()
    columns = torch.randn(1, 4, 6)
    with torch.no_grad():
        rate = nn.Sequential(*layers)(columns).flatten(1).shape[1] // 6
    assert_same(built(4, rate, *layers), graph=graph)


@pytest.mark.parametrize("layer", [Conv1d(4, 1, 3, stride=3), StridedConv1d(4, 1, stride=3)])
def test_strided_convolutions(layer):
    assert_same(built(4, 3, up(4, 4), up(4, 4), layer))


def test_the_generator_it_was_made_from_is_not_changed():
    torch.manual_seed(0)
    generator = FAMILIES["melgan"].make().train()  # with weight norm, and trained on
    before = copy.deepcopy(generator.state_dict())
    mel = mels(5, torch.float32)
    audio = generator(mel)
    form = InferenceForm(generator, dtype=torch.bfloat16)
    assert generator.training
    assert all(parameter.requires_grad for parameter in generator.parameters())
    assert generator.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[key]) for key, tensor in generator.state_dict().items())
    assert torch.equal(generator(mel), audio)
    with torch.no_grad():
        for parameter in form.parameters():
            parameter.zero_()
    assert torch.equal(generator(mel), audio)


def test_bf16_is_for_weights_and_leaves_constants_norms_and_foreign_layers():
    freev = InferenceForm(awake("freev", False, torch.float32), dtype=torch.bfloat16)
    kinds = {type(module).__name__ for module in freev.modules()}
    assert {"OwnLinear", "OwnFrameConv", "DepthwiseFrames", "LayerNorm", "ISTFT", "_Prior"} <= kinds
    for module in freev.modules():
        own = list(module.parameters(recurse=False))
        low = type(module).__name__ in ("OwnLinear", "Expansion", "OwnFrameConv")
        assert all(p.dtype == (torch.bfloat16 if low else torch.float32) for p in own), module
    assert all(buffer.dtype == torch.float32 for buffer in freev.buffers())

    banded = InferenceForm(awake("multi-band melgan", False, torch.float32), dtype=torch.bfloat16)
    assert [buffer.dtype for buffer in banded.buffers()] == [torch.float32]  # the filter bank
    assert {parameter.dtype for parameter in banded.parameters()} == {torch.bfloat16}

    foreign = InferenceForm(built(4, 3, Conv1d(4, 6, 3), Snake(6), up(6)).float(), dtype=torch.bfloat16)
    assert foreign.layers[2].layer.alpha.dtype == torch.float32
    audio, _ = foreign.step(mels(9, torch.float32)[:, :4], foreign.init_state(1))
    assert audio.dtype == torch.bfloat16


def test_a_block_stays_in_bf16_where_it_is_widest():
    form = InferenceForm(awake("vocos", False, torch.float32), dtype=torch.bfloat16)
    seen = []
    for module in form.modules():
        if isinstance(module, ConvNeXtBlock):
            module.expand.register_forward_hook(
                lambda _module, given, got: seen.append((given[0].dtype, got.dtype))
            )
            module.register_forward_hook(lambda _module, _given, got: seen.append(got.dtype))
    form(mels(9, torch.float32))
    assert seen == [(torch.float32, torch.bfloat16), torch.float32] * 2


@pytest.mark.parametrize("name", FAMILIES)
def test_in_bf16_only_rounding_is_lost(name):
    generator = awake(name, False, torch.float32)
    form = InferenceForm(generator, dtype=torch.bfloat16)
    mel = mels(40, torch.float32)
    state = form.finish(form.init_state(1), 40)
    flushed = torch.cat([mel, torch.zeros(1, N_MELS, generator.receptive_field.lookahead_inputs)], -1)
    with torch.no_grad():
        audio, after = form.step(flushed, state)
        expected, whole = generator(mel), form(mel).float()
    assert [t.dtype for t in after] == [t.dtype for t in state]
    late = generator.receptive_field.lookahead
    assert rms(expected) > 0.1
    for got in (audio[:, late : late + expected.shape[1]].float(), whole):
        snr_db = 20 * np.log10(rms(expected) / rms(got - expected))
        assert 20 < snr_db < 60, snr_db  # and it is bf16


@pytest.mark.parametrize("n_fft, hop", [(64, 16), (33, 11), (256, 64), (300, 60), (258, 86), (1024, 256)])
def test_a_graph_has_the_same_inverse_transform_as_matrix_products(n_fft, hop):
    layer = ISTFT(n_fft, hop)
    layer.window = torch.hann_window(n_fft, dtype=torch.float64)
    spectrum = torch.randn(
        2, 3, 2 * (n_fft // 2 + 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    # Also of what a real frame can't have, imaginary parts of what is its own conjugate: both leave it out.
    torch.testing.assert_close(
        by_products(layer)._frames(spectrum), layer._frames(spectrum), atol=1e-10, rtol=0
    )
