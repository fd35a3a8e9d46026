"""With which weights a universal vocoder begins: those that make it a filter bank's, or another net's.

What is taken over of a net that sees or hears otherwise is changed so that it does at first what that one did.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gansound.mel import MelSpec, filters
from gansound.nn.between_partials import BetweenPartials
from gansound.nn.convnext import FrameConv

PHASE_FEATURES = 32
"""Of the phases that the trunk hears beside its bands."""


def taken_over(
    core: nn.Module, trained: nn.Module, louder: float | None, new_phases: int
) -> dict[str, Tensor]:
    """The weights of a core with those of another, or of a FreeV's layers, wherever they fit.

    Args:
        core: what begins.
        trained: whose weights it takes.
        louder: the logarithm of how much larger an amplitude is to it than to the other, where it has more bins as far
            apart; None where both have the same.
        new_phases: in so many of the lowest bins its phases go on from frame to frame and the other's don't.

    Raises:
        ValueError: a net of other sizes.
    """
    state, given = core.state_dict(), trained.state_dict()
    layers = dict(core.named_modules())
    for name, module in trained.named_modules():
        mine = layers.get(name)
        if isinstance(module, FrameConv) and isinstance(mine, FrameConv) and not mine.right_frames:
            given[f"{name}.conv.weight"] = _without_future(module.conv.weight.detach(), module.right_frames)
        if isinstance(module, BetweenPartials) and getattr(mine, "ahead", module.ahead) < module.ahead:
            for at, conv in module.layers.named_children():
                if isinstance(conv, nn.Conv2d):
                    turned = conv.weight.detach().transpose(2, 3)
                    ahead = conv.kernel_size[0] // 2
                    given[f"{name}.layers.{at}.weight"] = _without_future(turned, ahead).transpose(2, 3)
    if "finer" not in layers:
        given = {name: value for name, value in given.items() if not name.startswith("finer.")}
    steps = {name: value for name, value in state.items() if name.startswith("griffin_lim.")}
    if {name: value.shape for name, value in steps.items()} != {
        name: value.shape for name, value in given.items() if name.startswith("griffin_lim.")
    }:
        given = {name: value for name, value in given.items() if not name.startswith("griffin_lim.")}
    if louder is not None:
        given |= _widened(given, state, louder)
    if new_phases:
        given |= _with_phases(given, state, new_phases)
    for name, value in given.items():
        if name not in state or state[name].shape != value.shape:
            expected = tuple(state[name].shape) if name in state else "none"
            raise ValueError(f"{name}: got {tuple(value.shape)}, expected {expected}")
        state[name] = value
    return state


def _without_future(kernel: Tensor, ahead: int) -> Tensor:
    """A kernel of the same size whose last tap is the present, which stands for the `ahead` frames after it too.

    Shape: `(..., k)` -> the same.
    """
    if not ahead:
        return kernel
    past, future = kernel[..., :-ahead], kernel[..., -ahead:]
    now = past[..., -1:] + future.sum(-1, keepdim=True)
    return torch.cat([torch.zeros_like(future), past[..., :-1], now], dim=-1)


def _with_phases(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], low: int) -> dict[str, Tensor]:
    """The layers that phases are handed to, of a net that has none: as that one for the rest, these as they begin."""
    made = {}
    for name in ("bands.weight", "bands.bias", "embed.conv.weight", "head.weight", "head.bias"):
        name = "spectrum.trunk." + name
        new, old = wanted[name].clone(), given.get(name)  # a FreeV has no bands
        if "embed" in name:
            new.zero_()  # of the phases the trunk hears nothing yet
        if old is not None:
            new[tuple(map(slice, old.shape))] = old
        made[name] = new
    for name in ("head.weight", "head.bias"):
        name = "spectrum.trunk." + name
        for own, begun in zip(made[name].chunk(3)[1:], wanted[name].chunk(3)[1:], strict=True):
            own[:low] = begun[:low]
    return made


def _widened(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], louder: float) -> dict[str, Tensor]:
    """The layers between bins, bands and trunk of a net of few bins and bands inside those of a net of more.

    The same sound has amplitudes larger by a factor, whose logarithm is `louder`, in a window of so many more samples.
    """
    prefix = "spectrum.trunk."
    names = ("bands.weight", "bands.bias", "embed.conv.weight", "head.weight", "head.bias")
    made = {prefix + name: wanted[prefix + name].clone() for name in names}
    few, many = (state[prefix + "head.bias"].numel() // 3 for state in (given, wanted))
    weight, new = given[prefix + "bands.weight"].clone(), made[prefix + "bands.weight"]
    further = new.shape[1] - 2 * many  # columns, of phases
    heard = PHASE_FEATURES if weight.shape[1] > 2 * few else 0
    rows, more_rows = len(weight) - heard, len(new) - (PHASE_FEATURES if further else 0)
    if rows > more_rows or (heard and weight.shape[1] - 2 * few != further):
        return {}
    weight[:, few : 2 * few] -= weight[:, :few] * (louder / 3)  # as `SeenBins` scales it
    columns = torch.arange(weight.shape[1])
    columns += (many - few) * ((columns >= few).long() + (columns >= 2 * few))
    place = torch.arange(len(weight))
    place += (more_rows - rows) * (place >= rows)
    new[place] = torch.zeros_like(new[place]).index_copy(1, columns, weight)
    made[prefix + "bands.bias"][place] = given[prefix + "bands.bias"]
    made[prefix + "embed.conv.weight"].zero_()  # of the further bands the trunk hears nothing yet
    made[prefix + "embed.conv.weight"][:, place] = given[prefix + "embed.conv.weight"]
    for name in ("head.weight", "head.bias"):
        parts = made[prefix + name].chunk(3), given[prefix + name].chunk(3)
        for mine, its in zip(*parts, strict=True):
            mine[:few] = its
    return made


def begin_as_filter_bank(gathered: nn.Linear, bands: int, mel: MelSpec, n_fft: int) -> None:
    """(ln(m) + 5) / 3 of a band m, from the same of its bins, as `SeenBins` gives them."""
    bank = filters.filter_bank(mel.sample_rate, n_fft, bands, mel.fmin, mel.fmax, mel.mel_scale, mel.mel_norm)
    total = bank.sum(1)
    total = torch.where(total > 0, total, 1.0)  # a band narrower than a bin has none
    with torch.no_grad():
        gathered.weight.zero_()
        gathered.weight[:bands, : bank.shape[1]] = bank / total[:, None]
        gathered.bias[:bands] = total.log() / 3


def begin_as_single_pass(gathered: nn.Linear, head: nn.Linear, bands: int, low: int) -> None:
    """Phases of the lowest bins as they are handed in, turned from a frame's middle to its start: by pi a bin."""
    with torch.no_grad():
        nn.init.trunc_normal_(gathered.weight[bands:, -2 * low :], std=0.1)
        _, real, imaginary = head.weight.chunk(3)
        real[:low] = imaginary[:low] = 0
        head.bias.chunk(3)[1][:low] = 0.5 * (-1.0) ** torch.arange(low)
