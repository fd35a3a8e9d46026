"""The auxiliary classifier's loss: the discriminator also tells the classes, the generator makes them told.

Odena, Olah and Shlens, "Conditional Image Synthesis With Auxiliary Classifier GANs", arXiv 1610.09585, eq. 3.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from gansound.precision import full_precision


class AuxiliaryClassification:
    """Cross-entropy of the classes, averaged over the batch and summed over sub-discriminators; in nats, float32.

    Class logits are `(B, classes)` or `(B, classes, …)`, labels `(B,)` int64.
    """

    def discriminator(
        self,
        real_logits: Sequence[Tensor],
        fake_logits: Sequence[Tensor],
        real_labels: Tensor,
        fake_labels: Tensor,
    ) -> Tensor:
        """On real and on fake: both players raise the likelihood of the class (the paper's L_C)."""
        return _cross_entropy(real_logits, real_labels) + _cross_entropy(fake_logits, fake_labels)

    def generator(self, fake_logits: Sequence[Tensor], fake_labels: Tensor) -> Tensor:
        """On what was generated for the labels."""
        return _cross_entropy(fake_logits, fake_labels)


def _cross_entropy(class_logits: Sequence[Tensor], labels: Tensor) -> Tensor:
    terms = []
    for logits in class_logits:
        every = labels.view(-1, *(1 for _ in logits.shape[2:])).expand(-1, *logits.shape[2:])
        terms.append(F.cross_entropy(full_precision(logits), every))
    return torch.stack(terms).sum()
