"""Times one model on every backend, at the number of threads that this process was started with."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansound.counts import counted
from gansound.inference.bench.contestants import (
    OFFLINE_RIVAL,
    OWN_RIVAL,
    STREAMING_RIVAL,
    Contestant,
    Contestants,
    Stream,
)
from gansound.inference.bench.limit import matrix_limit, multiply_accumulates
from gansound.inference.bench.plan import Plan
from gansound.inference.bench.rivals import plain_eager
from gansound.inference.bench.rounds import (
    Spread,
    interleave,
    paired_ratio,
    percentile,
    repetitions_for,
    timed,
)
from gansound.model_folder import LoadedModel

Record = dict[str, Any]
Work = Callable[[], Sequence[float]]
MOST_REPETITIONS, MOST_PUSHES = 16, 200  # a round
PUSHES_FOR_P99 = 100
COUNTED_FRAMES = 128  # of the forward pass whose multiplications are counted


class Bench:
    """The cases of a plan, each timed for all contestants.

    Args:
        model: what is measured.
        plan: how.
        on_case: told the name of each case as it begins; there are `cases(plan)`.
    """

    def __init__(self, model: LoadedModel, plan: Plan, on_case: Callable[[str], None]) -> None:
        self.plan = plan
        self.on_case = on_case
        self.threads = torch.get_num_threads()
        self.contestants = Contestants(model, plan.contestants, plan.own_code)
        self.generator = self.contestants.generator
        self.frame_spec = model.frame_spec
        self.frame_seconds = model.frame_spec.hop_length / model.frame_spec.sample_rate
        longest = max(*plan.offline_seconds, plan.whole_seconds)
        self.mel = model.frame_spec.noise(max(self._frames(longest), COUNTED_FRAMES))

    def run(self) -> Record:
        """Everything, as JSON holds it."""
        self.on_case("the limit of this machine")
        limits, unlimited = matrix_limit(self.plan.sample_seconds)
        offline = [record for seconds in self.plan.offline_seconds for record in self.offline(seconds)]
        streaming = [record for frames in self.plan.chunk_frames for record in self.streaming(frames)]
        whole = self.whole_stream()
        self.on_case("the limit again")  # the clock may have risen since
        again, _ = matrix_limit(self.plan.sample_seconds)
        limits = {precision: max(limit, again.get(precision, limit)) for precision, limit in limits.items()}
        gmac = self.gmac_per_audio_second()
        for record in offline + streaming:
            # A rival that computes its sums many times over would seem far from a limit that it is near.
            rival = (record["backend"], record["precision"]) == STREAMING_RIVAL
            limit = None if rival else limits.get(record["precision"])
            speed = record["x_real_time_median"]
            record["fraction_of_limit"] = None if limit is None else 2 * gmac * speed / limit
        asked = {precision for _, precision in self.plan.contestants}
        return {
            "generator": self._described(gmac),
            "limits": [{"threads": self.threads} | {f"{p}_gflop_per_s": v for p, v in limits.items()}],
            "offline": offline,
            "streaming": streaming,
            "whole_stream": whole,
            "not_measured": self.contestants.not_measured
            + [{"what": f"limit in {p}", "reason": r} for p, r in unlimited.items() if p in asked],
        }

    def offline(self, audio_seconds: float) -> list[Record]:
        """About so much audio, a whole number of frames, at once."""
        case = f"offline, {audio_seconds:g} s"
        self.on_case(case)
        mel = self.mel[..., : self._frames(audio_seconds)]
        truth = plain_eager(self.generator, mel)[0].numpy()
        ready: dict[Contestant, Work] = {}
        errors: dict[Contestant, Record] = {}
        for contestant, synthesize in self.contestants.offline().items():
            with self.contestants.noting(contestant, case):
                errors[contestant] = differences(synthesize(mel)[0].numpy(), truth)
                work = partial(synthesize, mel)
                count = repetitions_for(timed(work, 1)[0], self.plan.sample_seconds, MOST_REPETITIONS)
                ready[contestant] = partial(timed, work, count)
        means = _means(self._interleave(ready))
        rival = OFFLINE_RIVAL if self.plan.own_code is None else OWN_RIVAL
        audio_s = mel.shape[-1] * self.frame_seconds
        return [
            self._about(contestant)
            | {"audio_s": audio_s}
            | _speed([audio_s / seconds for seconds in own])
            | spread("times_rival", paired_ratio(means[rival], own))
            | spread("compute_s", Spread.of(own))
            | errors[contestant]
            for contestant, own in means.items()
        ]

    def streaming(self, chunk_frames: int) -> list[Record]:
        """Pushes of so many frames, in the interior of a long utterance."""
        case = f"streaming, {counted(chunk_frames, 'frame')} a push"
        self.on_case(case)
        chunks = [chunk for chunk in self.mel.split(chunk_frames, -1) if chunk.shape[-1] == chunk_frames]
        field = self.generator.receptive_field
        # Past the start of the stream, and the pushes that are the first of their kind.
        ahead = -(-(field.lookback_inputs + field.lookahead_inputs) // chunk_frames) + 3
        ready: dict[Contestant, Work] = {}
        for contestant, stream in self.contestants.streams().items():
            with self.contestants.noting(contestant, case):
                turn = _Turn(stream, chunks)
                timed(turn.push, ahead)
                one = min(timed(turn.push, 3))
                least = -(-PUSHES_FOR_P99 // self.plan.rounds) if chunk_frames == 1 else 3
                count = max(least, repetitions_for(one, self.plan.sample_seconds, MOST_PUSHES))
                ready[contestant] = partial(timed, turn.push, count)
        rounds = self._interleave(ready)
        means = _means(rounds)
        records = []
        for contestant, own in means.items():
            pushes = [seconds for one_round in rounds[contestant] for seconds in one_round]
            enough = len(pushes) >= PUSHES_FOR_P99
            chunk_s = chunk_frames * self.frame_seconds
            records.append(
                self._about(contestant)
                | {"chunk_frames": chunk_frames, "chunk_ms": 1e3 * chunk_s}
                | _speed([chunk_s / seconds for seconds in own])
                | spread("times_rival", paired_ratio(means[STREAMING_RIVAL], own))
                | {
                    "push_ms_median": 1e3 * percentile(pushes, 50),
                    "push_ms_p99": 1e3 * percentile(pushes, 99) if enough else None,
                    "push_ms_max": 1e3 * max(pushes),
                    "pushes": len(pushes),
                }
            )
        return records

    def whole_stream(self) -> list[Record]:
        """An utterance frame by frame, from the first push to the flush: when its first sound is there."""
        case = "whole stream"
        self.on_case(case)
        mel = self.mel[..., : self._frames(self.plan.whole_seconds)]
        truth = plain_eager(self.generator, mel)[0].numpy()
        frames = list(mel.split(1, -1))
        waits: dict[Contestant, int] = {}
        errors: dict[Contestant, Record] = {}
        ready: dict[Contestant, Work] = {}
        for contestant, stream in self.contestants.streams().items():
            with self.contestants.noting(contestant, case):
                audio, _, waits[contestant] = stream_frames(stream, frames)
                errors[contestant] = differences(audio, truth)
                ready[contestant] = partial(_timed_frames, stream, frames)
        rounds = self._interleave(ready)
        audio_s = mel.shape[-1] * self.frame_seconds
        records = []
        for contestant, own in rounds.items():
            first = waits[contestant]
            latencies = [first_audio_seconds(seconds[: first + 1], self.frame_seconds) for seconds in own]
            records.append(
                self._about(contestant)
                | {"audio_s": audio_s}
                | _speed([audio_s / sum(seconds) for seconds in own])
                | spread("first_audio_ms", Spread.of([1e3 * seconds for seconds in latencies]))
                | {
                    "first_audio_waits_for_frames": first,
                    "first_audio_waits_ms": 1e3 * first * self.frame_seconds,
                    "first_audio_push_ms": 1e3 * Spread.of([seconds[first] for seconds in own]).median,
                }
                | errors[contestant]
            )
        return records

    def gmac_per_audio_second(self) -> float:
        """10^9 multiply-accumulates of the convolutions and matrix products behind a second of audio."""
        mel = self.mel[..., :COUNTED_FRAMES]
        return multiply_accumulates(self.generator, mel) / 1e9 / (mel.shape[-1] * self.frame_seconds)

    def _frames(self, seconds: float) -> int:
        return max(1, round(seconds / self.frame_seconds))

    def _interleave(self, works: dict[Contestant, Work]) -> dict[Contestant, list[list[float]]]:
        self.contestants.settle()
        return interleave(works, rounds=self.plan.rounds, limit_seconds=self.plan.case_seconds or math.inf)

    def _about(self, contestant: Contestant) -> Record:
        return {"backend": contestant[0], "precision": contestant[1], "threads": self.threads}

    def _described(self, gmac: float) -> Record:
        field = self.generator.receptive_field
        return {
            "class": f"{type(self.generator).__module__}.{type(self.generator).__name__}",
            "parameters": sum(parameter.numel() for parameter in self.generator.parameters()),
            "gmac_per_audio_s": gmac,
            "sample_rate_hz": self.frame_spec.sample_rate,
            "hop_length_samples": self.frame_spec.hop_length,
            "frame_ms": 1e3 * self.frame_seconds,
            "lookahead_ms": 1e3 * field.lookahead / self.frame_spec.sample_rate,
            "lookback_ms": 1e3 * field.lookback / self.frame_spec.sample_rate,
        }


def cases(plan: Plan) -> int:
    """How many cases `Bench.run` tells of."""
    return len(plan.offline_seconds) + len(plan.chunk_frames) + 3


def stream_frames(stream: Stream, frames: list[Tensor]) -> tuple[np.ndarray, list[float], int]:
    """One utterance: its sound, the seconds of each push and of the flush, and which of them gave the first sound."""
    stream.reset()
    pieces, seconds = [], []
    for frame in frames:
        began = time.perf_counter()
        pieces.append(stream.push(frame))
        seconds.append(time.perf_counter() - began)
    began = time.perf_counter()
    pieces.append(stream.flush())
    seconds.append(time.perf_counter() - began)
    first = next(index for index, piece in enumerate(pieces) if piece.size)
    return np.concatenate(pieces), seconds, first


def first_audio_seconds(pushes: Sequence[float], frame_seconds: float) -> float:
    """From the first frame to the end of the last of these pushes, where frames come one each `frame_seconds`.

    A push begins when its frame is there and the push before is done: one that takes longer than a frame lasts
    leaves a backlog.

    Args:
        pushes: seconds that each takes to compute.
        frame_seconds: from frame to frame; the first comes at 0.
    """
    done = 0.0
    for index, seconds in enumerate(pushes):
        done = max(done, index * frame_seconds) + seconds
    return done


def differences(audio: np.ndarray, truth: np.ndarray) -> Record:
    """How far a contestant's samples are from plain PyTorch's; `snr_db` is null where they are equal.

    Raises:
        ValueError: not as many samples, or some aren't finite.
    """
    if audio.shape != truth.shape:
        raise ValueError(f"gave samples of shape {audio.shape}, expected {truth.shape}")
    error = audio.astype(np.float64) - truth
    if not np.isfinite(error).all():
        raise ValueError("gave samples that aren't finite")
    noise, signal = float(np.square(error).sum()), float(np.square(truth, dtype=np.float64).sum())
    snr_db = 10 * math.log10(signal / noise) if noise and signal else None
    return {"max_abs_error": float(np.abs(error).max()), "snr_db": snr_db}


def spread(name: str, of: Spread) -> dict[str, float]:
    """A spread as three named figures."""
    return {f"{name}_median": of.median, f"{name}_min": of.low, f"{name}_max": of.high}


def _timed_frames(stream: Stream, frames: list[Tensor]) -> list[float]:
    return stream_frames(stream, frames)[1]


def _speed(x_real_time: list[float]) -> Record:
    return spread("x_real_time", Spread.of(x_real_time)) | {"rounds": len(x_real_time)}


def _means(rounds: dict[Contestant, list[list[float]]]) -> dict[Contestant, list[float]]:
    """Seconds of a repetition, round by round."""
    return {name: [sum(one) / len(one) for one in own] for name, own in rounds.items()}


class _Turn:
    """A stream that is pushed the same chunks over and over, as one utterance without an end."""

    def __init__(self, stream: Stream, chunks: list[Tensor]) -> None:
        self._stream, self._chunks, self._next = stream, chunks, 0

    def push(self) -> None:
        self._stream.push(self._chunks[self._next])
        self._next = (self._next + 1) % len(self._chunks)
