"""Whether the device computes what the processor does in double: nets, streams, training, precisions, processes."""

import contextlib
import dataclasses
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from gansound.data.items import BOOKKEEPING
from gansound.draw import placed
from gansound.engine.phases import fuse, skips_by_itself
from gansound.engine.processes import leave, set_up
from gansound.inference.backends.eager import EagerRunner
from gansound.nn.griffin_lim import GriffinLim
from tests.gpu import models
from tests.gpu.absent import reads_sound
from tests.gpu.checks import Check, LeftOut, Settings, error_of, within
from tests.streams import chunk_by_chunk, of_generator

# Of ‖got − expected‖ / ‖expected‖. fp32 of nets of dozens of layers lies near 1e-6 and TF32 near 1e-3; so the first
# bound tells them apart.
FULL, HALF = 1e-4, 5e-2
CLOSE, AFTER_A_STEP = 1e-3, 2e-2
"""Of figures and gradients; and of figures after steps at a recipe's own rate."""
SLOW = 1e-7
SYNCS_A_STEP = 1
FRAMES = 24
ROOT = Path(__file__).resolve().parents[2]


def checks(settings: Settings) -> list[Check]:
    """The most telling first."""
    quick = settings.tiny or not settings.on_gpu
    recipes = models.one_of_each(tiny=settings.tiny) if quick else models.RECIPES
    forward = [Check(f"forward: {name}", partial(forward_of, name)) for name in models.generators()]
    judged = [Check(f"judging: {name}", partial(judging, name)) for name in models.discriminators()]
    steps = [Check(f"two steps: {name}", partial(steps_of, name)) for name in recipes]
    streams = [Check(f"streaming: {name}", partial(streaming, name)) for name in models.generators()]
    learning = [Check(f"gradients: {name}", partial(gradients, name)) for name in models.generators()]
    halves = [
        Check(f"{precision}: {name}", partial(half_precision, precision, name))
        for precision in ("bf16", "fp16")
        for name in (("tiny_cpu",) if quick else recipes)
    ]
    return [
        *forward,
        *steps,
        Check("fused optimizers", optimizers),
        Check("no TF32 unless asked", tf32),
        Check("host syncs of a step", host_syncs),
        *judged,
        *streams,
        *learning,
        *halves,
        Check("copies from the processor", copies),
        Check("a run resumed is the run", resumed, seconds=2 if quick else 20),
        Check("compiled", partial(compiled, True), seconds=0 if quick else 60),
        Check("compiled with CUDA graphs", partial(compiled, "graphs"), seconds=0 if quick else 60),
        Check("one process, its own backend", partial(processes, 1), seconds=2 if quick else 15),
        Check("two processes on one device", partial(processes, 2), seconds=2 if quick else 15),
        Check("ONNX Runtime's CUDA", onnx_runtime),
        Check("the suite's tests marked gpu", marked_tests, seconds=0 if quick else 30),
    ]


def forward_of(name: str, settings: Settings) -> dict[str, Any]:
    """fp32 on the device, and bf16 under autocast, beside double on the processor."""
    reference = models.generator(name)
    mel = _mel(reference.n_mels)
    expected = reference(mel)
    assert float(expected.square().mean().sqrt()) > 0.05, "the model is silent, so nothing is compared"
    network = models.copied(reference, settings.device, torch.float32)
    given = mel.to(settings.device, torch.float32)
    with _settled(settings):
        error = error_of(network(given), expected)
        with torch.autocast(settings.device.type, torch.bfloat16):
            half = error_of(network(given).float(), expected)
    within("fp32", error, FULL)
    within("bf16", half, 4 * HALF)
    assert half > 10 * error, f"bf16 errs by {half:.1e} as fp32 does by {error:.1e}: autocast did nothing"
    return {"error_fp32": error, "error_bf16": half}


