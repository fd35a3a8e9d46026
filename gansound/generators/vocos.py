"""Vocos: ConvNeXt blocks at the frame rate, and an inverse STFT that makes the waveform.

Siuzdak, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders for high-quality audio
synthesis" (arXiv 2306.00814); layers and sizes as published in gemelo-ai/vocos for mels at 24 kHz.
"""

from collections import OrderedDict

from torch import nn

from gansound.mel import MelSpec
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.generator import StreamingGenerator
from gansound.nn.istft import ISTFT, ChannelsLast, Polar


class VocosGenerator(StreamingGenerator):
    """Mel frames to samples.

    The frames of the inverse STFT stand where the mel's stand, so its framing is the mel's: "center" as in the
    published nets for mels, "same" as in those for codes. Centred, F frames of mel are those of `(F - 1) * hop_length`
    samples; one hop more is made here, to the end of the hop that the last frame's middle begins.

    Departure from the published code: the nets that are conditioned on a codec's bandwidth (AdaLayerNorm) aren't
    built; a mel has none.

    Args:
        mel: the convention of the mels it is given; its hop and framing are those of the inverse STFT.
        channels: width of the blocks.
        hidden_channels: width inside each block.
        blocks: how many.
        kernel_size: frames that the first and each depthwise convolution see.
        n_fft: of the inverse STFT, a multiple of the hop; the mel's where it is None.
        causal: look at the past only; the inverse STFT still waits for half a frame (less half a hop in framing
            "same").

    Shape:
        mel `(B, n_mels, F)`, F >= 1 → audio `(B, F * hop_length)`.

    Raises:
        ValueError: a size isn't positive, the kernel is even and not causal, or frames that can't be inverted hop by
            hop.
    """

    def __init__(
        self,
        mel: MelSpec,
        channels: int = 512,
        hidden_channels: int = 1536,
        blocks: int = 8,
        kernel_size: int = 7,
        n_fft: int | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__()
        if min(channels, hidden_channels, blocks) < 1:
            raise ValueError(
                f"channels, hidden_channels and blocks must be 1 or more, got {channels}, {hidden_channels}, {blocks}"
            )
        n_fft = mel.n_fft if n_fft is None else n_fft
        self.n_mels = mel.n_mels
        self.hop_length = mel.hop_length
        convnext = [
            ConvNeXtBlock(channels, hidden_channels, kernel_size, initial_scale=1 / blocks, causal=causal)
            for _ in range(blocks)
        ]
        self.layers = nn.Sequential(
            OrderedDict(
                frames=ChannelsLast(),
                embed=FrameConv(mel.n_mels, channels, kernel_size, causal=causal),
                embed_norm=nn.LayerNorm(channels, eps=1e-6),
                blocks=nn.Sequential(*convnext),
                final_norm=nn.LayerNorm(channels, eps=1e-6),
                head=nn.Linear(channels, n_fft + 2),  # log-magnitudes, then phases
                spectrum=Polar(),
                istft=ISTFT(n_fft, mel.hop_length, mel.framing),
            )
        )
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def vocos_keys(generator: VocosGenerator) -> dict[str, str]:
    """Our state-dict keys and, for each, the key that gemelo-ai/vocos uses for the same tensor.

    Convolutions are images of height one here: their weights have one more dimension, of size 1 at place 2. Their
    checkpoints also hold the window, as `head.istft.window`, which is a constant here.
    """
    names = {
        "layers.embed.conv": "backbone.embed",
        "layers.embed_norm": "backbone.norm",
        "layers.final_norm": "backbone.final_layer_norm",
        "layers.head": "head.out",
    }
    inside = {"depthwise.conv": "dwconv", "norm": "norm", "expand": "pwconv1", "contract": "pwconv2"}
    keys = {}
    for block, layer in enumerate(generator.layers.get_submodule("blocks").children()):
        ours, theirs = f"layers.blocks.{block}", f"backbone.convnext.{block}"
        names |= {f"{ours}.{one}": f"{theirs}.{other}" for one, other in inside.items()}
        assert isinstance(layer, ConvNeXtBlock)
        keys[f"{ours}.scale"] = f"{theirs}.gamma"
    for key in generator.state_dict():
        if key not in keys:
            name, _, tensor = key.rpartition(".")
            keys[key] = f"{names[name]}.{tensor}"
    return keys
