"""Other projects' checkpoints as model folders, one file a project.

Each says by the names of the weights whether they are its own, reads its project's configuration, and maps their names
to ours. What was read is compared with what is built, tensor by tensor: the first that doesn't fit is named, and then
nothing is written.
"""

import importlib
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansound.discriminators import multi_period, multi_resolution, multi_scale
from gansound.importers.checkpoint import (
    DESCRIPTIONS,
    STATISTICS,
    WEIGHTS,
    Checkpoint,
    ImportFailed,
    read_checkpoint,
)
from gansound.importers.project import Described, Project
from gansound.importers.unsupported import another, makes_more
from gansound.mel import MelSpec
from gansound.model_folder import REPOSITORY, download, save_model_folder
from gansound.nn.conv import older_name
from gansound.nn.fold import fold_parametrizations
from gansound.nn.generator import StreamingGenerator
from gansound.recipe import RecipeError, build
from gansound.recipe.budget import budget

log = logging.getLogger(__name__)

_CONSTANT_BYTES = 2**23  # filters, windows and noise, which no file holds

KINDS = (
    "coqui",
    "nemo",
    "hift",
    "nsf_hifigan",
    "xtts",
    "hifigan",
    "index_tts",
    "bigvgan",
    "vocos",
    "transformers",
    "parallel_wavegan",
    "melgan",
    "vits",
    "dac",
)
_SOURCED = ("hift", "nsf_hifigan", "vits")  # that hear a source of sines


def import_checkpoint(
    paths: Sequence[Path],
    out: Path,
    kind: str | None = None,
    licence: str | None = None,
    speaker: str | None = None,
    voice: Path | None = None,
) -> Described:
    """Write a model folder of another project's checkpoint.

    Args:
        paths: the checkpoint, and what describes it where that doesn't lie beside it; or a folder of both, which may be
            a Hugging Face repository, `owner/name`, or one file of it with what describes it, `owner/name/file`.
        out: the model folder.
        kind: one of `KINDS`; None finds it by the names of the weights.
        licence: of the weights, as far as you know; written down.
        speaker: whose voice, by name or number, where the checkpoint, or the file of `voice`, has several.
        voice: a file of the embedding that the net is to speak with (.npy, .pt, .pth, .safetensors), of as many numbers
            as it was made for, whatever its other axes; or of several, by their speakers' names.

    Raises:
        ImportFailed: (a ValueError) a checkpoint of no known kind, damaged, without its configuration, or of other
            shapes than that says; nothing is written.
        ModelFolderError: (a ValueError) a repository can't be fetched.
    """
    voice = None if voice is None else _fetched(voice)
    checkpoint = replace(read_checkpoint([_fetched(path) for path in paths], voice), speaker=speaker)
    name = kind or kind_of(checkpoint)
    try:
        described = project(name).describe(checkpoint)
    except ImportFailed:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ImportFailed(f"{checkpoint.path}: its configuration can't be used: {error}") from error
    if described.speaker is None and (speaker is not None or voice is not None):
        got = f"speaker {speaker!r}" if voice is None else f"an embedding ({voice})"
        raise ImportFailed(f"{checkpoint.path}: has one voice only, got {got}, expected none named")
    generator = _built(checkpoint, described)
    judges = _discriminators(checkpoint)
    info: dict[str, Any] = {
        "origin": f"{project(name).TITLE}: {checkpoint.path.name}",
        "licence": licence or "unknown: that of the weights' authors",
    }
    if described.speaker is not None:
        info["speaker"] = described.speaker
    save_model_folder(
        out,
        generator,
        described.takes,
        config={"class_path": described.class_path, "init_args": described.init_args},
        info=info | ({"notes": described.notes} if described.notes else {}),
        discriminators=judges or None,
    )
    return described


def on_hub(path: Path) -> bool:
    """Whether a path names a repository of the Hugging Face Hub, or a file of one: it isn't here, nor its folder."""
    repository = re.fullmatch(rf"{REPOSITORY}(/.+)?", path.as_posix())
    a_file = len(path.parts) == 2 and path.suffix in (*WEIGHTS[:-1], *DESCRIPTIONS, *STATISTICS)
    return repository is not None and not a_file and not path.exists() and not Path(path.parts[0]).exists()


def _fetched(path: Path) -> Path:
    """A path of this machine: the one given, or where a repository of the Hub was brought to."""
    if not on_hub(path):
        return path
    owner, name, *file = path.parts
    weights = ["/".join(file)] if file else [f"*{suffix}" for suffix in WEIGHTS[:-1]]
    beside = [f"*{suffix}" for suffix in (*DESCRIPTIONS, *STATISTICS)]
    return download(f"{owner}/{name}", weights + beside).joinpath(*file)


def project(kind: str) -> Project:
    """The importer of a kind; ValueError for none of `KINDS`."""
    if kind not in KINDS:
        raise ValueError(f"got {kind!r}, expected one of {', '.join(KINDS)}")
    module: Any = importlib.import_module(f"gansound.importers.{kind}")
    return module  # type: ignore[no-any-return]


def kind_of(checkpoint: Checkpoint) -> str:
    """The kind whose names the weights have. Raises ImportFailed."""
    kind = next((kind for kind in KINDS if project(kind).recognises(checkpoint)), None)
    if what := makes_more(checkpoint.weights, sourced=kind in _SOURCED):
        raise ImportFailed(f"{checkpoint.path}: can't be imported: it is {what}")
    if kind is not None:
        return kind
    if isinstance(ours := checkpoint.config.get("generator"), Mapping) and "class_path" in ours:
        raise ImportFailed(
            f"{checkpoint.path.parent}: is a model folder of gansound already: --model takes it"
        )
    if what := another(checkpoint.weights):
        raise ImportFailed(
            f"{checkpoint.path}: can't be imported: it is {what}. Expected one of {', '.join(KINDS)}"
        )
    raise ImportFailed(
        f"{checkpoint.path}: weights of no kind that is known ({', '.join(KINDS)}); they begin with "
        f"{', '.join(list(checkpoint.weights)[:3])}"
    )


