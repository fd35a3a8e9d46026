"""How a discriminator's last features become logits, and what the label has to do with it.

A recipe names a `Head`; the discriminator, which knows its classes and features, has it make the layer.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class HeadLayer(nn.Module, ABC):
    """The last layer of a discriminator."""

    @abstractmethod
    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        """Shape: features `(B, N)`, labels `(B,)` int64 or None → logits `(B, 1 + class_logits)`."""


class Head(ABC):
    """A kind of head, before it knows of which discriminator.

    Attributes:
        needs_labels: it means nothing without classes.
        takes_labels: its logits depend on the label that is given.
    """

    needs_labels: bool = True
    takes_labels: bool = False

    def class_logits(self, classes: int) -> int:
        """Logits beside the first, which says real or fake."""
        return 0

    @abstractmethod
    def layer(self, features: int, classes: int) -> HeadLayer:
        """Its layer for so many features and classes."""


class Dense(Head):
    """One affine map, deaf to labels. WaveGAN, arXiv 1802.04208."""

    needs_labels = False

    def layer(self, features: int, classes: int) -> HeadLayer:
        return _DenseLayer(features, 1)


class Projection(Head):
    """The dense logit plus the features' inner product with an embedding of the label.

    Miyato and Koyama, "cGANs with Projection Discriminator", arXiv 1802.05637, equation 3: f(x, y) = yᵀVφ(x) + ψ(φ(x)).
    Here φ(x) are the flattened features, as the dense map sees them, rather than their sum over positions: a class
    may then be told from when something sounds.
    """

    takes_labels = True

    def layer(self, features: int, classes: int) -> HeadLayer:
        return _ProjectionLayer(features, classes)


class AuxiliaryClassifier(Head):
    """A logit for each class beside the dense one; the label isn't given but guessed.

    Odena et al., "Conditional Image Synthesis with Auxiliary Classifier GANs", arXiv 1610.09585. The losses then add
    the cross-entropy of the guess, on real items and on made ones.
    """

    def class_logits(self, classes: int) -> int:
        return classes

    def layer(self, features: int, classes: int) -> HeadLayer:
        return _DenseLayer(features, 1 + classes)


class _DenseLayer(HeadLayer):
    def __init__(self, features: int, logits: int) -> None:
        super().__init__()
        self.dense = _glorot(nn.Linear(features, logits))

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        out: Tensor = self.dense(features)
        return out


class _ProjectionLayer(HeadLayer):
    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.dense = _glorot(nn.Linear(features, 1))
        self.embedding = nn.Embedding(classes, features)
        bound = (6 / (features + 1)) ** 0.5  # each class's row starts as the dense map's does
        nn.init.uniform_(self.embedding.weight, -bound, bound)

    def forward(self, features: Tensor, labels: Tensor | None) -> Tensor:
        projected = (self.embedding(labels).to(features.dtype) * features).sum(1, keepdim=True)
        return self.dense(features) + projected


def _glorot(layer: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
