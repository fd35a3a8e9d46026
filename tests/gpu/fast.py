"""How fast training is on the device, in what precision, beside its limit and the plain loop, and what holds it up."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gansound.machine import usable_cores
from gansound.mel import MelSpec
from gansound.nn import images
from gansound.sections import Stopwatch
from tests.gpu import models
from tests.gpu.absent import reads_sound
from tests.gpu.checks import Check, LeftOut, Settings
from tests.reference import melgan, wavegan

Step = Callable[[], object]
MEASURED = ("melgan_ljspeech", "freev_cpu", "wavegan_sc09", "specgan_drums", "hifigan_v1_ljspeech")
"""The most telling first; one that isn't shipped yet is left out."""
COMPILED = ("freev_cpu", "melgan_ljspeech")
ROUNDS, ROUND_SECONDS = 3, 0.4
WARM_UP_STEPS = 3


def checks(settings: Settings) -> list[Check]:
    """Limits first, which the rest is a share of."""
    least = 0 if settings.tiny else 8
    measured = MEASURED[:3] if settings.tiny else MEASURED
    return [
        Check("limits of the device", limits),
        *(Check(f"steps: {name}", partial(steps, name), seconds=least) for name in measured),
        Check("the loader keeps up", loader, seconds=least),
        *(
            Check(f"where the time goes: {name}", partial(where, name), seconds=least)
            for name in measured[: 1 if settings.tiny else 3]
        ),
        *(
            Check(f"compiled: {name}", partial(compiled, name), seconds=0 if settings.tiny else 60)
            for name in COMPILED
        ),
    ]


