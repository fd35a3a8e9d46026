"""Every layer streamed equals itself applied to the whole, and looks exactly as far as it says.

The oracle is `forward`, which other tests hold against numpy, scipy and torch.
"""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from gansound.nn import streaming
from gansound.nn.anti_aliased import AntiAliased
from gansound.nn.conv import AheadConv1d, Conv1d, RepeatedConv1d, StridedConv1d, TransposedConv1d
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.exact import ExactConv1d
from gansound.nn.finer_frames import FinerFrames
from gansound.nn.istft import ISTFT, MirroredLead
from gansound.nn.pqmf import PQMF
from gansound.nn.residual import Parallel, Residual, dilated_residual
from gansound.nn.snake import Snake, SnakeBeta
from gansound.nn.stft import STFT, DownConv1d
from gansound.nn.streaming import Cursor, Pointwise, receptive_field
from tests.streams import chunk_by_chunk, chunking, error, of_layer, serve

C = 4  # channels


class Turned(Pointwise):
    """Columns last to channels last, and back."""

    def forward(self, x):
        return x.transpose(1, 2)


class OneChannel(Pointwise):
    def forward(self, x):
        return x[:, None]


class WithoutLast(nn.Module):
    """All columns but the last one: what is one more than hops is as many again."""

    def forward(self, x):
        return x[..., :-1]

    def stream(self, x, cursor):
        if cursor.length is not None:
            cursor.length = cursor.length - 1
        return x


def channels_last(layer):
    return nn.Sequential(Turned(), layer, Turned())


def istft(n_fft, hop_length, *before, framing="same"):
    layer = ISTFT(n_fft, hop_length, framing)
    layer.window += 0.1  # Hann's first sample is zero, and hides whether the frame is heard there
    return nn.Sequential(Turned(), *before, layer, OneChannel())


class Amplitudes(Pointwise):
    """Of some columns nothing is known in the first channel."""

    def forward(self, x):
        return torch.cat([x[..., :1].clamp_min(0), x[..., 1:].exp()], dim=-1)


def finer_frames():
    layer = FinerFrames(C, 6)
    nn.init.normal_(layer.sharper[-1].weight, std=0.1)
    return layer


def anti_aliased(causal=False):
    """With frequencies at which the activation makes much that is folded back."""
    snake = SnakeBeta(C)
    nn.init.normal_(snake.alpha, 1.0)
    nn.init.normal_(snake.beta, -1.0)
    return AntiAliased(snake, causal=causal)


def of_spectrum(causal):
    """Twice as many columns: 36 samples for each, frames of every 6, then every third of those."""
    return nn.Sequential(
        TransposedConv1d(C, 1, rate=36, kernel_size=40),
        STFT(12, 6),
        DownConv1d(14, 3, stride=3, causal=causal),
    )


def different_delays():
    return Parallel(
        nn.Identity(),
        Conv1d(C, C, 3),
        nn.Sequential(
            Conv1d(C, C, 7, padding_mode="reflect"), nn.PReLU(), nn.Softplus(), Conv1d(C, C, 5, dilation=3)
        ),
        Conv1d(C, C, 4, causal=True),
        Residual(nn.Identity(), Conv1d(C, C, 9)),
    )


