"""Differentiable augmentation of what the discriminator sees; operations in `.wave` and `.mel`."""

from gansound.discriminators.augmentation.pipeline import Augmentation, Augmentations, Domain, InstanceNoise

__all__ = ["Augmentation", "Augmentations", "Domain", "InstanceNoise"]