def judging(name: str, settings: Settings) -> dict[str, Any]:
    """Every feature map of a discriminator, and what its logits say of its input and of its weights."""
    reference, sound = models.discriminator(models.discriminators()[name])
    network = models.copied(reference, settings.device, torch.float32)
    given = sound.to(settings.device, torch.float32).requires_grad_()
    sound.requires_grad_()
    maps, expected = network(given), reference(sound)
    errors = [
        error_of(a, b)
        for mine, its in zip(maps, expected, strict=True)
        for a, b in zip(mine, its, strict=True)
    ]
    within("feature maps", max(errors), FULL)
    for found in (maps, expected):
        sum(scale[-1].square().mean() for scale in found).backward()
    assert given.grad is not None
    assert sound.grad is not None
    slope = error_of(given.grad, sound.grad)
    within("slope of the input", slope, CLOSE)
    weights = _worst_gradient(network, reference)
    within("gradients", weights, CLOSE)
    return {"error_maps": max(errors), "error_slope": slope, "error_gradients": weights}


def streaming(name: str, settings: Settings) -> dict[str, Any]:
    """Streams in a batch, their states on the device, in chunks, equal the whole in double; so does the offline way."""
    reference = models.generator(name)
    mel = _mel(reference.n_mels)
    expected = reference(mel)
    network = models.copied(reference, settings.device, torch.float32)
    given = mel.to(settings.device, torch.float32)
    state = network.init_state(len(given))
    assert all(part.device.type == settings.device.type for part in state), "the states aren't on the device"
    with _settled(settings):
        chunks = [1, 2, 7, FRAMES - 10]
        streamed = chunk_by_chunk(of_generator(network), given, chunks)[:, 0]
        error = error_of(streamed, expected)
        runner = EagerRunner(network)
        runner.offline_frames = 7
        offline = error_of(runner.synthesize(given), expected)
    within("streamed", error, FULL)
    within("in chunks offline", offline, FULL)
    return {"error_streamed": error, "error_offline": offline}


def gradients(name: str, settings: Settings) -> dict[str, Any]:
    """Of the sound's energy and its slope, by every weight."""
    reference = models.generator(name).requires_grad_(True)
    network = models.copied(reference, settings.device, torch.float32).requires_grad_(True)
    mel = _mel(reference.n_mels)
    with _settled(settings):
        for made, given in ((reference, mel), (network, mel.to(settings.device, torch.float32))):
            sound = made(given)
            (sound.square().mean() + (sound[:, 1:] - sound[:, :-1]).square().mean()).backward()
    error = _worst_gradient(network, reference)
    within("gradients", error, CLOSE)
    return {"error_gradients": error}


def steps_of(name: str, settings: Settings) -> dict[str, Any]:
    """Both phases of a shipped recipe: its figures are those of double on the processor, step by step."""
    reference = models.Trained(_slow(name), torch.device("cpu"), double=True)
    trained = models.Trained(_slow(name), settings.device)
    found: dict[str, Any] = {}
    griffin_lim = any(isinstance(module, GriffinLim) for module in reference.made.task.generator.modules())
    # A step of it makes up to three of a rounding where frames contradict each other. A gradient's norm in single
    # precision lay 1.7e-3 off on one processor and 4e-4 on another.
    most = AFTER_A_STEP if griffin_lim else 2 * CLOSE
    with _settled(settings):
        for number in range(2):
            error, of = _worst_figure(trained.step(number), reference.step(number))
            within(f"step {number + 1} ({of})", error, most)
            found |= {f"error_step_{number + 1}": error, "of": of}
    return found


