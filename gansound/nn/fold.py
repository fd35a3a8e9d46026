"""Weights that are computed at each look, such as weight norm's `g v / |v|`, replaced by their values."""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

Module = TypeVar("Module", bound=nn.Module)


def fold_parametrizations(model: Module) -> Module:
    """Replace every parametrized tensor of `model`, in place, by its value; the function it computes stays.

    What inference wants: fewer parameters and nothing recomputed at each call. A model without parametrizations
    passes unchanged. Put a model with spectral norm in eval mode first: in training mode every look at its weight
    takes a step of the power iteration.
    """
    for module in list(model.modules()):
        if not parametrize.is_parametrized(module):
            continue
        chains = module.parametrizations
        assert isinstance(chains, nn.ModuleDict)
        values = {name: getattr(module, name).detach().clone() for name in chains}
        learnt = {name: any(True for _ in chain.parameters(recurse=False)) for name, chain in chains.items()}
        # Not `remove_parametrizations`: it strips the class, which a deep copy shares with its original, so that
        # folding a copy (an average's, or one to be saved) would break the generator in training.
        module.__class__ = type(module).__bases__[0]
        del module.parametrizations
        for name, value in values.items():
            if learnt[name]:
                module.register_parameter(name, nn.Parameter(value))
            else:
                module.register_buffer(name, value)
    return model


@torch.no_grad()
def load_folded(model: nn.Module, folded: Mapping[str, Tensor]) -> None:
    """Load the state dict of a folded model into one that isn't, so that it computes the same."""
    for name, value in folded.items():
        owner_name, _, key = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if parametrize.is_parametrized(owner, key):
            setattr(owner, key, value.to(getattr(owner, key)))  # through the parametrization's inverse
        else:
            getattr(owner, key).copy_(value)