def _built(checkpoint: Checkpoint, described: Described) -> StreamingGenerator:
    """The generator with the checkpoint's weights."""
    weights = checkpoint.weights if described.weights is None else described.weights
    try:
        generator = _drawn(described, weights)
    except RecipeError as error:
        _name_what_is_unlike(checkpoint, described, weights)
        raise ImportFailed(f"{checkpoint.path}: its configuration makes no such net: {error}") from error
    keys = described.keys(generator)
    generator.load_state_dict(_fitting(checkpoint, weights, keys, generator))
    used = set(keys.values())
    rest = [
        name for name in weights if name not in used and not any(part in name for part in described.constants)
    ]
    if rest:
        more = f" and {len(rest) - 1} more" if len(rest) > 1 else ""
        raise ImportFailed(
            f"{checkpoint.path}: holds {rest[0]}{more}, which its configuration doesn't ask for. Is it that of these "
            "weights?"
        )
    if generator.hop_length != described.takes.hop_length:
        raise ImportFailed(
            f"{checkpoint.path}: upsamples by {generator.hop_length}, but its frames have a hop of "
            f"{described.takes.hop_length}. Is the configuration that of these weights?"
        )
    return generator


def _drawn(described: Described, weights: Mapping[str, Tensor], leeway: int = 1) -> StreamingGenerator:
    """The generator with weights of its own, of hardly more bytes than the file's, or `leeway` times as many."""
    elements = sum(tensor.numel() for tensor in weights.values())
    with (
        torch.random.fork_rng(devices=[]),
        budget(leeway * (12 * elements + _CONSTANT_BYTES), 8 * len(weights) + 64, "the file holds fewer"),
    ):
        generator = build(
            {"class_path": described.class_path, "init_args": described.init_args},
            StreamingGenerator,
            "generator",
            context={"mel": described.takes} if isinstance(described.takes, MelSpec) else {},
            roots=("gansound.generators",),
        )
    return fold_parametrizations(generator.float().eval())


def _name_what_is_unlike(checkpoint: Checkpoint, described: Described, weights: Mapping[str, Tensor]) -> None:
    """Of a net too large for its file, a published one's larger sister as a rule, the first shape that differs.

    It is built of shapes alone. Raises ImportFailed; returns where that is no way to build it, either.
    """
    try:
        with torch.device("meta"):
            generator = _drawn(described, weights, leeway=100)
        keys = described.keys(generator)
    except (RecipeError, RuntimeError, NotImplementedError):  # what meta tensors can't do
        return
    _fitting(checkpoint, weights, keys, generator)


def _fitting(
    checkpoint: Checkpoint,
    weights: Mapping[str, Tensor],
    keys: Mapping[str, str],
    generator: StreamingGenerator,
) -> dict[str, Tensor]:
    """The weights as the generator's state. Raises ImportFailed for the first that doesn't fit."""
    state = {}
    for ours, expected in generator.state_dict().items():
        theirs = keys[ours]
        if theirs not in weights:
            raise ImportFailed(f"{checkpoint.path}: has no {theirs}, which its configuration asks for")
        found = weights[theirs]
        if _sides(found) != _sides(expected):
            raise ImportFailed(
                f"{checkpoint.path}: {theirs} has shape {tuple(found.shape)}, expected {tuple(expected.shape)} by its "
                "configuration. Is the configuration that of these weights?"
            )
        state[ours] = found.reshape(expected.shape)
    return state


def _sides(tensor: Tensor) -> list[int]:
    """Its shape but for sides of one: an image of height one is a row."""
    return [side for side in tensor.shape if side > 1]


_JUDGES: Mapping[str, tuple[Any, Any]] = {
    "mpd": (multi_period.MultiPeriodDiscriminator, multi_period.hifigan_keys),
    "msd": (multi_scale.HiFiGANMultiScaleDiscriminator, multi_scale.hifigan_keys),
    "mrd": (multi_resolution.MultiResolutionDiscriminator, multi_resolution.bigvgan_keys),
}


def _discriminators(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """HiFi-GAN's and BigVGAN's, named as in the recipes `hifigan_v1_ljspeech` and `bigvgan_24khz`.

    One that doesn't fit is left out, with a warning, as that of BigVGAN 2 on constant-Q transforms, saved as `mrd` too.
    """
    state: dict[str, Tensor] = {}
    for name, theirs in checkpoint.judges.items():
        make, keys_of = _JUDGES[name]
        with torch.random.fork_rng(devices=[]):
            network = make()
        keys = keys_of(network)
        expected = network.state_dict()
        theirs = {older_name(key.removeprefix("module.")): value for key, value in theirs.items()}
        unfit = [k for k, t in keys.items() if t not in theirs or theirs[t].shape != expected[k].shape]
        if unfit:
            log.warning(
                "%s: discriminator %s isn't %s (%s) and is left out",
                checkpoint.path,
                name,
                "BigVGAN's first" if name == "mrd" else "HiFi-GAN's",
                unfit[0],
            )
            continue
        state |= {f"{name}.{ours}": theirs[their] for ours, their in keys.items()}
    return state
