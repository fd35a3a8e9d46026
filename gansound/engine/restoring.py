"""Whether a saved state is one that this run would have written: names, shapes, types and finite numbers, by part."""

import copy
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

WAYS = ("foreach", "fused")
"""In which a torch optimizer updates, as its groups say it: of the machine that a run is on, not of what it learnt."""


def unfit(part: object, tensors: Mapping[str, Tensor], state: Any) -> str | None:
    """What is wrong with a state for a part of the run, in words; None where nothing is.

    Args:
        part: a network, an optimizer, or anything with a `state_dict`.
        tensors: the state's tensors by their path.
        state: all of it, as `load_state_dict` would be given it.
    """
    if (bad := next((name for name, t in tensors.items() if not _is_finite(t)), None)) is not None:
        return f"{bad} holds NaN or infinity"
    if (bad := _not_a_number(state)) is not None:
        return f"{bad} is NaN"
    if isinstance(part, nn.Module):
        return _differs(state, part.state_dict()) if isinstance(state, Mapping) else "it is no network's"
    if isinstance(part, Optimizer):
        return _unfit_optimizer(part, state)
    return None


def _is_finite(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex()) or bool(torch.isfinite(tensor).all())


def _not_a_number(state: Any, name: str = "") -> str | None:
    if isinstance(state, float) and math.isnan(state):
        return name or "a value"
    inside: Any = ()
    if isinstance(state, Mapping):
        inside = state.items()
    elif isinstance(state, list | tuple):
        inside = enumerate(state)
    for key, value in inside:
        if (found := _not_a_number(value, f"{name}/{key}")) is not None:
            return found
    return None


def _differs(state: Mapping[Any, Any], expected: Mapping[Any, Any]) -> str | None:
    if missing := [name for name in expected if name not in state]:
        return f"{missing[0]} is missing"
    if unknown := [name for name in state if name not in expected]:
        return f"{unknown[0]} is unknown"
    for name, value in state.items():
        wanted = expected[name]
        if isinstance(wanted, Tensor) and isinstance(value, Tensor):
            if (value.shape, value.dtype) != (wanted.shape, wanted.dtype):
                return (
                    f"{name} is {value.dtype} of shape {tuple(value.shape)}, expected {wanted.dtype} of "
                    f"{tuple(wanted.shape)}"
                )
        elif type(value) is not type(wanted):
            return f"{name} is a {type(value).__name__}, expected a {type(wanted).__name__}"
    return None


def _unfit_optimizer(optimizer: Optimizer, state: Any) -> str | None:
    if not isinstance(state, Mapping) or set(state) != {"state", "param_groups"}:
        return "it is no optimizer's"
    groups, now = state["param_groups"], optimizer.state_dict()["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(now) or not isinstance(state["state"], Mapping):
        return f"it isn't of {len(now)} groups of weights"
    # Others' optimizers may keep what they learn among these; torch's change the learning rate alone, and that is ours.
    fixed = type(optimizer).__module__.startswith("torch.optim")
    for group, mine in zip(groups, now, strict=True):
        if not isinstance(group, Mapping) or group.get("params") != mine["params"]:
            return "its groups are of other weights"
        for name, value in group.items():  # of a newer torch they may be more
            if fixed and name not in ("lr", "params", *WAYS) and value != mine.get(name, value):
                return f"{name} is {value}, the recipe has {mine[name]}"
    expected = _after_a_step(optimizer)
    for number, values in state["state"].items():
        if not isinstance(values, Mapping):
            return f"state/{number} is a {type(values).__name__}"
        if expected is None:
            continue
        if number not in expected:
            return f"state/{number} is of no weight"
        if (wrong := _differs(values, expected[number])) is not None:
            return f"state/{number}/{wrong}"
    return None


def _after_a_step(optimizer: Optimizer) -> Mapping[int, Mapping[str, Any]] | None:
    """What it keeps of each weight, as shapes without memory; None where it can't step without one."""
    twin = copy.copy(optimizer)
    twin.state = defaultdict(dict)
    twin.param_groups = [
        {
            **group,
            **{way: False for way in WAYS if way in group},
            "params": [_without_memory(weight) for weight in group["params"]],
        }
        for group in optimizer.param_groups
    ]
    try:
        twin.step()
        found: Mapping[int, Mapping[str, Any]] = twin.state_dict()["state"]
        return found
    except Exception:  # somebody's own, or one that looks at its values
        return None


def _without_memory(weight: Tensor) -> nn.Parameter:
    made = nn.Parameter(torch.empty_like(weight, device="meta"))
    made.grad = torch.empty_like(made)
    return made
