"""A model for mels of another convention than its own, or why it can't be and the ways out."""

from dataclasses import replace

from torch import nn

from gansound.frames import PitchedSpec, mel_of
from gansound.generators.converted import ConvertedGenerator
from gansound.generators.universal import UniversalGenerator
from gansound.mel import MelSpec
from gansound.mel.conversion import conversion
from gansound.model_folder import LoadedModel
from gansound.nn.generator import StreamingGenerator

HOW_TO_STREAM = (
    "Derive it from gansound.nn.generator.StreamingGenerator and build it from the layers of gansound.nn"
)

# Where one convention's mels stand in for another's that differs in no more.
_INAUDIBLE = ("framing", "padding", "window", "magnitude_eps")


def in_convention(model: LoadedModel, mel: MelSpec) -> LoadedModel:
    """The same model for mels of another convention.

    Raises:
        ValueError: it can't take them; the message says which fields differ, and the ways out.
    """
    own = mel_of(model.frame_spec) or model.mel
    if mel == own:
        return model
    pitched = isinstance(model.takes, PitchedSpec)
    generator: nn.Module
    config = model.config
    if isinstance(model.generator, UniversalGenerator):
        try:
            generator = model.generator.for_mel(mel)
        except ValueError as error:
            raise ValueError(f"{model.path}: {error}") from None
        arguments = {**config.get("init_args", {}), "learnt_by": generator.learnt_by.to_dict()}
        config = {**config, "init_args": arguments}
    elif isinstance(model.generator, StreamingGenerator):
        try:
            generator = ConvertedGenerator(model.generator, own, mel, beside=int(pitched))
        except ValueError as error:
            raise ValueError(f"{model.path}: {error}. {_way_out(own, mel)}") from None
    else:
        raise ValueError(
            f"{model.path}: {type(model.generator).__name__} takes mels of its own convention only, got another: "
            f"{'; '.join(own.differences(mel))}. {HOW_TO_STREAM}"
        )
    takes = PitchedSpec(mel) if pitched else mel
    return replace(model, generator=generator, takes=takes, config=config)


def _way_out(own: MelSpec, mel: MelSpec) -> str:
    """What to do with mels that don't become a model's own."""
    inaudible = {name: getattr(own, name) for name in _INAUDIBLE}
    alike = replace(mel, **inaudible)
    if alike == own:
        return (
            "By no more than that do they differ, which nobody hears: leave the convention out (mel=None, no --mel), "
            "and the sound is as good, at most half a hop earlier or later"
        )
    if _converts(alike, own):
        changed = {name: value for name, value in inaudible.items() if value != getattr(mel, name)}
        return (
            "By no more than that do they differ for good, which nobody hears: say "
            f"dataclasses.replace(mel, {', '.join(f'{name}={value!r}' for name, value in changed.items())}) "
            "(a JSON file of those fields for --mel), which converts, and the sound is as good, at most half a hop "
            "earlier or later"
        )
    return (
        "Make such mels, or take a universal vocoder (recipe universal_cpu), which takes all of about its frame rate; "
        "`gansound mel FILE --model M` says what a mel is in and what its conversion lacks"
    )


def _converts(source: MelSpec, target: MelSpec) -> bool:
    try:
        conversion(source, target)
    except ValueError:
        return False
    return True
