"""What a frame is that a vocoder takes: a mel (`gansound.mel`), or what is no mel, one file a kind."""

from collections.abc import Mapping

from gansound.frames.codes import CodeSpec
from gansound.frames.interpolation import Interpolation
from gansound.frames.latent import LatentSpec
from gansound.frames.pitched import PitchedSpec
from gansound.mel import MelSpec

FrameSpec = MelSpec | LatentSpec | PitchedSpec | CodeSpec
"""All have `kind`, `n_mels` (the height of a frame), `sample_rate`, `hop_length`, `to_dict`, `from_dict`, `check`,
`beyond_sound`, `suspicions`, `padded`, `in_words` and `noise`."""

SPECS: Mapping[str, type[FrameSpec]] = {
    spec.kind: spec for spec in (MelSpec, LatentSpec, PitchedSpec, CodeSpec)
}
"""By the name under which a model folder and an exported graph say what they take."""

__all__ = ["SPECS", "CodeSpec", "FrameSpec", "Interpolation", "LatentSpec", "PitchedSpec", "mel_of"]


def mel_of(spec: FrameSpec) -> MelSpec | None:
    """The convention of the mels in such frames; None where there are none."""
    inner = spec.frames if isinstance(spec, PitchedSpec) else spec
    return inner if isinstance(inner, MelSpec) else None
