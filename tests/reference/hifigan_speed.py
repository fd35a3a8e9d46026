"""How long a HiFi-GAN V1 step takes beside the plain loop's: `python -m tests.reference.hifigan_speed`.

Paper-size nets, same batch. The two take turns, and what is compared is the ratio within each pair, since the machine's
pace changes from minute to minute. The plain loop runs in fp32 always. Never run by pytest: a test that times is a test
that fails.
"""

import argparse
import statistics
import time

import torch
from accelerate import Accelerator

from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.mel import MelSpec
from gansound.recipe import load_recipe
from tests.reference.hifigan import Generator, PeriodDiscriminators, ScaleDiscriminators, plain_train_step
from tests.reference.speed import SEGMENT_SAMPLES, Step, compare


def main() -> None:
    """Print the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--bf16", action="store_true", help="ours under autocast, too")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the process's own seconds: a shared machine"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(args.batch, SEGMENT_SAMPLES)
    steps = {"plain": plain(audio), "fp32": ours(audio, "fp32")}
    if args.bf16:
        steps["bf16"] = ours(audio, "bf16")
    seconds = compare(steps, args.pairs, time.process_time if args.cpu_time else time.perf_counter)
    for name, own in seconds.items():
        ratio = statistics.median(p / o for p, o in zip(seconds["plain"], own, strict=True))
        print(
            f"{name}: {statistics.median(own):.2f} s, median of {len(own)} paired ratios: {ratio:.3f} times as fast "
            "as the plain loop"
        )


def plain(audio: torch.Tensor) -> Step:
    """The plain loop's step."""
    spec = MelSpec.preset("hifigan")
    filters = MelSpec.from_dict(spec.to_dict() | {"fmax": spec.sample_rate / 2}).filter_bank()
    generator, judges = Generator(), (PeriodDiscriminators(), ScaleDiscriminators())
    settings = {"lr": 2e-4, "betas": (0.8, 0.99)}
    optimizer_g = torch.optim.AdamW(generator.parameters(), **settings)
    judging = [parameter for judge in judges for parameter in judge.parameters()]
    optimizer_d = torch.optim.AdamW(judging, **settings)
    return lambda: plain_train_step(
        generator, judges, optimizer_g, optimizer_d, spec.mel(audio), audio.unsqueeze(1), filters
    )


def ours(audio: torch.Tensor, precision: str) -> Step:
    """The engine's step, of the published recipe."""
    planned = plan(load_recipe("hifigan_v1_ljspeech"))
    phases = Phases(planned.task, Accelerator(cpu=True), planned.optimizers, precision=precision)
    batch = {"audio": audio, "position": torch.arange(len(audio))}
    return lambda: phases.step([[batch]], adversarial=True)


if __name__ == "__main__":
    main()