def optimizers(settings: Settings) -> dict[str, Any]:
    """Fused, as the engine makes them on a GPU, they update as plain ones do in double; and skip when told to."""
    found = {}
    for kind, options in (
        (torch.optim.Adam, {"betas": (0.5, 0.9)}),
        (torch.optim.AdamW, {"weight_decay": 0.01}),
    ):
        rng = torch.Generator().manual_seed(0)
        start = [
            torch.randn(size, dtype=torch.float64, generator=rng) for size in ((64, 33), (7,), (1, 5, 3))
        ]
        mine = [torch.nn.Parameter(t.to(settings.device, torch.float32)) for t in start]
        its = [torch.nn.Parameter(t.clone()) for t in start]
        optimizer, plain = kind(mine, lr=1e-2, **options), kind(its, lr=1e-2, foreach=False, **options)
        fuse(optimizer)
        assert skips_by_itself(optimizer) is settings.on_gpu, "a GPU's parameters get a fused optimizer"
        for step in range(6):
            for a, b in zip(mine, its, strict=True):
                b.grad = torch.randn(b.shape, dtype=torch.float64, generator=rng)
                a.grad = b.grad.to(settings.device, torch.float32)
            if step == 3 and settings.on_gpu:  # a step that isn't a number changes nothing, moments included
                for a in mine:
                    a.grad.fill_(torch.nan)
                optimizer.found_inf = torch.ones((), device=settings.device)
                optimizer.step()
                optimizer.found_inf = torch.zeros((), device=settings.device)
                continue
            if step != 3:
                optimizer.step(), plain.step()
        moved = [error_of(a - t.to(a), b - t) for a, b, t in zip(mine, its, start, strict=True)]
        within(f"what {kind.__name__} moved", max(moved), CLOSE)
        found[f"error_{kind.__name__.lower()}"] = max(moved)
    return found


def half_precision(precision: str, name: str, settings: Settings) -> dict[str, Any]:
    """Under autocast, fp16 with its scaler: a step's figures are near those of fp32, and not they."""
    full = models.Trained(models.planned(name, small=True), settings.device).step(0)
    halved = models.Trained(models.planned(name, small=True), settings.device, precision)
    got = halved.step(0)
    there = [key for key in full if key in got]  # a first scale too large leaves no gradient's norm
    error, of = _worst_figure({key: got[key] for key in there}, {key: full[key] for key in there}, least=0.1)
    within(f"{precision} ({of})", error, 0.3)
    assert error > 0, f"{precision} gives fp32's figures: autocast did nothing"
    if precision == "bf16":
        return {"error": error, "of": of}
    for number in range(1, 30):
        if all(f"gradient_norm/{side}" in got for side in halved.made.optimizers):
            break
        got = halved.step(number)
    else:
        raise AssertionError(f"no scale was found in 30 steps: {got}")
    return {"error": error, "of": of, "loss_scale": got["loss_scale/generator"], "steps_to_find_it": number}


def tf32(settings: Settings) -> dict[str, Any]:
    """Products and convolutions round to 10 bits where `precision: tf32` is set, and nowhere else."""
    made = models.planned("tiny_cpu", small=True)
    torch.manual_seed(0)
    a, b = torch.randn(512, 512, dtype=torch.float64), torch.randn(512, 512, dtype=torch.float64)
    x, w = a[None], torch.randn(64, 512, 5, dtype=torch.float64)
    products = a @ b, F.conv1d(x, w)
    errors = {}
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for precision in ("fp32", "tf32"):
            set_up(dataclasses.replace(made.settings, precision=precision, threads=None), made.task)
            there = [tensor.to(settings.device, torch.float32) for tensor in (a, b, x, w)]
            got = there[0] @ there[1], F.conv1d(there[2], there[3])
            errors[precision] = max(error_of(mine, its) for mine, its in zip(got, products, strict=True))
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    within("fp32", errors["fp32"], 1e-5)
    if settings.on_gpu and torch.cuda.get_device_capability(settings.device) >= (8, 0):
        assert errors["tf32"] > 5e-5, f"tf32 was asked for and errs by {errors['tf32']:.1e} only"
    return {f"error_{name}": error for name, error in errors.items()}


