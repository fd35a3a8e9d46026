"""How often a training step makes the processor wait for the device: once, for its figures."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from gansound.data.items import BOOKKEEPING
from gansound.draw import Draws
from gansound.engine import phases
from gansound.engine.average import MovingAverage
from gansound.engine.phases import fuse
from gansound.engine.plan import Plan
from gansound.engine.restoring import unfit
from gansound.engine.run import Run
from gansound.recipe import load_recipe
from tests.gpu import models
from tests.host_syncs import DEVICE, HostSyncs, no_autocast, on_the_device

ITEMS = 4
WAVE = "gansound.discriminators.augmentation.wave"
AUGMENTED = {
    "adversarial": {"class_path": "gansound.losses.adversarial.Hinge"},
    "augmentations": {
        "class_path": "gansound.discriminators.augmentation.Augmentations",
        "init_args": {
            "ops": [
                {"class_path": f"{WAVE}.{name}"}
                for name in ("Polarity", "Gain", "TimeShift", "Speed", "Equaliser", "CutOut")
            ],
            "probability": 0.8,
            "noise": {"class_path": "gansound.discriminators.augmentation.InstanceNoise"},
        },
    },
}


def freev(**changes: Any) -> Plan:
    return models.planned("tiny_cpu", small=True, **changes)


def syncs(planned: Plan) -> HostSyncs:
    """Of the second step, when everything that is made once has been."""
    made = on_the_device(planned)
    rounds = there(planned)
    with no_autocast(), HostSyncs() as counted:
        for step in range(2):
            counted.seen.clear()
            made.step(rounds, adversarial="discriminator" in planned.optimizers, step=step)
    return counted


def there(planned: Plan) -> list[list[dict[str, torch.Tensor]]]:
    """Batches as `Run` gives them to the phases."""
    rounds = models.batches(planned, 0, torch.device("cpu"))
    return [
        [
            {name: value if name in BOOKKEEPING else value.to(DEVICE) for name, value in part.items()}
            for part in parts
        ]
        for parts in rounds
    ]


def named(node: Any) -> set[str]:
    """All classes that a recipe, or a part of one, names."""
    if isinstance(node, dict):
        return set().union(*map(named, node.values()))
    if isinstance(node, list):
        return set().union(*map(named, node))
    return {node} if isinstance(node, str) and node.startswith(("gansound.", "torch.")) else set()


# Of the recipes that name the same classes, in other sizes, one is quick enough to be told by.
QUICK = {frozenset(named(load_recipe(name))): name for name in models.RECIPES}.values()
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in models.RECIPES if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, "augmented", *OTHERS])
def test_a_step_of_every_recipe_waits_for_the_device_once(name: str) -> None:
    changes = AUGMENTED if name == "augmented" else {}
    counted = syncs(models.planned("wavegan_tiny_cpu" if changes else name, small=True, **changes))
    assert counted.count == 1, dict(counted.seen)
    assert "phases.py" in next(iter(counted.seen)), dict(counted.seen)


PLANTED: dict[str, Any] = {
    "item": lambda fake: fake.mean().item(),
    "__bool__": lambda fake: bool(fake.mean() > 0),
    "tolist": lambda fake: fake[0].tolist(),
    "a copy to the processor": lambda fake: fake.cpu(),
    "a copy to the device": lambda fake: torch.ones(3).to(fake.device),
    "torch.tensor": lambda fake: torch.tensor([0.5], device=fake.device),
    "nonzero": lambda fake: fake.nonzero(),
    "a boolean index": lambda fake: fake[fake > 0],
}


def test_each_planted_wait_is_seen_once(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = freev()
    real = planned.task.generator_phase

    def waits(made: Any, fake: torch.Tensor, *rest: Any) -> dict[str, torch.Tensor]:
        for wait in PLANTED.values():
            wait(fake)
        return real(made, fake, *rest)

    alone = syncs(planned).seen
    monkeypatch.setattr(planned.task, "generator_phase", waits)
    planted = syncs(planned).seen - alone
    assert {place.partition(" at ")[0]: count for place, count in planted.items()} == dict.fromkeys(
        PLANTED, 1
    )


def test_what_lies_with_the_processor_is_not_mixed_into_the_devices_work() -> None:
    planned = freev()
    real = planned.task.generator_phase
    planned.task.generator_phase = lambda made, fake, *rest: real(  # type: ignore[method-assign]
        made, fake + torch.ones(fake.shape), *rest
    )
    with pytest.raises(RuntimeError, match="device"):
        syncs(planned)


def test_a_batch_goes_to_the_device_without_waiting_and_its_bookkeeping_stays() -> None:
    run = SimpleNamespace(accelerator=SimpleNamespace(device=DEVICE), micro_batches=2)
    made = {
        "audio": torch.zeros(ITEMS, 64),
        "label": torch.arange(ITEMS),
        **{name: torch.arange(ITEMS) for name in ("position", "record", "retries", "start", "gain_db")},
    }
    with HostSyncs() as counted:
        parts = Run.parts(run, made)  # type: ignore[arg-type]
    assert counted.count == 0, dict(counted.seen)
    assert {name for name in made if parts[1][name].is_meta} == {"audio", "label"}
    assert parts[1]["position"].tolist() == [2, 3]
    assert parts[1]["audio"].shape == (2, 64)


def test_draws_and_the_average_do_not_wait() -> None:
    model = nn.Sequential(nn.Conv1d(1, 2, 3), nn.BatchNorm1d(2)).to(DEVICE)
    average = MovingAverage(model, 0.9)
    draws = Draws(0, range(ITEMS), DEVICE)
    with HostSyncs() as counted:
        for _ in range(2):
            average.update_parameters(model)
        assert draws.normal("latent", 3).is_meta
        assert draws.uniform("mix").shape == (ITEMS,)
        assert draws.integers("shuffle", -2, 2, 4).dtype == torch.int64
    assert counted.count == 0, dict(counted.seen)


def test_the_average_is_that_of_its_law_and_has_the_models_buffers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = MovingAverage(model, 0.5)
    expected: list[torch.Tensor] = []
    for step in range(9):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter))
        model(torch.randn(8, 3))
        average.update_parameters(model)
        now = [parameter.detach().clone() for parameter in model.parameters()]
        decay = min(0.5, (1 + step) / (10 + step))
        expected = (
            now if step == 0 else [decay * a + (1 - decay) * b for a, b in zip(expected, now, strict=True)]
        )
    for mine, its in zip(average.module.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), its)
    for mine, its in zip(average.module.buffers(), model.buffers(), strict=True):
        assert torch.equal(mine, its)
    again = MovingAverage(copy.deepcopy(model), 0.5)
    again.load_state_dict(average.state_dict())
    assert int(again.n_averaged) == 9


def an_optimizer(device: str, elements: int = 4096, **defaults: Any) -> Any:
    parameter = SimpleNamespace(
        device=torch.device(device), is_floating_point=lambda: True, numel=lambda: elements
    )
    return SimpleNamespace(defaults=dict(defaults), param_groups=[{**defaults, "params": [parameter]}])


@pytest.mark.parametrize(
    "device, defaults, fused",
    [
        ("cuda", {"fused": None, "foreach": None}, True),
        ("cpu", {"fused": None, "foreach": None}, False),  # there it would round otherwise
        ("meta", {"fused": None, "foreach": None}, False),
        ("cuda", {"fused": False, "foreach": None}, False),  # the recipe says so
        ("cuda", {"fused": None, "foreach": True}, False),
        ("cuda", {"fused": None, "foreach": None, "differentiable": True}, False),
        ("cuda", {}, False),  # one that has no such kernels
    ],
)
def test_on_a_gpu_optimizers_are_fused_unless_told_otherwise(
    device: str, defaults: dict[str, Any], fused: bool
) -> None:
    optimizer = an_optimizer(device, **defaults)
    fuse(optimizer)
    assert bool(optimizer.param_groups[0].get("fused")) is fused
    assert phases.skips_by_itself(optimizer) is fused


@pytest.mark.parametrize(
    "device, elements, defaults, listed",
    [
        ("cpu", 4096, {"fused": None, "foreach": None}, True),
        ("cpu", 4097, {"fused": None, "foreach": None}, False),  # slower so
        ("cpu", 1, {"fused": None, "foreach": False}, False),  # the recipe says so
        ("cpu", 1, {"fused": True, "foreach": None}, False),
        ("cpu", 1, {}, False),
        ("cuda", 1, {"fused": None, "foreach": None}, False),
    ],
)
def test_small_parameters_of_a_processor_are_updated_list_by_list(
    device: str, elements: int, defaults: dict[str, Any], listed: bool
) -> None:
    optimizer = an_optimizer(device, elements, **defaults)
    fuse(optimizer)
    for group in (optimizer.defaults, *optimizer.param_groups):
        assert bool(group.get("foreach")) is listed
    assert phases.skips_by_itself(optimizer) is (device == "cuda")


@pytest.mark.parametrize(
    "kind, more", [("Adam", {"betas": (0.5, 0.9)}), ("AdamW", {}), ("SGD", {"momentum": 0.9})]
)
def test_list_by_list_is_one_by_one_to_the_bit_and_goes_on_from_it(kind: str, more: dict[str, Any]) -> None:
    def learnt(listed: bool, steps: range, state: Any = None) -> tuple[list[torch.Tensor], Any]:
        torch.manual_seed(0)
        weights = (
            [nn.Parameter(torch.randn(size)) for size in ((7, 3), (), (40,))] if state is None else state[0]
        )
        optimizer = getattr(torch.optim, kind)(weights, 1e-2, weight_decay=0.1, **more)
        if listed:
            fuse(optimizer)
        phases.keep_its_way(optimizer)
        if state is not None:
            assert unfit(optimizer, {}, state[1]) is None
            optimizer.load_state_dict(state[1])
        assert optimizer.param_groups[0]["foreach"] is (True if listed else None)
        for step in steps:
            for weight in weights:
                weight.grad = torch.cos(step + weight.detach())
            optimizer.step()
        return weights, copy.deepcopy(optimizer.state_dict())

    expected, _ = learnt(False, range(6))
    for ways in ((True, True), (True, False), (False, True)):
        got, _ = learnt(ways[1], range(3, 6), learnt(ways[0], range(3)))
        for mine, its in zip(got, expected, strict=True):
            assert torch.equal(mine, its), ways


def test_graphs_are_asked_of_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    begun: list[bool] = []

    def compiled(module: Any, **how: Any) -> Any:
        asked.append(how)
        return module

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: asked.append(how))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: begun.append(True))
    planned = freev(compile="graphs")
    made = on_the_device(planned, compiled=planned.settings.compile)
    with no_autocast(), HostSyncs():
        made.step(there(planned), adversarial=True)
    assert asked == [{"dynamic": False, "mode": "reduce-overhead"}] * 2
    assert begun == [True]