def limits(settings: Settings) -> dict[str, Any]:
    """Bytes a second of a copy on the device (read and written), and operations a second of a product."""
    size = 256 if settings.tiny else 8192
    found: dict[str, Any] = {}
    source = torch.randn(size * size // 4, device=settings.device)
    target = torch.empty_like(source)
    seconds = _seconds(lambda: target.copy_(source), settings)
    found["copy_gb_per_second"] = 2 * source.numel() * 4 / seconds / 1e9
    kinds = {"fp32": torch.float32, "bf16": torch.bfloat16}
    for name, dtype in kinds.items():
        a, b = (torch.randn(size, size, device=settings.device, dtype=dtype) for _ in range(2))
        with _flags(tf32=False):
            found[f"{name}_tflops"] = 2 * size**3 / _seconds(partial(torch.matmul, a, b), settings) / 1e12
        if name == "fp32" and settings.on_gpu:
            with _flags(tf32=True):
                found["tf32_tflops"] = 2 * size**3 / _seconds(partial(torch.matmul, a, b), settings) / 1e12
    return found


def steps(name: str, settings: Settings) -> dict[str, Any]:
    """Steps a second of a recipe in each precision and layout, and of the plain loop, in the same rounds."""
    if name not in models.RECIPES:
        raise LeftOut(f"there is no recipe {name} yet")
    contestants = dict(_contestants(name, settings))
    flops = _operations(name, settings)
    found: dict[str, Any] = {"tera_operations_a_step": flops / 1e12}
    seconds = _in_turns(contestants, settings)
    for variant, (own, memory) in seconds.items():
        found[variant] = {
            "steps_per_second": 1 / statistics.median(own),
            "tera_operations_per_second": flops / statistics.median(own) / 1e12,
            "peak_memory_mib": memory,
        }
        if "plain loop" in seconds and variant != "plain loop":
            pairs = zip(seconds["plain loop"][0], own, strict=True)
            found[variant]["times_the_plain_loop"] = statistics.median(p / o for p, o in pairs)
    return found


def compiled(name: str, settings: Settings) -> dict[str, Any]:
    """Steps a second with `compile: true` and `compile: graphs` in bf16, beside bf16 as it is."""
    if not settings.on_gpu:
        raise LeftOut("compiling takes minutes on a CPU, where it is slower")
    contestants = {"bf16": _ours(name, settings, "bf16")}
    for how in (True, "graphs"):
        contestants[f"bf16, compile: {str(how).lower()}"] = _ours(name, settings, "bf16", compiled=how)
    seconds = _in_turns({key: (step, contextlib.nullcontext) for key, step in contestants.items()}, settings)
    return {
        variant: {"steps_per_second": 1 / statistics.median(own), "peak_memory_mib": memory}
        for variant, (own, memory) in seconds.items()
    }


def loader(settings: Settings) -> dict[str, Any]:
    """Batches a second out of files, beside the steps a second that use them; the loader must be the faster."""
    if not reads_sound():
        raise LeftOut("needs soundfile and soxr, to read a corpus")
    from gansound.engine.feed import Feed
    from tests.corpus import write_corpus

    name = "tiny_cpu" if settings.tiny else "freev_cpu"
    workers = 0 if settings.tiny else max(1, min(8, usable_cores() - 2))
    with TemporaryDirectory() as folder:
        corpus = settings.audio or write_corpus(Path(folder) / "corpus", files=6, seconds=1.0)
        made = models.planned(
            name, small=settings.tiny, **{"data.path": str(corpus), "data.workers": workers}
        )
        batches = Feed(made.settings, made.task).batches(0, 0, 1, settings.on_gpu)
        count = 8 if settings.tiny else 100
        for _ in range(max(4, 2 * workers)):
            next(batches)
        begun = time.perf_counter()
        for _ in range(count):
            next(batches)
        loaded = count / (time.perf_counter() - begun)
        batches.close()
    step = _ours(name, settings, "fp32" if settings.tiny else "bf16")
    for _ in range(WARM_UP_STEPS):
        step()
    trained = 1 / _seconds(step, settings)
    found = {"batches_per_second": loaded, "steps_per_second": trained, "workers": workers, "recipe": name}
    assert loaded > trained, (
        f"{loaded:.1f} batches a second for {trained:.1f} steps a second: training waits for the loader"
    )
    return found


def where(name: str, settings: Settings) -> dict[str, Any]:
    """A step's sections as `--profile` names them, its kernels, and how much of it the processor waits for the device.

    Without borders that wait for the device, "bookkeeping" is the processor's wait for the figures: where that is next
    to nothing, launching holds the step up.
    """
    if name not in models.RECIPES:
        raise LeftOut(f"there is no recipe {name} yet")
    step = _ours(name, settings, "fp32" if settings.tiny else "bf16")
    count = 1 if settings.tiny else 10
    for _ in range(1 if settings.tiny else WARM_UP_STEPS):
        step()
    laps = {}
    for kind, synchronize in (("free", None), ("waiting_at_borders", settings.synchronize)):
        with Stopwatch(synchronize=synchronize).running() as watch:
            for _ in range(count):
                step()
            settings.synchronize()
            laps[kind] = {section: 1e3 * seconds / count for section, seconds in watch.lap().items()}
    activities = [torch.profiler.ProfilerActivity.CPU]
    if settings.on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        step()
        settings.synchronize()
    time_of = "self_device_time_total" if settings.on_gpu else "self_cpu_time_total"
    events = [event for event in profiler.key_averages() if getattr(event, time_of) > 0]
    total = sum(getattr(event, time_of) for event in events)
    top = sorted(events, key=lambda event: -getattr(event, time_of))[:10]
    free = laps["free"]
    return {
        "ms_a_step": sum(free.values()),
        "share_waiting_for_the_device": free.get("bookkeeping", 0.0) / sum(free.values()),
        "ms_computing_a_step": total / 1e3,
        "kernels_a_step": sum(event.count for event in events),
        "sections_ms": laps["waiting_at_borders"],
        "top_ms": {event.key[:60]: getattr(event, time_of) / 1e3 for event in top},
    }


def _contestants(name: str, settings: Settings) -> Iterator[tuple[str, tuple[Step, Any]]]:
    """By variant a step, and the context it runs in."""
    if name == "melgan_ljspeech":
        yield "plain loop", (_plain_melgan(settings), partial(_flags, tf32=False))
    if name == "wavegan_sc09":
        yield "plain loop", (_plain_wavegan(settings), partial(_flags, tf32=False))
    yield "fp32", (_ours(name, settings, "fp32"), partial(_flags, tf32=False))
    if settings.on_gpu:
        yield "tf32", (_ours(name, settings, "tf32"), partial(_flags, tf32=True))
    yield "bf16", (_ours(name, settings, "bf16"), contextlib.nullcontext)
    if settings.on_gpu:
        yield "bf16, channels last", (_ours(name, settings, "bf16"), _channels_last)
        yield "bf16, cudnn.benchmark", (_ours(name, settings, "bf16"), partial(_flags, benchmark=True))


def _ours(name: str, settings: Settings, precision: str, *, compiled: bool | str = False) -> Step:
    made = models.planned(name, small=settings.tiny)
    trained = models.Trained(made, settings.device, precision, compiled=compiled)
    rounds = trained.batches(0)
    numbers = iter(range(10**9))
    return lambda: trained.step(next(numbers), rounds)


def _plain_melgan(settings: Settings) -> Step:
    items, samples, width, judge = (
        (2, 2048, {"ngf": 2}, {"ndf": 4, "n_layers": 2}) if settings.tiny else (16, 8192, {}, {})
    )
    spec = MelSpec.preset("melgan_neurips")
    generator = melgan.Generator(**width).to(settings.device)
    discriminator = melgan.Discriminator(**judge).to(settings.device)
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.5, 0.9)) for net in (generator, discriminator)
    ]
    audio = 0.1 * torch.randn(items, samples, device=settings.device)
    return lambda: melgan.plain_train_step(generator, discriminator, *optimizers, spec.mel(audio), audio)


