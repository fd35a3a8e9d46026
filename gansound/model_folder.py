"""The model folder: what inference loads, and what travels between people.

    config.json         {"format": 1, "generator": {class_path, init_args}, "mel": {...}, "info": {...}}
                        (one that takes the latents of an acoustic model has "latent": {...} instead of a mel, one that
                        takes a pitch beside either "pitched": {"mel": {...}}, the decoder of a codec "code": {...}, and
                        a generator of clips none of them)
    model.safetensors   the generator's state dict, weight norm folded, float32 or float16
    discriminators.safetensors
                        where it comes from a training: what to fine-tune it with; inference doesn't look at it

Nothing in it is pickled, and since a folder may be a stranger's, only classes of `gansound.generators` and
`gansound.nn` are built from it unless the caller names more. It is written beside and then renamed, so it is the old
one or the new one.
"""

import copy
import json
import logging
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gansound.frames import SPECS, FrameSpec, PitchedSpec
from gansound.mel import MelSpec
from gansound.mel.files import lfs_pointer
from gansound.nn.fold import fold_parametrizations, load_folded
from gansound.recipe import RecipeError, build, parameters
from gansound.recipe.budget import budget

log = logging.getLogger(__name__)

CONFIG, WEIGHTS, DISCRIMINATORS = "config.json", "model.safetensors", "discriminators.safetensors"
FORMAT = 1
ROOTS = ("gansound.generators", "gansound.nn")
_IMPORT = "Another project's checkpoint is made one with: gansound import"
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_INTEGERS = (torch.int64, torch.int32)  # counters of normalizations
_UNFOLDED = 3
_SLACK_BYTES, _SLACK_TENSORS = 1 << 28, 1000  # filters and windows that a file needn't hold
_MOST_CONFIG_BYTES = 1 << 24
REPOSITORY = r"\w[\w.-]*/\w[\w.-]*"  # the name of one of the Hugging Face Hub
SHIPPED = Path(__file__).parent / "models"


class ModelFolderError(ValueError):
    """A model folder can't be written or read: "PATH: reason. What to do"."""


@dataclass(frozen=True)
class LoadedModel:
    """A generator in eval mode and float32 on the CPU, with what a vocoder understands.

    Attributes:
        takes: the convention of its mels, or the latents it takes; None where it takes neither.
    """

    generator: nn.Module
    takes: FrameSpec | None
    info: dict[str, Any]
    path: Path
    config: dict[str, Any]

    @property
    def frame_spec(self) -> FrameSpec:
        """Of a vocoder, whether mels or latents. Raises ModelFolderError when the model is none."""
        if self.takes is None:
            raise ModelFolderError(
                f"{self.path}: is a generator of clips, expected a vocoder. Its sounds are made by: gansound generate "
                f"--model {shlex.quote(str(self.path))} (in Python gansound.ClipGenerator)"
            )
        return self.takes

    @property
    def mel(self) -> MelSpec:
        """Raises ModelFolderError when the model takes no mels."""
        if isinstance(spec := self.frame_spec, MelSpec):
            return spec
        if isinstance(spec, PitchedSpec) and isinstance(spec.frames, MelSpec):
            raise ModelFolderError(
                f"{self.path}: takes {spec.in_words()}, expected a vocoder that takes mels alone: nothing gives it a "
                "pitch here"
            )
        raise ModelFolderError(
            f"{self.path}: takes {spec.in_words()}, expected a vocoder that takes mels: such frames can't be had here "
            "from a recording or from a mel"
        )


