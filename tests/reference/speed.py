"""How long a training step takes beside the plain loop's, same nets, same batch: `python -m tests.reference.speed`.

Paper-size MelGAN and discriminators. They take turns, and what is compared is the ratio within each pair, since
the machine's pace changes from minute to minute. Never run by pytest: a test that times is a test that fails.

With `--levers`, also our step without the image layouts (`gansound.nn.images`), with torch's fused Adam, and with
networks compiled. The plain loop runs in fp32 always; it has no bf16.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from accelerate import Accelerator

from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.mel import MelSpec
from gansound.nn import images
from gansound.recipe import load_recipe
from tests.reference.melgan import Discriminator, Generator, plain_train_step

SEGMENT_SAMPLES = 8192
Step = Callable[[], object]


def main() -> None:
    """Print the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bf16", action="store_true", help="ours under autocast")
    parser.add_argument("--levers", action="store_true", help="each lever alone, too")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the process's own seconds: a shared machine"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(args.batch, SEGMENT_SAMPLES)
    precision = "bf16" if args.bf16 else "fp32"
    steps = {"plain": plain(audio), "gansound": ours(audio, precision)}
    if args.levers:
        steps["without images"] = without_images(ours(audio, precision))
        steps["with fused Adam"] = ours(audio, precision, fused=True)
        steps["with networks compiled"] = ours(audio, precision, compiled=True)
    seconds = compare(steps, args.pairs, time.process_time if args.cpu_time else time.perf_counter)
    for name, own in seconds.items():
        ratio = statistics.median(p / o for p, o in zip(seconds["plain"], own, strict=True))
        print(
            f"{name} ({precision if name != 'plain' else 'fp32'}): {statistics.median(own):.2f} s, median of "
            f"{len(own)} paired ratios: {ratio:.3f} times as fast as the plain loop"
        )


def plain(audio: torch.Tensor) -> Step:
    """The plain loop's step."""
    spec = MelSpec.preset("melgan_neurips")
    generator, discriminator = Generator(), Discriminator()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.5, 0.9))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))
    return lambda: plain_train_step(
        generator, discriminator, optimizer_g, optimizer_d, spec.mel(audio), audio
    )


def ours(audio: torch.Tensor, precision: str, *, fused: bool = False, compiled: bool = False) -> Step:
    """The engine's step, of the published recipe."""
    sides = ("generator", "discriminator") if fused else ()
    recipe = {f"{side}_optimization.optimizer.init_args.fused": True for side in sides}
    planned = plan(load_recipe("melgan_ljspeech", recipe))
    phases = Phases(planned.task, Accelerator(cpu=True), planned.optimizers, precision=precision)
    if compiled:
        for network in (planned.task.generator, *planned.task.discriminator.children()):
            network.compile(dynamic=False)
    batch = {"audio": audio, "position": torch.arange(len(audio))}
    return lambda: phases.step([[batch]], adversarial=True)


def without_images(step: Step) -> Step:
    """A step whose convolutions are torch's own of columns."""

    def run() -> None:
        with mock.patch.object(images, "quick_on", return_value=False):
            step()

    return run


def compare(steps: dict[str, Step], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each, in turns; a first round warms up and isn't counted."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for counted in range(rounds + 1):
        for name, step in steps.items():
            begun = clock()
            step()
            if counted:
                seconds[name].append(clock() - begun)
        if counted:
            print(", ".join(f"{name} {own[-1]:.2f} s" for name, own in seconds.items()), flush=True)
    return seconds


if __name__ == "__main__":
    main()