# name: (layer, channels in). Rates are whole numbers.
LAYERS = {
    "zeros": lambda: (Conv1d(C, 3, 5, dilation=2), C),
    "reflect": lambda: (Conv1d(C, 3, 7, padding_mode="reflect"), C),
    "reflect dilated": lambda: (Conv1d(C, 3, 3, dilation=9, padding_mode="reflect"), C),
    "causal": lambda: (Conv1d(C, 3, 4, dilation=3, causal=True), C),
    "grouped": lambda: (Conv1d(C, 8, 5, groups=2), C),
    "pointwise": lambda: (Conv1d(C, 3, 1), C),
    "transposed without overlap": lambda: (TransposedConv1d(C, 3, rate=2, kernel_size=2), C),
    "transposed": lambda: (TransposedConv1d(C, 3, rate=4, kernel_size=8), C),
    "transposed odd 2 3": lambda: (TransposedConv1d(C, 3, rate=2, kernel_size=3), C),
    "transposed odd 3 6": lambda: (TransposedConv1d(C, 3, rate=3, kernel_size=6), C),
    "transposed odd 5 8": lambda: (TransposedConv1d(C, 3, rate=5, kernel_size=8), C),
    "transposed long": lambda: (TransposedConv1d(C, 3, rate=4, kernel_size=13), C),
    "transposed causal": lambda: (TransposedConv1d(C, 3, rate=3, kernel_size=7, causal=True), C),
    "ahead": lambda: (AheadConv1d(C, 3, 4), C),
    "exact": lambda: (ExactConv1d(C, 3, left=2, right=1, elu=True), C),
    "repeated causal": lambda: (RepeatedConv1d(C, 3, rate=3, kernel_size=7), C),
    "repeated short causal": lambda: (RepeatedConv1d(C, 3, rate=4, kernel_size=3), C),
    "residual": lambda: (Residual(nn.Identity(), Conv1d(C, C, 5, dilation=2)), C),
    "melgan residual": lambda: (dilated_residual(C, dilation=3), C),
    "melgan residual causal": lambda: (dilated_residual(C, dilation=3, causal=True), C),
    "parallel": lambda: (different_delays(), C),
    "parallel upsampling": lambda: (
        Parallel(
            nn.Sequential(Conv1d(C, C, 3), TransposedConv1d(C, 2, rate=3, kernel_size=7)),
            TransposedConv1d(C, 2, rate=3, kernel_size=4),
        ),
        C,
    ),
    "stages": lambda: (
        nn.Sequential(
            Conv1d(C, C, 7, padding_mode="reflect"),
            TransposedConv1d(C, C, rate=3, kernel_size=6),
            dilated_residual(C, dilation=3),
            nn.LeakyReLU(0.2),
            TransposedConv1d(C, 2, rate=2, kernel_size=4),
            Conv1d(2, 1, 7, padding_mode="reflect"),
            nn.Tanh(),
        ),
        C,
    ),
    "pqmf": lambda: (PQMF(), 4),
    "pqmf 3 bands": lambda: (PQMF(3, 20, 0.2), 3),
    "istft": lambda: (istft(32, 8), 34),
    "istft half": lambda: (istft(16, 8), 18),
    "istft odd": lambda: (istft(28, 7), 30),
    "istft center": lambda: (istft(32, 8, framing="center"), 34),
    "istft center half": lambda: (istft(16, 8, framing="center"), 18),
    "snake": lambda: (nn.Sequential(Snake(C), SnakeBeta(C, log_scale=False)), C),
    "anti-aliased": lambda: (anti_aliased(), C),
    "anti-aliased causal": lambda: (anti_aliased(causal=True), C),
    "anti-aliased stages": lambda: (
        nn.Sequential(
            TransposedConv1d(C, C, rate=3, kernel_size=7),
            Residual(nn.Identity(), nn.Sequential(anti_aliased(), Conv1d(C, C, 3), anti_aliased())),
            TransposedConv1d(C, 2, rate=2, kernel_size=4),
        ),
        C,
    ),
    "frame conv": lambda: (channels_last(FrameConv(C, 6, 5)), C),
    "frame conv causal": lambda: (channels_last(FrameConv(C, 6, 4, causal=True)), C),
    "frame conv depthwise": lambda: (channels_last(FrameConv(C, C, 7, groups=C)), C),
    "convnext": lambda: (channels_last(ConvNeXtBlock(C, 8, 5, initial_scale=1.0)), C),
    "convnext causal": lambda: (channels_last(ConvNeXtBlock(C, 8, 5, initial_scale=1.0, causal=True)), C),
    "finer frames": lambda: (channels_last(nn.Sequential(Amplitudes(), finer_frames())), C),
    "convnext istft": lambda: (
        istft(32, 8, FrameConv(C, 34, 3), ConvNeXtBlock(34, 8, 3, initial_scale=1.0)),
        C,
    ),
}
# name: (layer, channels in, columns of a chunk are a multiple of). Rates are not.
STRIDED = {
    "strided": lambda: (Conv1d(C, 3, 5, stride=2), C, 2),
    "strided reflect": lambda: (Conv1d(C, 3, 7, stride=3, padding_mode="reflect"), C, 3),
    "strided dilated": lambda: (Conv1d(C, 3, 3, stride=4, dilation=3), C, 4),
    "strided causal": lambda: (Conv1d(C, 3, 4, stride=2, causal=True), C, 2),
    "strided pointwise": lambda: (Conv1d(C, 3, 1, stride=3), C, 3),
    "strided after a delay": lambda: (nn.Sequential(Conv1d(C, C, 5, dilation=2), Conv1d(C, 3, 3, stride=3)), C, 3),
    "strided twice": lambda: (
        nn.Sequential(Conv1d(C, C, 5, stride=2), Conv1d(C, C, 3), Conv1d(C, 3, 5, stride=3)),
        C,
        6,
    ),
    "mirrored": lambda: (
        nn.Sequential(TransposedConv1d(C, C, rate=2, kernel_size=2), MirroredLead(), Conv1d(C, 3, 3), WithoutLast()),
        C,
        1,
    ),
    "mirrored, a column waited for": lambda: (
        nn.Sequential(TransposedConv1d(C, C, rate=2, kernel_size=3), MirroredLead(), Conv1d(C, 3, 3), WithoutLast()),
        C,
        1,
    ),
    "spectrum": lambda: (
        nn.Sequential(TransposedConv1d(C, 1, rate=8, kernel_size=16), STFT(16, 4), WithoutLast()),
        C,
        1,
    ),
    "spectrum down": lambda: (of_spectrum(causal=False), C, 1),
    "spectrum down causal": lambda: (of_spectrum(causal=True), C, 1),
    "half a stride before": lambda: (StridedConv1d(C, 3, stride=4), C, 4),
    "half an odd stride before": lambda: (nn.Sequential(Conv1d(C, C, 3), StridedConv1d(C, 3, stride=3)), C, 3),
    "a stride and more before": lambda: (StridedConv1d(C, 3, stride=2, causal=True), C, 2),
    "strided paths": lambda: (Parallel(Conv1d(C, 3, 3, stride=2), Conv1d(C, 3, 9, stride=2)), C, 2),
    "down and up": lambda: (
        nn.Sequential(Conv1d(C, C, 7, stride=4), nn.GELU(), TransposedConv1d(C, 3, rate=8, kernel_size=15)),
        C,
        4,
    ),
}  # fmt: skip
WITHOUT_CONTEXT = {"pointwise", "snake", "strided pointwise", "transposed without overlap"}
CAUSAL = [name for name in LAYERS if name.endswith("causal")]


