"""How fast vocoders that people bring run here beside their own code: `python -m tests.reference.vocoder_speed`.

HiFi-GAN V1 and V3 and MelGAN with random weights, weight norm folded on both sides, one thread, in one process. They
take turns, and what is compared is the ratio within each round: the machine's pace changes from minute to minute.
Counted is the process's own time, for a machine that others use too. Never run by pytest.

`--hifi-gan DIR --melgan-neurips DIR`, checkouts of jik876's and descriptinc's repositories, time the projects' own
files in place of the tests' nets, which are written as they are. `--chunks 32 128` also times eager PyTorch in steps
of so many frames, and `--chunks 0` the plain net in one go. `--new-lengths 40` times utterances of ever new lengths.
"""

import argparse
import importlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from gansound.generators.hifigan import V3, HiFiGANGenerator, hifigan_keys
from gansound.generators.melgan import MelGANGenerator, melgan_neurips_keys
from gansound.inference.backends import make_runner, missing
from gansound.inference.backends.eager import EagerRunner
from gansound.inference.backends.runner import Runner
from gansound.nn.fold import fold_parametrizations
from tests.reference import hifigan, melgan

Run = Callable[[torch.Tensor], torch.Tensor]
FRAMES_A_SECOND = 22050 / 256
NEW_LENGTHS = range(30, 451)  # frames of what is said by turns


def theirs_and_ours(net: str, checkout: Path | None) -> tuple[nn.Module, nn.Module]:
    """The same net twice: as its project's code runs it, or that code itself, and ours."""
    torch.manual_seed(0)
    if net == "melgan":
        theirs, ours, keys = melgan.Generator(), MelGANGenerator(), melgan_neurips_keys
    elif net == "v1":
        theirs, ours, keys = hifigan.Generator(), HiFiGANGenerator(), hifigan_keys
    else:
        sizes = dict(
            zip(("width", "rates", "kernels", "block_kernels", "block_dilations"), V3.values(), strict=False)
        )
        theirs = hifigan.Generator(**sizes, block=hifigan.ResBlock2)
        ours, keys = HiFiGANGenerator(**V3), hifigan_keys
    melgan.bring_over(theirs, ours, keys(ours))
    plain = folded(theirs) if checkout is None else own(net, checkout, theirs.state_dict())
    return plain.eval(), fold_parametrizations(ours).eval()


def own(net: str, checkout: Path, weights: dict[str, torch.Tensor]) -> nn.Module:
    """The generator of a checkout of its project, weight norm removed."""
    sys.path.insert(0, str(checkout))
    if net == "melgan":
        generator = importlib.import_module("mel2wav.modules").Generator(80, 32, 3)
    else:
        config = json.loads((checkout / f"config_{net}.json").read_text(encoding="utf-8"))
        generator = importlib.import_module("models").Generator(SimpleNamespace(**config))
    sys.path.remove(str(checkout))
    generator.load_state_dict(weights)
    for module in generator.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return generator


def folded(module: nn.Module) -> nn.Module:
    """Weight norm removed, as `remove_weight_norm` of those projects does."""
    for name, child in list(module.named_children()):
        if not isinstance(child, melgan.WNConv):
            folded(child)
            continue
        kind = nn.ConvTranspose1d if child.transposed else nn.Conv1d
        shape = child.weight_v.shape
        ins, outs = shape[:2] if child.transposed else (shape[1] * child.settings["groups"], shape[0])
        conv = kind(ins, outs, shape[2], **child.settings)
        norm = child.weight_v.pow(2).sum((1, 2), keepdim=True).sqrt()
        conv.weight.data, conv.bias.data = (child.weight_v * child.weight_g / norm).data, child.bias.data
        setattr(module, name, conv)
    return module


class Chunked(EagerRunner):
    """In steps of so many frames, however short the utterance."""

    def __init__(self, generator: nn.Module, frames: int) -> None:
        super().__init__(generator)
        self.offline_frames = frames

    pieces = Runner.pieces