def _plain_wavegan(settings: Settings) -> Step:
    items, samples, dim = (2, 8192, 2) if settings.tiny else (64, 16384, 64)
    generator = wavegan.Generator(samples, d=dim).to(settings.device)
    discriminator = wavegan.Discriminator(samples, d=dim).to(settings.device)
    optimizers = [
        torch.optim.Adam(net.parameters(), lr=1e-4, betas=(0.5, 0.9)) for net in (generator, discriminator)
    ]
    reals = [0.1 * torch.randn(items, 1, samples, device=settings.device) for _ in range(5)]

    def step() -> None:
        with settings.device:  # it draws where it computes
            wavegan.plain_train_step(generator, discriminator, *optimizers, reals)

    return step


def _operations(name: str, settings: Settings) -> float:
    """Of the convolutions and products of a step, forward and backward, two to a multiply-accumulate."""
    step = _ours(name, settings, "fp32")
    with _Operations() as counted:
        step()
    return float(counted.total)


class _Operations(TorchDispatchMode):
    """torch's own FlopCounterMode hooks modules too, and its hooks refuse a gradient's gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def _in_turns(
    contestants: dict[str, tuple[Step, Any]], settings: Settings
) -> dict[str, tuple[list[float], float]]:
    """Of each, seconds a step by round, and peak memory in MiB; they take turns."""
    rounds = 1 if settings.tiny else ROUNDS
    counts, memory = {}, {}
    for variant, (step, context) in contestants.items():
        with context():
            if settings.on_gpu:
                torch.cuda.reset_peak_memory_stats(settings.device)
            for _ in range(1 if settings.tiny else WARM_UP_STEPS):
                step()
            settings.synchronize()
            memory[variant] = (
                torch.cuda.max_memory_allocated(settings.device) / 2**20 if settings.on_gpu else 0.0
            )
            begun = time.perf_counter()
            step()
            settings.synchronize()
            once = time.perf_counter() - begun
            counts[variant] = 1 if settings.tiny else max(1, min(50, int(ROUND_SECONDS / once)))
    seconds: dict[str, list[float]] = {variant: [] for variant in contestants}
    for _ in range(rounds):
        for variant, (step, context) in contestants.items():
            with context():
                settings.synchronize()
                begun = time.perf_counter()
                for _ in range(counts[variant]):
                    step()
                settings.synchronize()
                seconds[variant].append((time.perf_counter() - begun) / counts[variant])
    return {variant: (own, memory[variant]) for variant, own in seconds.items()}


def _seconds(work: Step, settings: Settings) -> float:
    """The median of some rounds, waited for."""
    found = []
    for number in range(4 if settings.tiny else 12):
        settings.synchronize()
        begun = time.perf_counter()
        work()
        settings.synchronize()
        if number:
            found.append(time.perf_counter() - begun)
    return statistics.median(found)


@contextlib.contextmanager
def _flags(*, tf32: bool = False, benchmark: bool = False) -> Iterator[None]:
    before = (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = benchmark
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before[:2]
        torch.backends.cudnn.benchmark = before[2]


def _channels_last() -> Any:
    """The layouts that are quick on a CPU, tried on the device."""
    return mock.patch.object(images, "quick_on", return_value=True)