def made(name, seed=0):
    torch.manual_seed(seed)
    layer, channels, *multiple = (LAYERS | STRIDED)[name]()
    return layer.double().eval(), channels, *(multiple or [1])


def utterances_for(name, seed):
    """Lengths from one column on, many shorter than what the layer sees, some that end off the stride."""
    layer, channels, multiple = made(name, seed)
    lengths = [1, 2, 3, 17, 40, 5, 1, 29, 8]
    utterances = [torch.randn(channels, length, dtype=torch.float64) for length in lengths]
    with torch.no_grad():
        expected = [layer(x[None])[0] for x in utterances]
    return layer, channels, multiple, utterances, expected


def served(name, seed):
    layer, channels, multiple, utterances, expected = utterances_for(name, seed)
    assert all(float(y.square().mean()) > 1e-4 for y in expected)
    streams = of_layer(layer, channels, multiple)
    return serve(streams, utterances, [y.shape[1] for y in expected], seed), expected


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LAYERS | STRIDED)
def test_many_streams_in_one_batch_equal_the_whole(name, seed):
    got, expected = served(name, seed)
    assert error(got, expected) <= 1e-12


@pytest.mark.parametrize("name", LAYERS)
def test_any_chunking_equals_the_whole(name):
    layer, channels, _ = made(name)
    streams = of_layer(layer, channels)
    rng = np.random.default_rng(1)
    x = torch.randn(2, channels, 37, dtype=torch.float64)
    with torch.no_grad():
        expected = layer(x)
    for chunks in ([37], [1] * 37, [36, 1], [1, 36], *(chunking(37, largest, rng) for largest in (5, 30))):
        assert error([chunk_by_chunk(streams, x, chunks)], [expected]) <= 1e-12


