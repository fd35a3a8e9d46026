"""gansound: audio GAN synthesis, from corpus to sound."""

__version__ = "0.1.0"
