"""The sound of a generator of log-mels: its mels through a vocoder."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Self

from torch import Tensor, nn

from gansound.generators.latent import LatentGenerator
from gansound.mel import MelSpec
from gansound.nn.fold import fold_parametrizations


class VocodedGenerator(LatentGenerator):
    """Latents to log-mels to a waveform.

    The vocoder is copied, its weight norm folded, and frozen: it learns nothing here.

    Args:
        mel_generator: latents and labels to log-mels, with attributes `prior`, `labels`, `mel` and `frames`, such as
            `gansound.generators.specgan.SpecGANGenerator`.
        vocoder: log-mels to audio: any of gansound's.
        mel: the convention that the vocoder was trained for, as its model folder says it.

    Shape:
        latents `(B, prior.dim)`, labels `(B,)` int64 → `(B, 1, frames * hop_length)`. A clip whose peak the vocoder
        puts above 1 is scaled down to 1.

    Raises:
        ValueError: the generator's convention isn't the vocoder's, or either isn't what it should be.
    """

    def __init__(self, mel_generator: nn.Module, vocoder: nn.Module, mel: MelSpec) -> None:
        super().__init__()
        missing = [name for name in ("prior", "labels", "mel", "frames") if not hasattr(mel_generator, name)]
        if missing:
            raise ValueError(
                f"mel_generator: {type(mel_generator).__name__} has no {', '.join(missing)}, expected a generator of "
                "log-mels such as SpecGANGenerator"
            )
        if different := mel_generator.mel.differences(mel):  # type: ignore[operator, union-attr]
            raise ValueError(
                "the generator's mels aren't those that the vocoder understands: "
                f"{'; '.join(different)}. Train the generator with the vocoder's mel, or take another vocoder"
            )
        for name in ("n_mels", "hop_length"):
            if getattr(vocoder, name, None) != getattr(mel, name):
                raise ValueError(
                    f"vocoder: {type(vocoder).__name__} has {name} {getattr(vocoder, name, None)}, expected its mel's "
                    f"{getattr(mel, name)}"
                )
        self.mel_generator = mel_generator
        self.vocoder = fold_parametrizations(copy.deepcopy(vocoder).eval()).requires_grad_(False)
        self.mel = mel
        self.prior, self.labels = mel_generator.prior, mel_generator.labels  # type: ignore[assignment]
        self.sample_rate, self.channels = mel.sample_rate, 1
        self.clip_samples = mel.samples(mel_generator.frames)  # type: ignore[arg-type]

    def around(self, mel_generator: nn.Module) -> Self:
        """The same vocoder, not a copy of it, behind another such generator of log-mels, such as the average of one."""
        other = copy.copy(self)
        other._modules = self._modules | {"mel_generator": mel_generator}
        return other

    def forward(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Shape: latents `(B, prior.dim)`, labels `(B,)` int64 → `(B, 1, clip_samples)`."""
        self.check_inputs(latents, labels)
        audio: Tensor = self.vocoder(self.mel_generator(latents, labels))
        peak = audio.detach().abs().amax(1, keepdim=True)
        return (audio / peak.clamp(min=1)).unsqueeze(1)


def vocoded_config(
    generator: VocodedGenerator, mel_generator: Mapping[str, Any], vocoder: Mapping[str, Any]
) -> dict[str, Any]:
    """The `{class_path, init_args}` that builds such a generator again, from those of its parts.

    A part's convention may be missing from its own: a recipe and a vocoder's model folder say it beside. Here every
    constructor that takes a `mel` is given it.
    """
    mel = generator.mel.to_dict()

    def complete(part: nn.Module, node: Mapping[str, Any]) -> dict[str, Any]:
        takes_mel = "mel" in inspect.signature(type(part)).parameters
        arguments = dict(node.get("init_args") or {}) | ({"mel": mel} if takes_mel else {})
        return {"class_path": node["class_path"], "init_args": arguments}

    cls = type(generator)
    return {
        "class_path": f"{cls.__module__}.{cls.__qualname__}",
        "init_args": {
            "mel_generator": complete(generator.mel_generator, mel_generator),
            "vocoder": complete(generator.vocoder, vocoder),
            "mel": mel,
        },
    }