def host_syncs(settings: Settings) -> dict[str, Any]:
    """How often a step of each kind of task makes the processor wait; on a CPU, on torch's device without values."""
    found = {}
    for name in ("tiny_cpu", "wavegan_tiny_cpu"):
        if settings.on_gpu:
            trained = models.Trained(models.planned(name, small=True), settings.device)
            rounds = trained.batches(0)
            for number in range(3):
                trained.step(number, rounds)
            with _waits() as seen:
                trained.step(3, rounds)
            count, where = len(seen), "; ".join(seen)
        else:
            from tests.host_syncs import DEVICE, HostSyncs, no_autocast, on_the_device

            made = models.planned(name, small=True)
            phases = on_the_device(made)
            rounds = [
                [
                    {
                        name: value if name in BOOKKEEPING else value.to(DEVICE)
                        for name, value in batch.items()
                    }
                    for batch in one
                ]
                for one in models.batches(made, 0, torch.device("cpu"))
            ]
            with no_autocast(), HostSyncs() as counted:
                for number in range(2):
                    counted.seen.clear()
                    phases.step(rounds, adversarial="discriminator" in made.optimizers, step=number)
            count, where = counted.count, "; ".join(counted.seen)
        within(f"waits in a step of {name} ({where})", count, SYNCS_A_STEP)
        found[name] = count
    return found


def copies(settings: Settings) -> dict[str, Any]:
    """What is copied while the processor goes on arrives whole, also where its source is let go of at once."""
    torch.manual_seed(0)
    sums, arrived = [], []
    for _ in range(20):
        tensor = torch.randn(256, 1024)
        sums.append(tensor.clone())
        arrived.append(placed(tensor, settings.device))
        del tensor
    settings.synchronize()
    for mine, its in zip(arrived, sums, strict=True):
        assert torch.equal(mine.cpu(), its), "a batch was written over on its way"
    return {"copies": len(sums)}


def resumed(settings: Settings) -> dict[str, Any]:
    """Four steps, an end and two more are six steps, to the bit, with deterministic kernels."""
    if not reads_sound():
        raise LeftOut("needs soundfile and soxr, to read a corpus")
    from tempfile import TemporaryDirectory

    from gansound.engine.plan import plan
    from gansound.engine.run import Run
    from tests.corpus import write_corpus
    from tests.test_engine import tiny, weights

    with TemporaryDirectory() as folder, _deterministic():
        corpus = write_corpus(Path(folder) / "corpus", files=4)
        for name, stops in (("whole", (4,)), ("parts", (2, 4))):
            for steps in stops:
                run = Run(plan(tiny(corpus, steps)), Path(folder) / name)
                run.fit()
                leave(run.accelerator)
        one, other = weights(Path(folder) / "whole"), weights(Path(folder) / "parts")
        assert one.keys() == other.keys()
        differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert not differing, f"{len(differing)} of {len(one)} tensors differ, the first {differing[0]}"
    return {"tensors": len(one)}


def compiled(how: bool | str, settings: Settings) -> dict[str, Any]:
    """`compile` gives the figures of the networks as they are, to rounding, in three steps."""
    if not settings.on_gpu:
        raise LeftOut("compiling takes minutes on a CPU, and the suite does it there (pytest -m slow)")
    figures = {}
    for name in ("melgan_ljspeech", "tiny_cpu"):
        plain = models.Trained(models.planned(name, small=True), settings.device)
        made = models.Trained(models.planned(name, small=True), settings.device, compiled=how)
        for number, most in enumerate((CLOSE, AFTER_A_STEP, 2 * AFTER_A_STEP)):
            error, of = _worst_figure(made.step(number), plain.step(number))
            within(f"{name}, step {number + 1} ({of})", error, most)
            figures[name] = error
    return figures


def processes(ranks: int, settings: Settings) -> dict[str, Any]:
    """Gradients summed over processes are those of the whole batch: NCCL with one, and two that share the device.

    NCCL refuses two processes on one card, so they speak through gloo.
    """
    backend = "nccl" if settings.on_gpu and ranks == 1 else "gloo"
    file = settings.out / f".rendezvous_{ranks}"
    file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.gpu.ranks", backend, str(ranks), str(settings.device), str(file)]
    most = max(30.0, min(120.0, settings.seconds_left))
    begun = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, env=_environment(), text=True, stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT)
        for rank in range(ranks)
    ]  # fmt: skip
    try:
        told = [process.communicate(timeout=most)[0] for process in begun]
    finally:
        for process in begun:
            process.kill()
        file.unlink(missing_ok=True)
    for process, text in zip(begun, told, strict=True):
        assert process.returncode == 0, text.strip().splitlines()[-1] if text.strip() else "a process died"
    return {"backend": backend, "error_gradients": float(told[0].strip().splitlines()[-1])}


