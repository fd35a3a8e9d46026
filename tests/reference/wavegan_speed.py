"""How long a WaveGAN step takes beside the plain loop's: `python -m tests.reference.wavegan_speed`.

Equal nets, equal batch; five critic updates and one of the generator. The two take turns, and what is compared is the
ratio within each pair, since the machine's pace changes from minute to minute.
Never run by pytest: a test that times is a test that fails.
"""

import argparse
import statistics
import time

import torch
from accelerate import Accelerator

from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.recipe import load_recipe
from tests.reference.wavegan import Discriminator, Generator, plain_train_step


def main() -> None:
    """Print the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--samples", type=int, default=16384, choices=[8192, 16384, 32768, 65536])
    parser.add_argument("--bf16", action="store_true", help="ours under autocast")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the process's own seconds: a shared machine"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    clock = time.process_time if args.cpu_time else time.perf_counter

    generator = Generator(args.samples, d=args.dim)
    discriminator = Discriminator(args.samples, d=args.dim)
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.5, 0.9))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))

    size = {"dim": args.dim, "clip_samples": args.samples}
    recipe = {
        "generator.init_args": size,
        "discriminators.wave.network.init_args": size,
        "data.segment_samples": args.samples,
        "data.path": "unused",
    }
    planned = plan(load_recipe("wavegan_sc09", recipe))
    phases = Phases(
        planned.task, Accelerator(cpu=True), planned.optimizers, precision="bf16" if args.bf16 else "fp32"
    )

    reals = [0.1 * torch.randn(args.batch, 1, args.samples) for _ in range(5)]
    rounds = [
        [{"audio": audio, "position": torch.arange(args.batch) + args.batch * i}]
        for i, audio in enumerate(reals)
    ]
    ratios = []
    for pair in range(args.pairs + 1):
        begun = clock()
        plain_train_step(generator, discriminator, optimizer_g, optimizer_d, reals)
        between = clock()
        phases.step(rounds, adversarial=True, step=pair)
        ours, theirs = clock() - between, between - begun
        if pair:  # the first warms up
            ratios.append(theirs / ours)
            print(f"plain {theirs:.2f} s, gansound {ours:.2f} s, ratio {theirs / ours:.3f}", flush=True)
    print(
        f"median of {len(ratios)} paired ratios: {statistics.median(ratios):.3f} times as fast as the plain loop"
    )


if __name__ == "__main__":
    main()
