"""From a recipe to what will run, before any file of the corpus is read.

A recipe's top level holds the engine's settings (`RunSettings`) and, beside them, `task` and that class's own
arguments: `generator`, `discriminators`, `losses`, …
"""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from gansound.data.clips import labels_of
from gansound.data.manifest import Record
from gansound.data.source import open_corpus
from gansound.engine.settings import RunSettings
from gansound.engine.start import completed, freeze
from gansound.engine.task import Task
from gansound.machine import memory_bytes
from gansound.mel import MelSpec
from gansound.recipe import KeyHelp, RecipeError, build, describe, parameters
from gansound.recipe.budget import budget
from gansound.recipe.build import ALLOWED, check_kind, import_class, in_words
from gansound.recipe.describe import argument_help
from gansound.recipe.text import meant

log = logging.getLogger(__name__)

_COPIES = 4  # of every weight: its gradient and Adam's two moments
# The largest vocoders have 0.5 GiB of weights, and 1,000 tensors with their discriminators.
_MOST_BYTES, _MOST_TENSORS = 2**31, 4_000
_NO_MEMORY_KNOWN = 2**36


def split(recipe: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The engine's settings, and the node of the task.

    Raises:
        RecipeError: no task is named.
    """
    if "task" not in recipe:
        raise RecipeError(
            "task: missing; name the class of the task, such as gansound.tasks.vocoder.VocoderTask"
        )
    names = {field.name for field in dataclasses.fields(RunSettings)}
    own = {key: value for key, value in recipe.items() if key in names}
    arguments = {key: value for key, value in recipe.items() if key not in names and key != "task"}
    return own, {"class_path": recipe["task"], "init_args": arguments}


def with_labels(recipe: Mapping[str, Any]) -> tuple[dict[str, Any], Sequence[Record]]:
    """A recipe with the labels of its corpus in place of `labels: auto`, null where that has none; and the corpus.

    Raises:
        RecipeError: no corpus is named.
        ValueError: it can't be opened.
    """
    data = recipe.get("data") or {}
    if data.get("path") is None:
        raise RecipeError("data.path: missing; labels: auto takes them from the corpus: --data.path DIR")
    shares = {name: data[name] for name in ("valid", "test") if name in data}  # those the run will make
    records = open_corpus(data["path"], seed=0, **shares)
    found = labels_of(records)
    if found:
        log.info("%s: labels %s", data["path"], ", ".join(found))
    else:
        log.info("%s: no label folders, so sounds are trained on without labels", data["path"])
    return {**recipe, "labels": list(found) or None}, records


def keys(recipe: Mapping[str, Any], allow: Sequence[str] = ()) -> list[KeyHelp]:
    """Every key the recipe may hold, with its type, its value or default, and what it means."""
    own, its = split(recipe)
    mine = describe(own, RunSettings, allow=allow, context=("params",))
    task = import_class(recipe["task"], "task", allow, ALLOWED)
    if note := argument_help(task).get("mel"):
        mel = build(recipe["mel"], MelSpec, "mel", allow=allow) if "mel" in recipe else None
        mine.append(KeyHelp("mel", in_words(MelSpec), None if mel is None else "", note))
        mine += describe(mel.to_dict() if mel else None, MelSpec, "mel", allow=allow)
    return [*mine, *describe(its, object, allow=allow, context=("mel", "labels"))]


@dataclass(frozen=True)
class Plan:
    """A recipe as objects: networks with their first weights, their optimizers, and the settings.

    `corpus` is what was opened for its labels, where it was.
    """

    recipe: Mapping[str, Any]
    settings: RunSettings
    task: Task
    optimizers: Mapping[str, Optimizer]
    allow: Sequence[str] = ()
    corpus: Sequence[Record] | None = None


def plan(recipe: Mapping[str, Any], allow: Sequence[str] = ()) -> Plan:
    """Build all that a recipe describes; `labels: auto` becomes those of its corpus, a null generator or mel that of
    the model it starts from.

    Raises:
        RecipeError: whatever is wrong with it, by its dotted key.
        ValueError: the corpus can't be opened for its labels.
    """
    recipe = completed(recipe, allow)
    corpus = None
    if recipe.get("labels") == "auto":
        plan({**recipe, "labels": None}, allow)  # a mistake is told before a corpus of hours is listed
        recipe, corpus = with_labels(recipe)
    own, its = split(recipe)
    # Here and not in `build`, which would compare a misspelt setting of the engine with the task's alone.
    kind = import_class(recipe["task"], "task", allow, ALLOWED)
    check_kind(kind, Task, "task")
    known = parameters(kind)
    settings_names = [field.name for field in dataclasses.fields(RunSettings)]
    for key in its["init_args"]:
        if key not in known and "**" not in known:
            near = meant(key, ["task", *settings_names, *known])
            raise RecipeError(
                f"{key}: unknown key{near}; a recipe takes task, {', '.join(known)} (of the task), "
                f"{', '.join(settings_names)}"
            )
    settings: RunSettings = build(own, RunSettings, "", allow=allow)
    context = {"mel": build(recipe["mel"], MelSpec, "mel", allow=allow)} if "mel" in recipe else {}
    context["labels"] = tuple(settings.labels or ())
    if settings.labels and settings.data.one_shots is None:
        raise RecipeError(
            "labels: need data.one_shots, whose clips are whole sounds of one label each; a vocoder has no labels: "
            "leave them out"
        )
    # The weights' first values depend on the seed alone, not on what was built before.
    torch.manual_seed(settings.seed)
    memory = memory_bytes() or _NO_MEMORY_KNOWN
    most = min(memory // _COPIES, _MOST_BYTES)
    with budget(most, _MOST_TENSORS, "for all networks of a recipe together"):
        task: Task = build(its, Task, "", context=context, allow=allow)
    if settings.data.one_shots is None and task.mel is None:
        raise RecipeError(
            "data.one_shots: missing; a generator of clips trains on whole sounds: data: {one_shots: {}}"
        )
    if settings.data.one_shots is not None and task.mel is not None:
        raise RecipeError(
            "data.one_shots: are whole sounds, for a generator of clips; a vocoder trains on pieces of recordings: "
            "leave it out"
        )
    try:
        task.check_segment(settings.data.segment_samples)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    processes = int(os.environ.get("WORLD_SIZE") or 1)
    batch_bytes = settings.batch_size * settings.data.segment_samples * getattr(task, "channels", 1) * 4
    if batch_bytes > memory * processes:
        raise RecipeError(
            f"batch_size, data.segment_samples: a batch of {settings.batch_size} segments of "
            f"{settings.data.segment_samples} samples is {batch_bytes / 2**30:,.0f} GiB, the machine has "
            f"{memory / 2**30:,.0f}; make one of them smaller"
        )
    nets = [module for net in (task.generator, task.discriminator) for module in net.modules()]
    compares = {
        "the adversarial loss or a discriminator compares": task.over_batch,
        # Of torch there is no other name for all of its kinds.
        "a batch norm takes its statistics of": any(
            isinstance(net, torch.nn.modules.batchnorm._BatchNorm) for net in nets
        ),
    }
    for why in (why for why, does in compares.items() if does):
        for key, given, to in (
            ("micro_batches", settings.micro_batches > 1, 1),
            ("memory_gb", settings.memory_gb, "null"),
        ):
            if given:
                raise RecipeError(
                    f"{key}: got {getattr(settings, key):g}, but {why} all items of a batch, so that its parts don't "
                    f"add up to it; set it to {to}"
                )
    if settings.adversarial_from > 0 and task.needs_discriminators:
        raise RecipeError(
            f"adversarial_from: got {settings.adversarial_from}, but without discriminators nothing teaches the "
            "generator; set it to 0, or give further losses"
        )
    discriminators = [(f"discriminators.{name}", network) for name, network in task.discriminator.items()]
    try:
        freeze([("generator", task.generator), *discriminators], settings.freeze)
    except ValueError as error:
        raise RecipeError(str(error)) from error
    sides = {"generator": (task.generator, settings.generator_optimization)}
    if task.discriminator:
        if settings.discriminator_optimization is None:
            raise RecipeError("discriminator_optimization: missing; the recipe has discriminators")
        sides["discriminator"] = (task.discriminator, settings.discriminator_optimization)
    optimizers = {}
    for side, (network, how) in sides.items():
        learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
        if not learning:
            raise RecipeError(
                f"freeze: leaves nothing of the {side} to learn; freeze less of it"
                if settings.freeze
                else f"{side}: has no parameters that learn"
            )
        try:
            # What an optimizer can't do shows at its first step: here that of a weight that nobody needs.
            trial = torch.nn.Parameter(torch.zeros(2, 2))
            trial.grad = torch.zeros(2, 2)
            how.optimizer([trial]).step()
            optimizers[side] = how.optimizer(learning)
        except Exception as error:  # torch's own refuse in many ways, and others may be named
            reason = str(error).splitlines()[0] if str(error) else "no message"
            raise RecipeError(f"{side}_optimization.optimizer: {type(error).__name__}: {reason}") from error
        for group in optimizers[side].param_groups:
            group.setdefault("initial_lr", group["lr"])
    return Plan(recipe, settings, task, optimizers, allow, corpus)