def onnx_runtime(settings: Settings) -> dict[str, Any]:
    """Says what is there: gansound's backend runs on the CPU, so that nothing of it can be checked yet."""
    try:
        import onnxruntime
    except ImportError as error:
        raise LeftOut("onnxruntime isn't installed") from error
    if not settings.on_gpu or "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise LeftOut(
            f"onnxruntime {onnxruntime.__version__} here has {onnxruntime.get_available_providers()}"
        )
    raise LeftOut("gansound's ONNX Runtime backend runs on the CPU only, so there is nothing of it to check")


def marked_tests(settings: Settings) -> dict[str, Any]:
    """The suite's files that hold tests marked gpu: `pytest -m gpu`."""
    if not settings.on_gpu:
        raise LeftOut("they need a GPU")
    files = [
        str(file)
        for file in sorted((ROOT / "tests").glob("test_*.py"))
        if "pytest.mark.gpu" in file.read_text()
    ]
    told = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "tests.gpu.absent", "-p", "no:cacheprovider", *files],
        cwd=ROOT, env=_environment(), text=True, capture_output=True,
        timeout=max(30.0, settings.seconds_left), check=False,
    )  # fmt: skip
    lines = told.stdout.strip().splitlines() or ["nothing was said"]
    assert told.returncode == 0, "\n".join(lines[-12:])
    return {"said": lines[-1]}


def _mel(n_mels: int) -> torch.Tensor:
    return torch.randn(2, n_mels, FRAMES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _worst_gradient(network: torch.nn.Module, reference: torch.nn.Module) -> float:
    """Over all weights together: one whose gradient is all but zero has no digits."""
    pairs = [
        (mine.grad.detach().cpu().double().flatten(), its.grad.flatten())
        for mine, its in zip(network.parameters(), reference.parameters(), strict=True)
        if mine.grad is not None and its.grad is not None
    ]
    assert pairs, "no weight has a gradient"
    return error_of(torch.cat([mine for mine, _ in pairs]), torch.cat([its for _, its in pairs]))


def _slow(name: str) -> Any:
    """A small recipe that hardly moves: Adam makes signs of gradients that are all but zero, on each device others."""
    sides = ("generator", "discriminator")
    made = models.planned(name, small=True)
    for side in sides:
        for group in made.optimizers[side].param_groups if side in made.optimizers else ():
            group["lr"] = group["initial_lr"] = SLOW
    return made


def _worst_figure(got: Any, expected: Any, least: float = 1e-2) -> tuple[float, str]:
    """The largest relative difference of figures, those under `least` by `least`, and whose it is.

    How often a discriminator wins, and signs, are counts that one sample on the border changes.
    """
    assert got.keys() == expected.keys(), f"figures {sorted(got.keys() ^ expected.keys())} are in one only"
    errors = {
        name: abs(got[name] - value) / max(abs(value), least)
        for name, value in expected.items()
        if not name.startswith(("discriminator_wins", "real_sign"))
    }
    worst = max(errors, key=lambda name: errors[name])
    return errors[worst], worst


@contextlib.contextmanager
def _settled(settings: Settings) -> Iterator[None]:
    """No TF32, and errors of kernels come out where they were made."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
        settings.synchronize()
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextlib.contextmanager
def _waits() -> Iterator[list[str]]:
    """What CUDA's synchronising calls warn of."""
    seen: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield seen
        finally:
            torch.cuda.set_sync_debug_mode("default")
            seen += [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


def _environment() -> dict[str, str]:
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}
