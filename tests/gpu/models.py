"""What is checked: every generator, discriminator and recipe there is, small or as published.

Generators are those of the suite's own table of streaming models, recipes those that are shipped with the suite's own
small sizes, discriminators the classes of the package: what is added there is checked here by itself.
"""

import contextlib
import copy
import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from accelerate import Accelerator
from torch import Tensor, nn

import gansound.discriminators
from gansound.cli.train import overrides
from gansound.draw import Draws
from gansound.engine.phases import Phases
from gansound.engine.plan import Plan, plan
from gansound.frames import PitchedSpec
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator
from gansound.recipe import load_recipe, recipe_names
from tests.families import FAMILIES
from tests.test_streaming_models import awake
from tests.test_train_cli import QUICK, SMALL, settle

# One that leaves its generator open takes that of a model to start from, of which there is none here.
RECIPES = tuple(name for name in recipe_names() if load_recipe(name)["generator"] is not None)
ITEMS = 2
_SMALL_NETWORK = {
    "channels": 4, "max_channels": 16, "layers": 2, "scales": 2, "dim": 2, "clip_samples": 1024, "phase_shuffle": 1,
    "frames": 8, "periods": (2, 3), "mel": MelSpec.preset("hifigan"),
}  # fmt: skip
_SAMPLES = 2048


def generators() -> tuple[str, ...]:
    """Names of the suite's streaming models."""
    return tuple(FAMILIES)


def generator(name: str) -> StreamingGenerator:
    """In double, on the processor, and heard."""
    made: StreamingGenerator = awake(name, causal=False)
    return made


def discriminators() -> dict[str, type[nn.Module]]:
    """The classes of the package that a recipe may name, by their names."""
    found = {}
    for module in pkgutil.iter_modules(gansound.discriminators.__path__, "gansound.discriminators."):
        for name, cls in vars(importlib.import_module(module.name)).items():
            if isinstance(cls, type) and cls.__module__ == module.name and name.endswith("Discriminator"):
                parameters = inspect.signature(cls).parameters.values()
                if issubclass(cls, nn.Module) and all(
                    p.default is not p.empty or p.name in ("mel", "clip_samples") for p in parameters
                ):
                    found[name] = cls  # others are parts of these
    return found


def discriminator(cls: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    """A small one in double on the processor, and what it judges."""
    parameters = inspect.signature(cls).parameters
    small = {name: value for name, value in _SMALL_NETWORK.items() if name in parameters}
    torch.manual_seed(0)
    network = None
    for channels in (4, 16):  # one of grouped convolutions needs more
        with contextlib.suppress(ValueError):
            network = cls(**(small | ({"channels": channels} if "channels" in small else {})))
            break
    assert network is not None, f"{cls.__name__} can't be made small; teach it tests/gpu/models.py"
    network = network.double().eval()
    if hasattr(network, "frames"):
        shape: tuple[int, ...] = (ITEMS, network.mel.n_mels, network.frames)
    elif hasattr(network, "clip_samples"):
        shape = (ITEMS, network.channels, network.clip_samples)
    else:
        shape = (ITEMS, _SAMPLES)
    return network, 0.3 * torch.randn(shape, dtype=torch.float64)


def planned(name: str, *, small: bool, **settings: Any) -> Plan:
    """A shipped recipe as objects, without a corpus; from the first step on with its discriminators."""
    changes = {"labels": "null", "adversarial_from": "0", "data.path": "nowhere", "precision": "fp32"}
    if small:
        changes |= SMALL.get(name, {})
    else:
        changes |= {key: QUICK[key] for key in ("data.workers", "threads")}
    command = settle(name, changes) if small else [part for k, v in changes.items() for part in (f"--{k}", v)]
    recipe = load_recipe(name, overrides(command) | settings)
    return plan(recipe)


def one_of_each(*, tiny: bool) -> tuple[str, ...]:
    """Of the recipes of one generator and its discriminators the first; tiny, of those of one generator."""
    found: dict[tuple[Any, ...], str] = {}
    for name in RECIPES:
        recipe = load_recipe(name)
        judges = () if tiny else (recipe.get("discriminators") or {}).values()
        kinds = (recipe["generator"]["class_path"], *(judge["network"]["class_path"] for judge in judges))
        found.setdefault(kinds, name)
    return tuple(found.values())


class Trained:
    """A recipe's two phases on a device, and batches for them.

    Args:
        made: the plan, whose networks are placed and trained.
        device: where.
        precision: of the networks.
        double: in double, networks and draws, to compare others with.
        compiled: as the recipe's key.
    """

    def __init__(
        self,
        made: Plan,
        device: torch.device,
        precision: str = "fp32",
        *,
        double: bool = False,
        compiled: bool | str = False,
    ) -> None:
        self.made, self.device, self.double = made, device, double
        task = made.task
        for part in vars(task).values() if double else ():
            if isinstance(part, nn.Module):
                part.double()
        task.to(device)
        # What others are compared with stands apart: accelerate knows one device a process.
        self.accelerator: Any = (
            Accelerator(cpu=device.type == "cpu", mixed_precision="no") if not double else _placing(device)
        )
        self.phases = Phases(task, self.accelerator, made.optimizers, precision, {}, 0, compiled)

    def batches(self, step: int) -> list[list[dict[str, Tensor]]]:
        """Those of a step, where it trains."""
        return batches(self.made, step, self.device, torch.float64 if self.double else torch.float32)

    @property
    def adversarial(self) -> bool:
        return "discriminator" in self.made.optimizers

    def step(self, number: int, rounds: list[list[dict[str, Tensor]]] | None = None) -> Mapping[str, float]:
        """Learn; the figures."""
        with in_double() if self.double else contextlib.nullcontext():
            return self.phases.step(
                self.batches(number) if rounds is None else rounds, adversarial=self.adversarial, step=number
            )


def batches(
    made: Plan, step: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> list[list[dict[str, Tensor]]]:
    """For each critic round of a step its batch: noise of drawn levels and pitch, the same on every device."""
    size, samples = made.settings.batch_size, made.settings.data.segment_samples
    rounds = []
    for number in range(made.task.critic_steps):
        first = (step * made.task.critic_steps + number) * size
        draws = Draws(1, range(first, first + size))
        audio = 0.3 * draws.normal("audio", samples) * draws.uniform("level", 1)
        if made.settings.data.one_shots is not None:
            audio = audio.unsqueeze(1)
        batch = {"audio": audio.to(device, dtype), "position": torch.arange(first, first + size)}
        batch["bandwidth_hz"] = torch.full((size,), 0.4 * made.task.sample_rate, device=device)
        if isinstance(made.task.takes, PitchedSpec):
            hertz = 100 + 200 * draws.uniform("pitch", samples // made.task.takes.hop_length)
            batch["f0"] = hertz.to(device, dtype)
        rounds.append([batch])
    return rounds


def _placing(device: torch.device) -> Any:
    return SimpleNamespace(
        device=device,
        num_processes=1,
        prepare_model=lambda module: module.to(device),
        backward=lambda loss: loss.backward(),
        no_sync=lambda module: contextlib.nullcontext(),
    )


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """Draws as doubles of the same values."""
    there = Draws._there

    def double(self: Draws, drawn: Any) -> Tensor:
        made = there(self, drawn)
        return made.double() if made.is_floating_point() else made

    with mock.patch.object(Draws, "_there", double):
        yield


def copied(module: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The same weights elsewhere, in another type."""
    return copy.deepcopy(module).to(device, dtype)
