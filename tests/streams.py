"""A server in miniature: utterances of any lengths through a few lanes of one batch, in chunks of any size."""

from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gansound.nn import streaming
from gansound.nn.conv import Conv1d, TransposedConv1d
from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from gansound.nn.streaming import Cursor


@dataclass
class Streams:
    """What `serve` drives: the five functions of streaming, and by how many output columns it is late."""

    init_state: Any
    step: Any
    finish: Any
    reset: Any
    rate: Fraction
    late: int
    multiple: int = 1  # a chunk's columns are one of it


def of_layer(layer: nn.Module, channels: int, multiple: int = 1) -> Streams:
    """Of a layer whose columns are the last dimension, before and after."""
    like = next(layer.parameters(), torch.zeros(1, dtype=torch.float64))

    def example(batch: int) -> Tensor:
        return like.new_zeros(batch, channels, multiple)

    cursor = Cursor(None, [])
    with torch.no_grad():
        columns = streaming.stream(layer, example(1), cursor).shape[-1]
    return Streams(
        lambda batch: streaming.init_state(layer, example(batch)),
        lambda x, state, interior=False: streaming.step(layer, x, state, interior=interior),
        streaming.finish,
        streaming.reset,
        Fraction(columns, multiple),
        cursor.delay,
        multiple,
    )


def of_generator(generator: StreamingGenerator) -> Streams:
    """Of a generator; its samples get a dimension of one channel."""

    def step(mel: Tensor, state: Any, interior: bool = False) -> Any:
        audio, state = generator.step(mel, state, interior=interior)
        return audio[:, None], state

    return Streams(
        generator.init_state,
        step,
        generator.finish,
        generator.reset,
        Fraction(generator.hop_length),
        generator.receptive_field.lookahead,
    )


@torch.no_grad()
def serve(
    streams: Streams,
    utterances: list[Tensor],
    columns_out: list[int],
    seed: int,
    *,
    lanes: int = 3,
    max_chunk: int = 7,
    interruptions: float = 0.05,
) -> list[Tensor]:
    """Each utterance `(C, L)` streamed: `(C_out, columns_out)`.

    Lanes start and end apart, wait in between, and are interrupted now and then, to begin again from a reset. What a
    lane is fed outside its utterances is NaN, which would spoil whatever it reached. Chunks are drawn anew each step.
    """
    rng = np.random.default_rng(seed)
    waiting = deque(range(len(utterances)))
    results: list[Any] = [None] * len(utterances)
    missing = list(columns_out)
    current: list[int | None] = [None] * lanes
    pushed, finished = [0] * lanes, [False] * lanes
    state = streams.init_state(lanes)
    shapes = [(t.shape, t.dtype) for t in state]
    while waiting or any(one is not None for one in current):
        chunk = streams.multiple * int(rng.integers(1, max_chunk + 1))
        begins = torch.zeros(lanes, dtype=torch.bool)
        for lane in range(lanes):
            if current[lane] is not None and rng.random() < interruptions:
                waiting.append(current[lane])  # type: ignore[arg-type]
                current[lane] = None
            if current[lane] is None and waiting and rng.random() < 0.5:
                current[lane] = waiting.popleft()
                missing[current[lane]] = columns_out[current[lane]]
                begins[lane], pushed[lane], finished[lane] = True, 0, False
        if begins.any():
            state = streams.reset(state, begins)

        x = utterances[0].new_full((lanes, utterances[0].shape[0], chunk), float("nan"))
        ends, remaining = torch.zeros(lanes, dtype=torch.bool), torch.zeros(lanes, dtype=torch.int64)
        for lane, one in enumerate(current):
            if one is None:
                continue
            left = max(0, utterances[one].shape[1] - pushed[lane])
            taken = min(left, chunk)
            x[lane, :, :taken] = utterances[one][:, pushed[lane] : pushed[lane] + taken]
            # An end that falls on a chunk's may be told with it or, as often in life, only after it.
            known = left < chunk or (left == chunk and rng.random() < 0.5)
            if known and not finished[lane]:
                ends[lane], remaining[lane], finished[lane] = True, left, True
        if ends.any():
            state = streams.finish(state, remaining, ends)

        y, state = streams.step(x, state)
        assert [(t.shape, t.dtype) for t in state] == shapes
        for lane, one in enumerate(current):
            if one is None:
                continue
            if results[one] is None:
                results[one] = y.new_full((y.shape[1], columns_out[one]), float("nan"))
            first = int(pushed[lane] * streams.rate) - streams.late
            start, end = max(first, 0), min(first + y.shape[2], columns_out[one])
            if end > start:
                results[one][:, start:end] = y[lane, :, start - first : end - first]
            pushed[lane] += chunk
            missing[one] = columns_out[one] - end
            if missing[one] <= 0:
                current[lane] = None
    return results


@torch.no_grad()
def chunk_by_chunk(
    streams: Streams, x: Tensor, chunks: list[int], interior_columns: int | None = None
) -> Tensor:
    """One utterance `(B, C, L)` in such chunks from a fresh state, then flushed in one step: `(B, C_out, L * rate)`.

    Args:
        streams: what to drive.
        x: the utterance, in all lanes at once.
        chunks: columns of each step; they add up to L.
        interior_columns: promise the interior from so many columns on.
    """
    assert sum(chunks) == x.shape[-1]
    state = streams.init_state(x.shape[0])
    parts, position = [], 0
    for chunk in chunks:
        interior = interior_columns is not None and position >= interior_columns
        y, state = streams.step(x[..., position : position + chunk], state, interior=interior)
        parts.append(y)
        position += chunk
    flush = -(-streams.late // int(streams.rate))
    if flush:
        nothing = x.new_full((*x.shape[:-1], flush), float("nan"))
        y, state = streams.step(nothing, streams.finish(state))
        parts.append(y)
    return torch.cat(parts, -1)[..., streams.late : streams.late + int(x.shape[-1] * streams.rate)]


def error(got: list[Tensor], expected: list[Tensor]) -> float:
    """The largest difference of any sample; infinite where one isn't a number."""
    worst = 0.0
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        worst = max(worst, float((a - b).abs().nan_to_num(float("inf")).max()))
    return worst


def chunking(columns: int, largest: int, rng: np.random.Generator) -> list[int]:
    """Random chunks of 1 to `largest` columns that add up to `columns`."""
    chunks: list[int] = []
    while (left := columns - sum(chunks)) > 0:
        chunks.append(min(left, int(rng.integers(1, largest + 1))))
    return chunks


@torch.no_grad()
def awaken(generator: StreamingGenerator, mel: Tensor, output_rms: float = 0.3) -> StreamingGenerator:
    """Rescale every convolution until its output on `mel` has unit variance, the last's that of `output_rms`.

    As drawn, a generator's signal dies on the way up and only biases are heard; an error in an early layer would not
    show in the output. Weight norm is folded.
    """
    fold_parametrizations(generator.eval())
    convolutions = [m for m in generator.modules() if isinstance(m, Conv1d | TransposedConv1d)]
    for conv in convolutions:
        seen: list[Tensor] = []
        handle = conv.register_forward_hook(lambda module, args, out, seen=seen: seen.append(out))
        generator(mel)
        handle.remove()
        factor = (output_rms if conv is convolutions[-1] else 1.0) / seen[0].std()
        conv.weight *= factor
        if conv.bias is not None:
            conv.bias *= factor
    return generator
