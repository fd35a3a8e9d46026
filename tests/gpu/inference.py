"""How much faster than real time sound comes out, whole and streaming, and how late a pushed frame's is."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansound.generators.hifigan import HiFiGANGenerator
from gansound.generators.melgan import MelGANGenerator
from gansound.inference.vocoder import Vocoder
from gansound.model_folder import load_model_folder
from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from tests.gpu.checks import Check, LeftOut, Settings, error_of, within

MODELS: dict[str, Callable[[], StreamingGenerator]] = {
    "default": lambda: load_model_folder("default").generator,
    "hifigan v1": lambda: fold_parametrizations(HiFiGANGenerator().eval()),
    "melgan": lambda: fold_parametrizations(MelGANGenerator().eval()),
}
SAMPLE_RATE = 22050
CHUNK_FRAMES = 8
STREAMS = (1, 16, 256)
FULL = 1e-4


def checks(settings: Settings) -> list[Check]:
    """Streams in batches first."""
    names = ("default",) if settings.tiny else tuple(MODELS)
    return [
        *(Check(f"streams: {name}", partial(streams, name)) for name in names),
        *(Check(f"whole: {name}", partial(whole, name)) for name in names),
        *(Check(f"CUDA graph of a step: {name}", partial(graph, name)) for name in names),
        Check("latency of a push", latency),
    ]


@torch.no_grad()
def whole(name: str, settings: Settings) -> dict[str, Any]:
    """× real time of whole utterances, one and sixteen at once, in fp32 and under bf16 autocast."""
    generator = MODELS[name]().to(settings.device)
    seconds = 0.5 if settings.tiny else 10.0
    frames = int(seconds * SAMPLE_RATE / generator.hop_length)
    found = {}
    for items in (1,) if settings.tiny else (1, 16):
        mel = torch.randn(items, generator.n_mels, frames, device=settings.device) - 5
        made = items * frames * generator.hop_length / SAMPLE_RATE
        for precision in ("fp32", "bf16"):
            context = torch.autocast(settings.device.type, torch.bfloat16, enabled=precision == "bf16")
            with context:
                found[f"x_real_time_{items}_{precision}"] = made / _seconds(
                    lambda m=mel: generator(m), settings
                )
    return found


@torch.no_grad()
def streams(name: str, settings: Settings) -> dict[str, Any]:
    """× real time of one stream and of many in a batch, chunk by chunk, their states on the device."""
    generator = MODELS[name]().to(settings.device)
    found = {}
    for count in STREAMS[:2] if settings.tiny else STREAMS:
        mel = torch.randn(count, generator.n_mels, CHUNK_FRAMES, device=settings.device) - 5
        state = _in_the_middle(generator, count)

        def step(mel: Tensor = mel) -> None:
            nonlocal state
            _, state = generator.step(mel, state, interior=True)

        seconds = _seconds(step, settings)
        made = count * CHUNK_FRAMES * generator.hop_length / SAMPLE_RATE
        found[f"x_real_time_{count}"] = made / seconds
        found[f"ms_a_chunk_{count}"] = 1e3 * seconds
    return found


@torch.no_grad()
def graph(name: str, settings: Settings) -> dict[str, Any]:
    """The step replayed as a CUDA graph gives what it gives, and how fast."""
    if not settings.on_gpu:
        raise LeftOut("there are CUDA graphs on a GPU only")
    generator = MODELS[name]().to(settings.device)
    found = {}
    for count in STREAMS:
        chunks = [
            torch.randn(count, generator.n_mels, CHUNK_FRAMES, device=settings.device) - 5 for _ in range(3)
        ]
        state = _in_the_middle(generator, count)
        given, kept = chunks[0].clone(), [part.clone() for part in state]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                generator.step(given, tuple(kept), interior=True)
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            sound, after = generator.step(given, tuple(kept), interior=True)
            for old, new in zip(kept, after, strict=True):
                old.copy_(new)
        for chunk in chunks:
            expected, state = generator.step(chunk, state, interior=True)
            given.copy_(chunk)
            captured.replay()
            within("the graph's sound", error_of(sound, expected), FULL)
        seconds = _seconds(captured.replay, settings)
        made = count * CHUNK_FRAMES * generator.hop_length / SAMPLE_RATE
        found |= {f"x_real_time_{count}": made / seconds, f"ms_a_chunk_{count}": 1e3 * seconds}
    return found


def latency(settings: Settings) -> dict[str, Any]:
    """Milliseconds from a push of one frame, or eight, to its sound in the processor's memory."""
    vocoder = Vocoder.from_pretrained("default", settings.device, backend="eager")
    found = {}
    rng = np.random.default_rng(0)
    for frames in (1, CHUNK_FRAMES):
        taken = []
        with vocoder.stream() as stream:
            for _ in range(6 if settings.tiny else 120):
                mel = rng.standard_normal((vocoder.mel_spec.n_mels, frames)).astype(np.float32) - 5
                begun = time.perf_counter()
                stream.push(mel)
                taken.append(1e3 * (time.perf_counter() - begun))
        taken = taken[len(taken) // 3 :]  # the first of them are at the utterance's start
        found |= {
            f"ms_{frames}_frames_median": statistics.median(taken),
            f"ms_{frames}_frames_p95": float(np.percentile(taken, 95)),
        }
    return found


def _in_the_middle(generator: StreamingGenerator, count: int) -> Any:
    """The state of streams past their start."""
    frames = torch.zeros(
        count, generator.n_mels, generator.interior_frames, device=next(generator.parameters()).device
    )
    return generator.step(frames - 5, generator.init_state(count))[1]


def _seconds(work: Callable[[], object], settings: Settings) -> float:
    """The median, waited for, after two that warm up."""
    found = []
    begun_all = time.perf_counter()
    while len(found) < (5 if settings.tiny else 30) and (
        len(found) < 5 or time.perf_counter() - begun_all < 3
    ):
        settings.synchronize()
        begun = time.perf_counter()
        work()
        settings.synchronize()
        found.append(time.perf_counter() - begun)
    return statistics.median(found[2:])
