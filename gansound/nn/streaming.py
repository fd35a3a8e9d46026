"""Streaming: any stack of layers run step by step, to the result that it gives all at once.

A step takes the next columns of the input (mel frames, samples of some rate) and gives as many columns of output,
late by the stack's look-ahead. What layers keep between steps is a flat tuple of tensors, the state: two integers
for each item of the batch, how many columns were pushed and how many the whole utterance has (unknown until its end
is), then one buffer of constant shape for each layer that looks beside itself. From the two integers every layer
knows where its columns stand, and pads at the stream's own start and end as it pads at those of a whole utterance.
So one function primes, runs and flushes, items of a batch can start and end at different times, and an item is
reset by writing its two integers.

A layer streams when it has a method `stream(x, cursor)` beside `forward(x)`; `nn.Sequential` of such layers and
layers that treat each column alone stream by themselves.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
Padding = Literal["zeros", "reflect"]
UNKNOWN_LENGTH = 2**40  # columns; times any upsampling still an int64
_SPARE, _SPARE_BYTES = 4, 2**16  # a buffer may lie in so many times its memory, and in so much anyway


class Cursor:
    """Where the columns that pass from layer to layer stand in their utterances, and what the layers keep of them.

    Column j of what a layer is handed is column `position + j - delay` of that layer's whole input.

    Attributes:
        rate: columns here for each column of the input.
        delay: columns by which the stream is late so far; the look-ahead of the layers passed.
        lookback: columns before its own that an output column depends on, so far.
        remembers: whether a layer went on from its own output, so that this is not all.
        position: `(B,)` int64, columns given before this step at the present rate; None in the interior, where
            neither start nor end of any utterance is in sight and nothing needs padding.
        length: `(B,)` int64, columns of the whole utterance at the present rate, `UNKNOWN_LENGTH` while unknown.
    """

    def __init__(
        self,
        kept: Iterator[Tensor] | None,
        keep: list[Tensor],
        position: Tensor | None = None,
        length: Tensor | None = None,
        rate: Fraction = Fraction(1),
        delay: int = 0,
        lookback: int = 0,
        remembers: bool = False,
    ) -> None:
        self._kept = kept  # of the step before, in the order in which layers ask; None before the first
        self._keep = keep  # of this step
        self.position = position
        self.length = length
        self.rate = rate
        self.delay = delay
        self.lookback = lookback
        self.remembers = remembers

    def window(
        self,
        x: Tensor,
        context: int,
        *,
        padding: Padding | Literal["replicate"] | None = "zeros",
        dim: int = -1,
    ) -> Tensor:
        """The columns of this step with the `context` columns before them, which are kept for the next step.

        Args:
            x: columns of this step.
            context: columns kept, 0 or more.
            padding: what stands outside the utterance: zeros, its reflection, its first and last column, or (None)
                anything.
            dim: the dimension of columns; the batch is dimension 0.

        Shape:
            `(B, ..., n, ...)` → `(B, ..., context + n, ...)`.
        """
        if context == 0:
            return x
        if self._kept is None:
            shape = list(x.shape)
            shape[dim] = context
            before = x.new_zeros(shape)
        else:
            before = next(self._kept)
        window = torch.cat([_laid_out_as(x, before), x], dim)
        self._keep.append(_released(window.narrow(dim, window.shape[dim] - context, context)))
        if self.position is None or padding is None:
            return window
        if padding == "zeros":
            return self._masked(window, context, dim)
        return self._drawn(window, context, dim, mirrored=padding == "reflect")

    def recalled(self, like: Tensor) -> Tensor:
        """What a layer asked to `remember` in the step before; zeros of that shape before the first step."""
        return torch.zeros_like(like) if self._kept is None else next(self._kept)

    def remember(self, value: Tensor) -> None:
        """Keep a tensor for the next step: of a layer that goes on from its own output, once a step, after it recalled.

        What begins anew is for the layer to see: where `indices` is 0.
        """
        self.remembers = True
        self._keep.append(_released(value))

    def inside(self, columns: int, context: int) -> Tensor | None:
        """Which columns of such a window are of the utterance, `(B, columns)` bool; None in the interior: all."""
        if self.position is None or self.length is None:
            return None
        index = self.indices(columns, context)
        return (index >= 0) & (index < self.length[:, None])

    def indices(self, columns: int, context: int) -> Tensor:
        """`(B, columns)`: where each column of such a window stands in its utterance; not asked in the interior."""
        assert self.position is not None
        first = self.position - (self.delay + context)
        return first[:, None] + torch.arange(columns, device=first.device)

    def late(self, lookahead: int, lookback: int) -> None:
        """Note that a layer looked that many columns ahead and back."""
        self.delay += lookahead
        self.lookback += lookback

    def upsample(self, rate: int) -> None:
        """Count in columns of a rate that many times as high from here on."""
        self.rate *= rate
        self.delay *= rate
        self.lookback *= rate
        if self.position is not None and self.length is not None:
            self.position, self.length = self.position * rate, self.length * rate

    def downsample(self, stride: int) -> None:
        """Count in every stride-th column from here on; the delay must be a multiple of it."""
        assert self.delay % stride == 0
        self.rate /= stride
        self.delay //= stride
        self.lookback = -(-self.lookback // stride)
        if self.position is not None and self.length is not None:
            self.position, self.length = self.position // stride, (self.length + stride - 1) // stride

    def fork(self) -> "Cursor":
        """A cursor for one of several paths that start here; they keep their columns in the same state."""
        return Cursor(
            self._kept,
            self._keep,
            self.position,
            self.length,
            self.rate,
            self.delay,
            self.lookback,
            self.remembers,
        )

    def join(self, paths: list[Self], outputs: list[Tensor], *, dim: int = -1) -> list[Tensor]:
        """Hold the outputs of earlier paths back until the latest has caught up, and go on from there.

        Raises:
            ValueError: the paths end at different rates.
        """
        if any(y.shape[dim] != outputs[0].shape[dim] for y in outputs):
            columns = [int(y.shape[dim]) for y in outputs]
            raise ValueError(f"parallel paths must give as many columns, got {columns}")
        first = paths[0]
        self.position, self.length, self.rate = first.position, first.length, first.rate
        self.delay = max(path.delay for path in paths)
        self.lookback = max(path.lookback for path in paths)
        self.remembers = any(path.remembers for path in paths)
        held = []
        for path, y in zip(paths, outputs, strict=True):
            window = path.window(y, self.delay - path.delay, padding=None, dim=dim)
            held.append(window.narrow(dim, 0, y.shape[dim]))
        return held

    def _masked(self, window: Tensor, context: int, dim: int) -> Tensor:
        inside = self.inside(window.shape[dim], context)
        assert inside is not None
        return torch.where(_along(inside, window, dim), window, torch.zeros_like(window))

    def _drawn(self, window: Tensor, context: int, dim: int, *, mirrored: bool) -> Tensor:
        """Outside columns replaced by ones inside, all of them in the window.

        By those that `gansound.nn.conv.reflect_pad` takes, or by the first and the last.
        """
        assert self.length is not None
        columns = window.shape[dim]
        index = self.indices(columns, context)
        length = self.length[:, None]
        if mirrored:
            period = (2 * (length - 1)).clamp_min(1)
            folded = index.remainder(period)
            source = torch.where(folded < length, folded, period - folded)
        else:
            source = torch.minimum(index.clamp_min(0), length - 1)
        source = (source - index[:, :1]).clamp(0, columns - 1)
        return window.gather(dim, _along(source, window, dim).expand_as(window))


@runtime_checkable
class StreamingLayer(Protocol):
    """A layer that streams. `stream` does on a step's columns what `forward` does on an utterance's.

    It takes its context from `cursor.window`, and tells the cursor how far it looked and whether the rate changed.
    """

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor: ...


class Pointwise(nn.Module):
    """Base of layers whose every output column depends on the same input column alone."""

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        out: Tensor = self(x)
        return out


# Of torch; LayerNorm and Linear where channels are the last dimension, as they treat that one.
_POINTWISE = (
    nn.Identity, nn.LeakyReLU, nn.PReLU, nn.ReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Hardtanh,
    nn.Sigmoid, nn.Dropout, nn.LayerNorm, nn.Linear,
)  # fmt: skip


def stream(layer: nn.Module, x: Tensor, cursor: Cursor) -> Tensor:
    """One step of one layer or of a sequence of them.

    Raises:
        ValueError: a layer that knows no streaming.
    """
    if isinstance(layer, StreamingLayer):
        return layer.stream(x, cursor)
    if isinstance(layer, nn.Sequential):
        for one in layer:
            x = stream(one, x, cursor)
        return x
    if isinstance(layer, _POINTWISE):
        out: Tensor = layer(x)
        return out
    raise ValueError(
        f"{type(layer).__name__} doesn't stream. Build from the layers of gansound.nn; or derive it from "
        "gansound.nn.streaming.Pointwise, if it treats each column alone, or give it a method stream(x, cursor)"
    )


def init_state(layer: nn.Module, example: Tensor) -> State:
    """The state before the first column.

    Args:
        layer: a layer or a stack of them.
        example: `(B, ...)`, a step's input of any values: it tells batch, widths, type and device.
    """
    batch = example.shape[0]
    position = torch.zeros(batch, dtype=torch.int64, device=example.device)
    length = torch.full_like(position, UNKNOWN_LENGTH)
    kept: list[Tensor] = []
    with torch.no_grad():
        stream(layer, example, Cursor(None, kept, position, length))
    return position, length, *(torch.zeros_like(buffer) for buffer in kept)


def step(
    layer: nn.Module, x: Tensor, state: State, *, columns_dim: int = -1, interior: bool = False
) -> tuple[Tensor, State]:
    """The next columns in, as many out, late by the look-ahead.

    Args:
        layer: what `init_state` was given.
        x: the next columns of each item.
        state: of the step before.
        columns_dim: the dimension of columns in x.
        interior: promise that every item is past its start by the receptive field and its end isn't in sight, so
            that nothing needs padding: the same result, faster.

    Returns:
        the output and the next state. With columns and delay counted at the output's rate, output column j is column
        `pushed before this step + j - delay` of the utterance's; those below 0 or past its end mean nothing.
    """
    position, length, *buffers = state
    kept = iter(buffers)
    keep: list[Tensor] = []
    cursor = Cursor(kept, keep) if interior else Cursor(kept, keep, position, length)
    y = stream(layer, x, cursor)
    return y, (position + x.shape[columns_dim], length, *keep)


def finish(state: State, remaining: int | Tensor = 0, items: Tensor | None = None) -> State:
    """Say that the utterances end: `remaining` columns after those pushed so far. Then go on with steps, of anything.

    Args:
        state: of the last step.
        remaining: columns of the next steps that still belong to the utterance; one number, or `(B,)`.
        items: `(B,)` bool, which items of the batch; all of them when None.
    """
    position, length, *buffers = state
    end = position + remaining
    return position, end if items is None else torch.where(items, end, length), *buffers


def reset(state: State, items: Tensor | None = None) -> State:
    """Begin a new utterance in some items of the batch (`(B,)` bool), or in all."""
    position, length, *buffers = state
    new = torch.ones_like(position, dtype=torch.bool) if items is None else items
    unknown = torch.full_like(length, UNKNOWN_LENGTH)
    return torch.where(new, 0, position), torch.where(new, unknown, length), *buffers


@dataclass(frozen=True)
class ReceptiveField:
    """What an output column depends on, worked out from the layers.

    Output column t depends on input columns `ceil((t - lookback) / rate)` to `floor((t + lookahead) / rate)`.

    Attributes:
        rate: output columns for each input column.
        lookback, lookahead: in output columns.
        remembers: it depends on earlier ones too, through what a layer gave for the column before.
    """

    rate: int
    lookback: int
    lookahead: int
    remembers: bool = False

    @property
    def lookahead_inputs(self) -> int:
        """Input columns after its own that must be there before an input column's output is whole."""
        return -(-self.lookahead // self.rate)

    @property
    def lookback_inputs(self) -> int:
        """Input columns before its own that an input column's output depends on."""
        return -(-self.lookback // self.rate)


def receptive_field(layer: nn.Module, example: Tensor) -> ReceptiveField:
    """The receptive field of a layer or stack; `example` is a step's input of any values.

    Raises:
        ValueError: the layer gives fewer columns than it takes, which no whole number of columns describes.
    """
    cursor = Cursor(None, [])
    with torch.no_grad():
        stream(layer, example, cursor)
    if cursor.rate.denominator > 1:
        raise ValueError(f"expected a whole number of columns for each of the input, got {cursor.rate}")
    return ReceptiveField(int(cursor.rate), cursor.lookback, cursor.delay, cursor.remembers)


def _along(per_column: Tensor, like: Tensor, dim: int) -> Tensor:
    """`(B, n)` as a tensor that broadcasts along dimension `dim` of `like`."""
    shape = [1] * like.dim()
    shape[0], shape[dim] = per_column.shape[0], per_column.shape[1]
    return per_column.reshape(shape)


def _laid_out_as(x: Tensor, before: Tensor) -> Tensor:
    """`before` with channels last in memory where x has them so.

    Of two layouts `torch.cat` makes a plain one, slowly, which the convolution then lays out anew; and the context of
    the next step, a part of it, would be plain again.
    """
    if (
        torch.compiler.is_compiling()
        or x.dim() != 4
        or not x.is_contiguous(memory_format=torch.channels_last)
    ):
        return before
    return before.contiguous(memory_format=torch.channels_last)


def _released(buffer: Tensor) -> Tensor:
    """The buffer without the rest of the step's memory, of which it is a view, where that is much."""
    if torch.compiler.is_compiling():
        return buffer
    whole = buffer.untyped_storage().nbytes()
    most = max(_SPARE * buffer.numel() * buffer.element_size(), _SPARE_BYTES)
    return buffer.clone() if whole > most else buffer
