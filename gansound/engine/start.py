"""What a run starts from instead of random weights, and what of it doesn't learn."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from gansound.engine.task import Task
from gansound.frames import mel_of
from gansound.mel import MelSpec
from gansound.model_folder import (
    LoadedModel,
    ModelFolderError,
    load_discriminators,
    load_model_folder,
    misfit,
    take_weights,
)
from gansound.recipe import RecipeError, build

log = logging.getLogger(__name__)

_NAMED = 12


_OF_THE_MODEL = ("generator", "mel")


def completed(recipe: Mapping[str, Any], allow: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe with the generator and the mel convention of the model it starts from, where it says null of them.

    A universal generator that gets mels of another rate or hop goes on as what it learnt by. A segment that isn't
    whole hops becomes the next longer one that is.

    Raises:
        RecipeError: it starts from no model, from one that can't be read, or from one that takes no mels.
    """
    left = [key for key in _OF_THE_MODEL if key in recipe and recipe[key] is None]
    if not left:
        return dict(recipe)
    if recipe.get("init_from") is None:
        raise RecipeError(
            f"{' and '.join(left)}: those of the model that this recipe starts from, and none is given: "
            "--init-from MODEL (a model folder, such as `gansound import` writes, a run, or a shipped name)"
        )
    try:
        loaded = load_model_folder(model_of(str(recipe["init_from"])), allow=allow)
        mel = _mel(loaded)
    except ModelFolderError as error:
        raise RecipeError(f"init_from: {error}") from error
    theirs = {"generator": loaded.config, "mel": mel.to_dict()}
    found = dict(recipe) | {key: theirs[key] for key in left}
    if recipe.get("mel") is not None:
        mel = build(recipe["mel"], MelSpec, "mel", allow=allow)
        by = getattr(loaded.generator, "learnt_by", mel)
        if (by.sample_rate, by.hop_length) != (mel.sample_rate, mel.hop_length):
            arguments = {**loaded.config.get("init_args", {}), "learnt_by": by.to_dict()}
            found["generator"] = {**loaded.config, "init_args": arguments}
    data = recipe.get("data")
    samples = data.get("segment_samples") if isinstance(data, dict) else None
    if isinstance(data, dict) and isinstance(samples, int) and samples % mel.hop_length:
        found["data"] = {**data, "segment_samples": -(-samples // mel.hop_length) * mel.hop_length}
    return found


def model_of(name: str) -> str:
    """The model folder that a name means: of a run's folder that in it."""
    inside = Path(name).expanduser() / "model"
    return str(inside) if (inside / "config.json").is_file() else name


def _mel(loaded: LoadedModel) -> MelSpec:
    """The convention of its mels, whether it takes a pitch beside them or not. Raises ModelFolderError where none."""
    return mel_of(loaded.frame_spec) or loaded.mel


def start_from(name: str, task: Task, allow: Sequence[str] = ()) -> None:
    """Give a task's networks the weights of a trained model, with its discriminators where it has them.

    Optimizers, schedules and the step start anew: it is another training.

    Args:
        name: a model folder, a run's folder, a shipped name or a Hugging Face repository id.
        task: its generator must be the model's; a discriminator that isn't starts from random weights, with a warning.
        allow: packages of the caller's whose classes the model may name.

    Raises:
        RecipeError: no such model, one that can't be read, another generator, or another mel convention.
    """
    name = model_of(name)
    try:
        loaded = load_model_folder(name, allow=allow)
        theirs = (load_discriminators(name) or {}) if task.discriminator else {}
    except ModelFolderError as error:
        raise RecipeError(f"init_from: {error}") from error
    any_mel = hasattr(loaded.generator, "for_mel")  # its convention isn't among its weights
    if task.mel is not None and not any_mel and (different := task.mel.differences(_mel(loaded))):
        raise RecipeError(
            f"init_from {name}: takes other mels than the recipe's: {'; '.join(different)}. Set the recipe's mel to "
            "the model's, or start from another model"
        )
    try:
        take_weights(task.generator, task.learner(loaded.generator))
    except ValueError as error:
        raise RecipeError(
            f"init_from {name}: {error}. Give the recipe the model's generator (its config.json has it), or start from "
            "another model"
        ) from error
    if not task.discriminator:
        log.info("starting from %s", loaded.path)
        return
    found = []
    for key, network in task.discriminator.items():
        state = {k.removeprefix(f"{key}."): v for k, v in theirs.items() if k.startswith(f"{key}.")}
        unfit = misfit(state, network.state_dict()) if state else None
        if unfit:
            log.warning("init_from %s: its discriminator %r isn't the recipe's (%s)", name, key, unfit)
        elif state:
            network.load_state_dict(state)
            found.append(key)
    anew = [key for key in task.discriminator if key not in found]
    log.info("starting from %s%s", loaded.path, f", with discriminators {', '.join(found)}" if found else "")
    if anew:
        log.warning(
            "init_from %s: discriminators %s start from random weights. Until they have learnt, they teach nothing: "
            "let each learn alone first (its teaches_from), or lower the generator's learning rate",
            name,
            ", ".join(anew),
        )


def freeze(parts: Iterable[tuple[str, nn.Module]], patterns: Sequence[str]) -> None:
    """Take the parameters that a pattern names out of learning.

    Args:
        parts: networks with the names that patterns give them.
        patterns: a dotted name, which stands for all below it, or with `*`.

    Raises:
        ValueError: a pattern that names nothing.
    """
    parameters = {f"{part}.{name}": p for part, net in parts for name, p in net.named_parameters()}
    for pattern in patterns:
        named = [
            name for name in parameters if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
        ]
        if not named:
            layers = list(dict.fromkeys(name.rpartition(".")[0] for name in parameters))
            more = f" and {len(layers) - _NAMED} more" if len(layers) > _NAMED else ""
            raise ValueError(
                f"freeze: nothing is called {pattern!r}; there are {', '.join(layers[:_NAMED])}{more}, and what they "
                "are part of"
            )
        for name in named:
            parameters[name].requires_grad_(False)
