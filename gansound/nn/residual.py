"""Layers side by side: residual blocks, and stacks that share an input."""

from collections.abc import Sequence

from torch import Tensor, nn

from gansound.nn.conv import Conv1d, weight_norm
from gansound.nn.streaming import Cursor, Padding, stream


class Parallel(nn.Module):
    """Several paths over the same input, combined: their sum, unless a subclass says otherwise.

    Paths may look ahead by different amounts: a streaming step holds the earlier ones back until the latest is there.

    Shape:
        whatever the paths take; they must give what `combine` takes, as many columns each.
    """

    columns_dim = -1

    def __init__(self, *paths: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(paths)

    def paths(self) -> list[nn.Module]:
        """The paths in the order of `combine`'s arguments."""
        return list(self.branches)

    def combine(self, *outputs: Tensor) -> Tensor:
        """One tensor of the paths' outputs, each column of its own columns alone."""
        total = outputs[0]
        for output in outputs[1:]:
            total = total + output
        return total

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(*(path(x) for path in self.paths()))

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        paths = self.paths()
        cursors = [cursor.fork() for _ in paths]
        outputs = [stream(path, x, own) for path, own in zip(paths, cursors, strict=True)]
        return self.combine(*cursor.join(cursors, outputs, dim=self.columns_dim))


class Mean(Parallel):
    """Several paths over the same input, and their mean: HiFi-GAN's multi-receptive field fusion.

    Shape:
        whatever the paths take; they must give the same shape.
    """

    def combine(self, *outputs: Tensor) -> Tensor:
        return super().combine(*outputs) / len(outputs)


class Residual(Parallel):
    """Two paths over the same input, added.

    Shape:
        whatever both paths take; they must give the same shape.
    """

    def __init__(self, shortcut: nn.Module, branch: nn.Module) -> None:
        nn.Module.__init__(self)
        self.shortcut = shortcut
        self.branch = branch

    def paths(self) -> list[nn.Module]:
        return [self.shortcut, self.branch]


class Sourced(Parallel):
    """Stages, beside each of which the same source comes in by a side of its own.

    Args:
        source: of the input.
        ups: of each stage, from its input to where the source is added.
        sides: of each stage, from the source to there.
        chains: of each stage, from there on.

    Shape:
        whatever these take.
    """

    def __init__(
        self,
        source: nn.Module,
        ups: Sequence[nn.Module],
        sides: Sequence[nn.Module],
        chains: Sequence[nn.Module],
    ) -> None:
        nn.Module.__init__(self)
        self.source = source
        self.ups, self.sides, self.chains = map(nn.ModuleList, (ups, sides, chains))

    def forward(self, x: Tensor) -> Tensor:
        source = self.source(x)
        for up, side, chain in zip(self.ups, self.sides, self.chains, strict=True):
            x = chain(up(x) + side(source))
        return x

    def stream(self, x: Tensor, cursor: Cursor) -> Tensor:
        beside = cursor.fork()
        source = stream(self.source, x, beside)
        for up, side, chain in zip(self.ups, self.sides, self.chains, strict=True):
            paths = [cursor.fork(), beside.fork()]
            outputs = [stream(up, x, paths[0]), stream(side, source, paths[1])]
            y, s = cursor.join(paths, outputs)
            x = stream(chain, y + s, cursor)
        return x


def dilated_residual(
    channels: int,
    *,
    dilation: int,
    kernel_size: int = 3,
    negative_slope: float = 0.2,
    padding_mode: Padding = "reflect",
    causal: bool = False,
) -> Residual:
    """MelGAN's residual block: a dilated convolution and a pointwise one, beside a pointwise shortcut.

    Kumar et al., "MelGAN", arXiv 1910.06711, section 2.1.

    Shape:
        `(B, channels, T)` → `(B, channels, T)`.
    """
    dilated = Conv1d(
        channels, channels, kernel_size, dilation=dilation, padding_mode=padding_mode, causal=causal
    )
    branch = nn.Sequential(
        nn.LeakyReLU(negative_slope),
        weight_norm(dilated),
        nn.LeakyReLU(negative_slope),
        weight_norm(Conv1d(channels, channels, 1)),
    )
    return Residual(weight_norm(Conv1d(channels, channels, 1)), branch)