@pytest.mark.parametrize("name", LAYERS)
def test_the_interior_needs_no_padding(name):
    layer, channels, _ = made(name)
    streams = of_layer(layer, channels)
    field = receptive_field(layer, torch.zeros(1, channels, 1, dtype=torch.float64))
    interior = -(-(field.lookback + field.lookahead) // field.rate)
    assert interior < 60
    x = torch.randn(3, channels, 90, dtype=torch.float64)
    chunks = chunking(90, 4, np.random.default_rng(2))
    with torch.no_grad():
        assert error([chunk_by_chunk(streams, x, chunks, interior)], [layer(x)]) <= 1e-12


@pytest.mark.parametrize("name", LAYERS)
def test_the_receptive_field_is_what_gradients_reach(name):
    layer, channels, _ = made(name)
    field = receptive_field(layer, torch.zeros(1, channels, 1, dtype=torch.float64))
    reach = -(-(field.lookback + field.lookahead) // field.rate) + 2
    x = torch.randn(1, channels, 2 * reach + 2, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    assert y.shape[-1] == x.shape[-1] * field.rate
    weights = torch.randn(y.shape[1], dtype=torch.float64)
    for t in range(reach * field.rate, (reach + 2) * field.rate):
        (gradient,) = torch.autograd.grad((weights @ y[0])[t], x, retain_graph=True)
        touched = gradient[0].abs().sum(0).nonzero().flatten()
        first, last = math.ceil((t - field.lookback) / field.rate), (t + field.lookahead) // field.rate
        assert (int(touched.min()), int(touched.max())) == (first, last), t


@pytest.mark.parametrize("name", CAUSAL)
def test_causal_layers_see_nothing_ahead(name):
    layer, channels, _ = made(name)
    assert receptive_field(layer, torch.zeros(1, channels, 1, dtype=torch.float64)).lookahead == 0


@pytest.mark.parametrize("name", STRIDED)
def test_a_rate_that_is_no_whole_number_has_no_receptive_field(name):
    layer, channels, multiple = made(name)
    example = torch.zeros(1, channels, multiple, dtype=torch.float64)
    if of_layer(layer, channels, multiple).rate < 1:
        with pytest.raises(ValueError, match="whole number"):
            receptive_field(layer, example)
        with pytest.raises(ValueError, match="multiple of the stride"):
            receptive_field(layer, torch.zeros(1, channels, multiple + 1, dtype=torch.float64))
    else:
        assert receptive_field(layer, example).rate == 2


@pytest.mark.parametrize("name", LAYERS)
def test_a_reset_item_is_a_fresh_stream_and_others_do_not_notice(name):
    layer, channels, _ = made(name)
    streams = of_layer(layer, channels)
    torch.manual_seed(5)
    x = torch.randn(3, channels, 24, dtype=torch.float64)
    with torch.no_grad():
        _, state = streams.step(x, streams.init_state(3))
        items = torch.tensor([False, True, False])
        after, _ = streams.step(x, streams.reset(state, items))
        fresh, _ = streams.step(x, streams.init_state(3))
        on, _ = streams.step(x, state)
    late = streams.late
    torch.testing.assert_close(after[1, :, late:], fresh[1, :, late:], rtol=0, atol=1e-12)
    for other in (0, 2):
        assert torch.equal(after[other], on[other])
    field = receptive_field(layer, x[:1, :, :1])
    if field.lookback >= field.rate:
        assert (on[1, :, late:] - fresh[1, :, late:]).abs().max() > 1e-6  # as it would be without the reset


def test_a_step_leaves_its_state_as_it_was():
    layer, channels, _ = made("stages")
    streams = of_layer(layer, channels)
    x = torch.randn(2, channels, 6, dtype=torch.float64)
    with torch.no_grad():
        _, state = streams.step(x, streams.init_state(2))
        before = [t.clone() for t in state]
        once, _ = streams.step(x, state)
        again, _ = streams.step(x, state)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    assert torch.equal(once, again)


def test_columns_in_another_dimension():
    torch.manual_seed(0)
    layer = FrameConv(C, 3, 5).double()
    x = torch.randn(2, 11, C, dtype=torch.float64)
    with torch.no_grad():
        state = streaming.init_state(layer, x[:, :1])
        first, state = streaming.step(layer, x[:, :4], state, columns_dim=1)
        second, state = streaming.step(layer, x[:, 4:], state, columns_dim=1)
        assert state[0].tolist() == [11, 11]
        third, _ = streaming.step(layer, x[:, :2], streaming.finish(state), columns_dim=1)
        got = torch.cat([first, second, third], 1)[:, 2:]
        torch.testing.assert_close(got, layer(x), rtol=0, atol=1e-12)


def test_what_does_not_stream_says_so():
    with pytest.raises(ValueError, match="BatchNorm1d doesn't stream"):
        streaming.init_state(nn.Sequential(Conv1d(C, C, 3), nn.BatchNorm1d(C)), torch.zeros(1, C, 1))


def test_paths_of_different_rates_are_refused():
    layer = Parallel(nn.Identity(), TransposedConv1d(C, C, rate=2, kernel_size=4))
    with pytest.raises(ValueError, match=r"as many columns, got \[1, 2\]"):
        streaming.init_state(layer, torch.zeros(1, C, 1))


# --- the tests above, tested: with one fault in the machinery they fail


def context_cut(monkeypatch):
    """The oldest column that a layer keeps is lost."""
    window = Cursor.window

    def cut(self, x, context, *, padding="zeros", dim=-1):
        result = window(self, x, context, padding=padding, dim=dim)
        if context:
            self._keep[-1] = self._keep[-1].clone()
            self._keep[-1].select(dim, 0).zero_()
        return result

    monkeypatch.setattr(Cursor, "window", cut)


def place_off_by_one(monkeypatch):
    """Every layer takes its columns for the ones after."""
    indices = Cursor.indices
    monkeypatch.setattr(Cursor, "indices", lambda self, columns, context: indices(self, columns, context) + 1)


def delay_off_by_one(monkeypatch):
    late = Cursor.late
    monkeypatch.setattr(Cursor, "late", lambda self, ahead, back: late(self, ahead + (ahead > 0), back))


def reset_forgotten(monkeypatch):
    monkeypatch.setattr(streaming, "reset", lambda state, items=None: (state[0] * ~items, *state[1:]))


def end_off_by_one(monkeypatch):
    finish = streaming.finish
    monkeypatch.setattr(
        streaming, "finish", lambda state, remaining, items: finish(state, remaining + 1, items)
    )


@pytest.mark.parametrize("name", [name for name in LAYERS | STRIDED if name not in WITHOUT_CONTEXT])
@pytest.mark.parametrize("fault", [context_cut, place_off_by_one], ids=lambda fault: fault.__name__)
def test_a_cut_context_or_a_shifted_place_shows(name, fault, monkeypatch):
    fault(monkeypatch)
    got, expected = served(name, seed=0)
    assert error(got, expected) > 1e-6


@pytest.mark.parametrize(
    "name",
    [
        "zeros",
        "reflect",
        "transposed",
        "parallel",
        "pqmf",
        "istft",
        "istft center",
        "convnext",
        "anti-aliased",
        "stages",
    ],
)
@pytest.mark.parametrize(
    "fault", [delay_off_by_one, reset_forgotten, end_off_by_one], ids=lambda fault: fault.__name__
)
def test_a_wrong_delay_start_or_end_shows(name, fault, monkeypatch):
    fault(monkeypatch)
    got, expected = served(name, seed=0)
    assert error(got, expected) > 1e-6


def test_a_wrong_receptive_field_shows(monkeypatch):
    delay_off_by_one(monkeypatch)
    with pytest.raises(AssertionError):
        test_the_receptive_field_is_what_gradients_reach("zeros")


def test_the_rate_of_a_layer_is_exact():
    assert of_layer(*made("down and up")).rate == Fraction(2)
    assert of_layer(*made("strided twice")).rate == Fraction(1, 6)