def contestants(
    net: str, checkout: Path | None, paths: list[str], chunks: list[int], windows: list[int]
) -> dict[str, Run]:
    theirs, ours = theirs_and_ours(net, checkout)
    runs: dict[str, Run] = {"their code": lambda mel: theirs(mel).flatten(1)}
    for path in paths:
        backend, _, precision = path.partition("-")
        if missing(backend):
            print(f"{path}: not installed")
            continue
        runs[path] = make_runner(ours, backend, precision or "fp32", purpose="whole").synthesize
    for frames in chunks:
        runs[f"eager in {frames or 'one'}"] = Chunked(ours, frames).synthesize if frames else ours
    for frames in windows:
        runs[f"plain net in {frames}"] = in_windows(ours, frames).synthesize
    return runs


def in_windows(generator: nn.Module, frames: int) -> EagerRunner:
    """The plain net in windows of so many frames."""
    runner = EagerRunner(generator)
    runner.offline_frames = frames
    return runner


def main() -> None:
    """Print medians of the paired ratios, and how far each lies from their own code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nets", nargs="+", choices=("v1", "v3", "melgan"), default=["v1", "v3", "melgan"])
    parser.add_argument("--seconds", nargs="+", type=float, default=[0.5, 2.5, 10.0, 60.0])
    parser.add_argument(
        "--paths", nargs="*", default=["eager", "onnxruntime", "openvino", "eager-bf16", "openvino-bf16"]
    )
    parser.add_argument("--chunks", nargs="*", type=int, default=[], help="of eager, in frames")
    parser.add_argument("--windows", nargs="*", type=int, default=[], help="of the plain net, in frames")
    parser.add_argument("--hifi-gan", type=Path, help="a checkout of jik876/hifi-gan")
    parser.add_argument("--melgan-neurips", type=Path, help="a checkout of descriptinc/melgan-neurips")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument(
        "--new-lengths",
        type=int,
        default=0,
        metavar="N",
        help="instead so many utterances of 0.3 to 5 s, each of another length, once; all of a path, then the next",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    for net in args.nets:
        checkout = args.melgan_neurips if net == "melgan" else args.hifi_gan
        runs = contestants(net, checkout, args.paths, args.chunks, args.windows)
        if args.new_lengths:
            print(f"{net}: {new_lengths(runs, args.new_lengths)}", flush=True)
            continue
        for seconds in args.seconds:
            mel = torch.randn(1, 80, round(seconds * FRAMES_A_SECOND)) - 4
            print(f"{net}, {seconds:g} s: {one_line(runs, mel, args.rounds)}", flush=True)


def new_lengths(runs: dict[str, Run], count: int) -> str:
    """Real time of each path over utterances whose lengths are new to it, as those that people say are."""
    frames = random.Random(0).sample(NEW_LENGTHS, count)
    parts = []
    with torch.no_grad():
        for name, run in runs.items():
            run(torch.randn(1, 80, NEW_LENGTHS.start - 1) - 4)
            begun = time.process_time()
            for n in frames:
                run(torch.randn(1, 80, n) - 4)
            parts.append(f"{name} {sum(frames) / FRAMES_A_SECOND / (time.process_time() - begun):.2f}")
    return f"{sum(frames) / FRAMES_A_SECOND:.0f} s of sound, times real time: {', '.join(parts)}"


def one_line(runs: dict[str, Run], mel: torch.Tensor, rounds: int) -> str:
    took: dict[str, list[float]] = {name: [] for name in runs}
    with torch.no_grad():
        expected = runs["their code"](mel)
        apart = {name: float((run(mel) - expected).abs().max()) for name, run in runs.items()}  # and warms
        for _ in range(rounds):
            for name, run in runs.items():
                begun = time.process_time()
                run(mel)
                took[name].append(time.process_time() - begun)
    parts = [f"their code {1000 * statistics.median(took['their code']):.0f} ms"]
    for name in list(runs)[1:]:
        ratio = statistics.median(a / b for a, b in zip(took["their code"], took[name], strict=True))
        parts.append(f"{name} {ratio:.2f} x ({apart[name]:.0e})")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
