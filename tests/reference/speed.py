"""How long a training step takes beside the plain loop's, same nets, same batch: `python -m tests.reference.speed`.

Paper-size MelGAN and discriminators. The two take turns, and what is compared is the ratio within each pair, since
the machine's pace changes from minute to minute. Never run by pytest: a test that times is a test that fails.
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
from tests.reference.melgan import Discriminator, Generator, plain_train_step


def main() -> None:
    """Print the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    spec = MelSpec.preset("melgan_neurips")
    generator, discriminator = Generator(), Discriminator()
    optimizer_g = torch.optim.Adam(generator.parameters(), lr=1e-4, betas=(0.5, 0.9))
    optimizer_d = torch.optim.Adam(discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))
    planned = plan(load_recipe("melgan_ljspeech"))
    phases = Phases(planned.task, Accelerator(cpu=True), planned.optimizers)
    audio = 0.1 * torch.randn(args.batch, 8192)
    batch = {"audio": audio, "position": torch.arange(args.batch)}
    ratios = []
    for pair in range(args.pairs + 1):
        begun = time.perf_counter()
        plain_train_step(generator, discriminator, optimizer_g, optimizer_d, spec.mel(audio), audio)
        between = time.perf_counter()
        phases.step([[batch]], adversarial=True)
        ours, theirs = time.perf_counter() - between, between - begun
        if pair:  # the first warms up
            ratios.append(theirs / ours)
            print(f"plain {theirs:.2f} s, gansound {ours:.2f} s, ratio {theirs / ours:.3f}", flush=True)
    print(
        f"median of {len(ratios)} paired ratios: {statistics.median(ratios):.3f} times as fast as the plain loop"
    )


if __name__ == "__main__":
    main()
