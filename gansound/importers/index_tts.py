"""The decoder of IndexTTS 1 and 1.5 (index-tts/index-tts): `bigvgan_generator.pth` with its config.yaml.

Deng et al., "IndexTTS: An Industrial-Level Controllable and Efficient Zero-Shot Text-To-Speech System", arXiv
2502.05512: a BigVGAN (Lee et al., arXiv 2206.04658) on the latents of a GPT, one a frame, whose speaker's embedding is
added before the first stage and behind the upsampling of each. The ECAPA-TDNN that makes such embeddings of a
recording's mel lies in the same file, and is left aside.
"""

import math
from dataclasses import replace

from gansound.frames import LatentSpec
from gansound.generators.bigvgan import bigvgan_keys
from gansound.importers import bigvgan
from gansound.importers.checkpoint import Checkpoint
from gansound.importers.hifigan import notes_on
from gansound.importers.project import Described
from gansound.importers.voice import fold_voice, stages, voice_of

TITLE = "IndexTTS 1 and 1.5 (index-tts/index-tts), its decoder"
_FEATURES = 4.0  # columns of each latent, where they are interpolated


def recognises(checkpoint: Checkpoint) -> bool:
    """A BigVGAN, and an embedding beside its first convolution."""
    return bigvgan.recognises(checkpoint) and "cond_layer.weight" in checkpoint.weights


def describe(checkpoint: Checkpoint) -> Described:
    """By config.yaml's `bigvgan`."""
    weights = {
        name: tensor for name, tensor in checkpoint.weights.items() if not name.startswith("speaker_encoder.")
    }
    embedding, speaker = voice_of(checkpoint, weights["cond_layer.weight"].shape[1])
    fold_voice(weights, stages(weights, "ups.{}.0"), embedding)
    channels = checkpoint.setting("bigvgan", "gpt_dim")
    settings = replace(checkpoint, config=dict(checkpoint.setting("bigvgan")) | {"num_mels": channels})
    made = bigvgan.arguments(settings)
    latent = LatentSpec(
        channels,
        settings.setting("sampling_rate"),
        math.prod(made["upsample_rates"]),
        (_FEATURES,) if settings.setting("feat_upsample") else (),
    )
    return Described(
        bigvgan.CLASS,
        made,
        latent,
        bigvgan_keys,
        weights=weights,
        speaker=speaker,
        constants=bigvgan.CONSTANTS,
        notes=[
            "takes the latents of IndexTTS's GPT, channels before time; no mel and no recording will do",
            *notes_on(made),
        ],
    )