def save_model_folder(
    path: str | Path,
    generator: nn.Module,
    mel: FrameSpec | None,
    *,
    config: Mapping[str, Any],
    info: Mapping[str, Any] | None = None,
    half: bool = False,
    discriminators: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a generator as a model folder; the generator itself is left as it is.

    What was written is read back and compared before it takes its place. A model folder already there is replaced,
    its other files (a README, say) carried over; any other folder is left alone.

    Args:
        path: the folder.
        generator: its weight norm (any parametrization) is folded in the copy that is written.
        mel: the convention of the mels it takes, or the latents that it takes instead; None when it takes neither.
        config: `{class_path, init_args}` that builds it; a parameter named `mel` may be left out.
        info: licence, provenance, steps, figures: anything JSON holds.
        half: store float16 (except weights beyond its range).
        discriminators: their state dict, to fine-tune with.

    Raises:
        ModelFolderError: weights that aren't finite, a config that builds another net, a mel of other bands or hop,
            info that JSON can't hold, or a path that holds something else.
        OSError: a full disk, no permission; nothing half-written stays.
    """
    path = Path(path).expanduser().resolve()
    arguments = _defaults(type(generator)) | dict(config.get("init_args") or {})
    node = {"class_path": config.get("class_path"), "init_args": arguments}
    _check_shape_law(generator, mel, path)
    if path.exists() and not _is_model_folder(path) and (not path.is_dir() or any(path.iterdir())):
        raise ModelFolderError(f"{path}: something that isn't a model folder is there. Choose another path")
    state = _storable(fold_parametrizations(copy.deepcopy(generator).eval()).state_dict(), half, path)
    try:
        described = {"format": FORMAT, "generator": node}
        if mel is not None:
            described[mel.kind] = mel.to_dict()
        described["info"] = dict(info or {})
        text = json.dumps(described, indent=2, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ModelFolderError(
            f"{path}: JSON can't hold the config or info: {error}. Use numbers, text, lists"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, old = _beside(path)
    if old.is_dir() and not path.exists():  # a save was killed between its two renames
        old.rename(path)
    elif old.is_dir():  # or behind them
        _carry_over(old, path)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        _write(temporary / WEIGHTS, safetensors.torch.save(state, metadata={"format": "pt"}))
        _write(temporary / CONFIG, (text + "\n").encode())
        if discriminators:
            judges = {
                name: tensor.detach().cpu().contiguous().clone() for name, tensor in discriminators.items()
            }
            _write(temporary / DISCRIMINATORS, safetensors.torch.save(judges, metadata={"format": "pt"}))
        _read_back(temporary, state, node, path)
        _swap(temporary, path, old)
    except OSError as error:
        if error.errno is None:
            raise
        # That of a write doesn't say where, others name the folder beside, which nobody asked for.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def load_model_folder(name_or_path: str | Path, *, allow: Sequence[str] = ()) -> LoadedModel:
    """Load a model: a shipped name (`default`), a folder, or a Hugging Face repository id.

    Args:
        name_or_path: a model folder wins over a shipped name, and that over a repository id (`owner/name`).
        allow: packages besides `gansound.generators` and `gansound.nn` whose classes the folder may name.

    Raises:
        ModelFolderError: not found, not readable, weights that don't fit, or a class that is refused.
    """
    path = _locate(str(name_or_path))
    described = _read_config(path)
    takes = _takes(described, path)
    state = _weights(path / WEIGHTS, "Fetch or save it again")
    # What is built is bounded by what the file holds: folded, a weight is one tensor, and unfolded two or three.
    elements = sum(tensor.numel() for tensor in state.values())
    held = budget(
        4 * _UNFOLDED * elements + _SLACK_BYTES,
        _UNFOLDED * len(state) + _SLACK_TENSORS,
        f"{WEIGHTS} holds fewer",
    )
    # Building draws initial weights: neither they nor a default device may reach the caller's training.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"), held:
        try:
            generator = build(
                described["generator"],
                nn.Module,
                "generator",
                context={"mel": takes} if isinstance(takes, MelSpec) else {},
                allow=allow,
                roots=ROOTS,
            )
        except RecipeError as error:
            raise ModelFolderError(f"{path / CONFIG}: {error}") from error
    generator = fold_parametrizations(generator.float().eval())
    _check_shape_law(generator, takes, path / CONFIG)
    _load_state(generator, state, path / WEIGHTS)
    return LoadedModel(generator, takes, described["info"], path, described["generator"])


def model_info(name_or_path: str | Path) -> dict[str, Any]:
    """What a model says of itself (licence, origin, steps …), its weights unread.

    Raises:
        ModelFolderError: not found, or its configuration isn't readable.
    """
    info: dict[str, Any] = _read_config(_locate(str(name_or_path)))["info"]
    return info


def model_spec(name_or_path: str | Path) -> FrameSpec | None:
    """What a model takes, mels or latents or neither, its weights unread.

    Raises:
        ModelFolderError: not found, or its configuration isn't readable.
    """
    path = _locate(str(name_or_path))
    return _takes(_read_config(path), path)


def load_discriminators(name_or_path: str | Path) -> dict[str, Tensor] | None:
    """The state dict of the discriminators that a model was trained with, or None where it came without.

    Raises:
        ModelFolderError: no such model, or a file that can't be read.
    """
    path = _locate(str(name_or_path), [DISCRIMINATORS])
    if not (path / DISCRIMINATORS).is_file():
        return None
    return _weights(path / DISCRIMINATORS, "Fetch it again, or move it away to start with new discriminators")


def _weights(path: Path, advice: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file: floating-point numbers in float32, and whole numbers as they are."""
    try:
        if not path.is_file():  # a link of the Hub's cache to a file is one
            raise OSError("no regular file")
        if said := lfs_pointer(path):
            raise OSError(said)
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ModelFolderError(f"{path}: can't be read as safetensors: {error}. {advice}") from error
    for name, tensor in state.items():
        if tensor.dtype not in (*_FLOATS, *_INTEGERS):
            raise ModelFolderError(
                f"{path}: {name} is {tensor.dtype}, expected real numbers of 16, 32 or 64 bits. {advice}"
            )
    return {name: tensor.float() if tensor.dtype in _FLOATS else tensor for name, tensor in state.items()}


def _locate(name: str, files: Sequence[str] = (CONFIG, WEIGHTS)) -> Path:
    path = Path(name).expanduser()
    shipped_one = SHIPPED / name if re.fullmatch(r"[\w-]+", name) and (SHIPPED / name).is_dir() else None
    # A folder of sounds may well be called drums: it doesn't hide the model of that name.
    if path.is_dir() and (_is_model_folder(path) or shipped_one is None):
        return path.resolve()
    if path.is_file():
        raise ModelFolderError(f"{path}: is a file, expected a folder with {CONFIG} and {WEIGHTS}. {_IMPORT}")
    if path.name and (old := _beside(path)[1]).is_dir():  # a save was killed between its two renames
        log.warning("%s: taking %s, which an interrupted save left", path, old.name)
        return old.resolve()
    if shipped_one is not None:
        return shipped_one
    if re.fullmatch(REPOSITORY, name) and not path.parent.exists():
        return download(name, files)
    shipped = sorted(p.name for p in SHIPPED.glob("*/") if _is_model_folder(p))
    raise ModelFolderError(
        f"{name}: no such model folder, and no shipped model of that name "
        f"(shipped: {', '.join(shipped) or 'none'})"
    )


def download(repository: str, files: Sequence[str]) -> Path:
    """The folder to which those files of a Hugging Face repository, by name or pattern, are fetched.

    Raises:
        ModelFolderError: (a ValueError) there is no such repository, or it can't be reached.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, allow_patterns=list(files)))
    except Exception as error:  # its HTTP library's own errors are no OSError
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise ModelFolderError(
            f"{repository}: no folder of that name here, and it can't be fetched from the Hugging "
            f"Face Hub: {reason}. Check the name and the network, or give a local folder"
        ) from error


def _is_model_folder(path: Path) -> bool:
    return (path / CONFIG).is_file() and (path / WEIGHTS).is_file()


def _takes(described: Mapping[str, Any], path: Path) -> FrameSpec | None:
    try:
        return next((SPECS[kind].from_dict(described[kind]) for kind in SPECS if kind in described), None)
    except (ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise ModelFolderError(f"{path / CONFIG}: {error}") from error


def _read_config(path: Path) -> dict[str, Any]:
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            if _is_model_folder(path / "model"):
                raise ModelFolderError(
                    f"{path}: is a run's folder, its model lies in {path / 'model'}. Give that one"
                )
            if (path / "recipe.yaml").is_file():
                raise ModelFolderError(
                    f"{path}: is the folder of a run that has written no model yet. A model comes with each "
                    "checkpoint; train on with: gansound train"
                )
            raise ModelFolderError(
                f"{path}: has no {name}. A model folder holds {CONFIG} and {WEIGHTS}. {_IMPORT}"
            )
    where = path / CONFIG
    try:
        if (size := where.stat().st_size) > _MOST_CONFIG_BYTES:
            raise ModelFolderError(f"{where}: has {size:,} bytes, expected at most {_MOST_CONFIG_BYTES:,}")
        described = json.loads(where.read_text(encoding="utf-8"))
    except ModelFolderError:
        raise
    except (ValueError, RecursionError) as error:
        raise ModelFolderError(f"{where}: isn't JSON: {error}") from error
    if not isinstance(described, dict) or "format" not in described:
        raise ModelFolderError(f"{where}: isn't a gansound model's config (no \"format\"). {_IMPORT}")
    if described["format"] != FORMAT:
        raise ModelFolderError(
            f"{where}: got format {described['format']!r}, expected {FORMAT}. Upgrade gansound"
        )
    for key in ("generator", *SPECS, "info"):
        if not isinstance(described.get(key, None if key == "generator" else {}), dict):
            raise ModelFolderError(f"{where}: got {key} {described.get(key)!r}, expected an object")
    if len(both := [kind for kind in SPECS if kind in described]) > 1:
        raise ModelFolderError(f"{where}: says both a {' and a '.join(both)}, expected the one that it takes")
    described.setdefault("info", {})
    return described


def _defaults(cls: type) -> dict[str, Any]:
    """The constructor's plain defaults: written down, since a later version may choose others."""
    plain = (bool, int, float, str, tuple, list)
    return {name: p.default for name, p in parameters(cls).items() if isinstance(p.default, plain)}


def _check_shape_law(generator: nn.Module, takes: FrameSpec | None, path: Path) -> None:
    if takes is None:
        if hasattr(generator, "hop_length"):
            raise ModelFolderError(
                f"{path}: has no mel, expected the convention of the mels its vocoder takes"
            )
        return
    for name in ("n_mels", "hop_length"):
        mine, theirs = getattr(generator, name, None), getattr(takes, name)
        if mine is not None and mine != theirs:
            raise ModelFolderError(
                f"{path}: the generator has {name} {mine}, its {takes.kind} {theirs}. They must be equal"
            )


def _storable(folded: Mapping[str, Tensor], half: bool, path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for name, tensor in folded.items():
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.float()
            if not bool(torch.isfinite(tensor).all()):
                raise ModelFolderError(
                    f"{path}: {name} holds NaN or infinity, so nothing was saved. Training diverged"
                )
            if half and float(tensor.abs().max() if tensor.numel() else 0) <= torch.finfo(torch.float16).max:
                tensor = tensor.half()
        state[name] = tensor.contiguous().clone()
    return state


def take_weights(learner: nn.Module, trained: nn.Module) -> None:
    """Give a net that is to learn on, weight norm and all, the weights of one from a model folder.

    Raises:
        ModelFolderError: they aren't the same net.
    """
    state = trained.state_dict()
    if unfit := misfit(state, fold_parametrizations(copy.deepcopy(learner).eval()).state_dict()):
        raise ModelFolderError(f"the weights don't fit the recipe's {type(learner).__name__}: {unfit}")
    load_folded(learner, state)


def misfit(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """How a state dict differs from one that would fit, by its first few names; None where it fits."""
    wrong = [f"{k} is missing" for k in expected if k not in state]
    wrong += [f"{k} is unknown" for k in state if k not in expected]
    wrong += [
        f"{k} has shape {tuple(v.shape)}, expected {tuple(expected[k].shape)}"
        for k, v in state.items()
        if k in expected and v.shape != expected[k].shape
    ]
    wrong += [
        f"{k} is {v.dtype}, expected {expected[k].dtype}"
        for k, v in state.items()
        if k in expected and v.is_floating_point() != expected[k].is_floating_point()
    ]
    wrong += [f"{k} holds NaN or infinity" for k, v in state.items() if not bool(torch.isfinite(v).all())]
    if not wrong:
        return None
    return "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")


def _load_state(generator: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    if unfit := misfit(state, generator.state_dict()):
        raise ModelFolderError(
            f"{path}: the weights don't fit {type(generator).__name__} of {CONFIG}: {unfit}"
        )
    generator.load_state_dict(dict(state))


def _read_back(folder: Path, state: Mapping[str, Tensor], node: Mapping[str, Any], path: Path) -> None:
    # Whoever saves a class trusts it; only the loader of a stranger's folder must name its package.
    allow = sorted({c.rpartition(".")[0] for c in _class_paths(node)})
    try:
        loaded = load_model_folder(folder, allow=allow).generator.state_dict()
    except ModelFolderError as error:
        raise ModelFolderError(f"{path}: not saved, for it wouldn't load again: {error}") from error
    for name, tensor in state.items():
        if not torch.equal(loaded[name], tensor.to(loaded[name].dtype)):
            raise ModelFolderError(f"{path}: not saved, for {name} was read back changed. Is the disk sound?")


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _class_paths(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("class_path"), str):
            yield node["class_path"]
        for value in node.values():
            yield from _class_paths(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _class_paths(value)


def _beside(path: Path) -> tuple[Path, Path]:
    """Where a save builds the new folder, and where it puts the old one for a moment."""
    return path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.replaced")


def _swap(temporary: Path, path: Path, old: Path) -> None:
    """Put the new folder in the old one's place. Where a kill falls between, `_locate` finds the old one."""
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    if old.is_dir():
        _carry_over(old, path)
    shutil.rmtree(old, ignore_errors=True)


def _carry_over(old: Path, new: Path) -> None:
    """Move what a save didn't write, a README say, as it is: a link stays one, and nothing is opened."""
    for extra in old.iterdir():
        if extra.name not in (CONFIG, WEIGHTS, DISCRIMINATORS) and not os.path.lexists(new / extra.name):
            extra.rename(new / extra.name)
