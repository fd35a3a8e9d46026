"""A small acoustic model: phones to mels of `default`, in chunks, each as soon as it is asked for.

After FastSpeech 2 (Ren et al., arXiv 2006.04558) and FastPitch (Łańcucki, arXiv 2006.06873): phones are encoded, each
is given a duration and a pitch and spread over its frames, and frames are decoded to mels. All of it is ConvNeXt blocks
in place of attention, so that a frame depends on few others: a chunk is decoded with what those blocks see around it,
and is what it would be in the whole. Noise comes in with the frames, for the decoder learns against a discriminator
(`learn.py`).
"""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gansound.nn.convnext import ConvNeXtBlock, FrameConv

PHONES = [
    "pau", "a", "aa", "ae", "ay", "b", "bb", "c", "ch", "d", "dd", "e", "ee", "f", "ff", "g", "gg", "h", "hh", "i",
    "ii", "j", "k", "kk", "l", "ll", "m", "mm", "n", "nn", "oo", "p", "pp", "r", "rr", "s", "sch", "sh", "ss", "t",
    "tt", "u", "ur", "uu", "v", "vv", "y", "yy", "z", "zh", "zz",
]  # fmt: skip
PAUSE = PHONES.index("pau")
BANDS, NOISE = 80, 16
PHONE_BLOCKS, FRAME_BLOCKS, KERNEL = 3, 5, 7
PHONE_REACH = (1 + PHONE_BLOCKS) * (KERNEL // 2)  # phones that one depends on to each side
FRAME_REACH = (1 + FRAME_BLOCKS) * (KERNEL // 2)  # and frames
PITCH_HZ = 120.0  # of pitch 0; pitches are octaves from there


class Acoustic(nn.Module):
    """Phones to mels.

    Args:
        width, hidden: of the blocks.

    Shape: phones `(B, P)`, durations in frames and pitches in octaves `(B, P)` each.
    """

    def __init__(self, width: int = 128, hidden: int = 272) -> None:
        super().__init__()

        def stack(channels: int, depth: int) -> nn.Sequential:
            blocks = [ConvNeXtBlock(width, hidden, KERNEL, initial_scale=1 / depth) for _ in range(depth)]
            return nn.Sequential(FrameConv(channels, width, KERNEL), *blocks, nn.LayerNorm(width))

        self.embedding = nn.Embedding(len(PHONES), width)
        self.encoder = stack(width, PHONE_BLOCKS)
        self.prosody_head = nn.Linear(width, 2)  # ln(1 + frames), pitch
        self.decoder = nn.Sequential(stack(width + 3 + NOISE, FRAME_BLOCKS), nn.Linear(width, BANDS))
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(BANDS))
        self.register_buffer("scale", torch.ones(BANDS))

    @classmethod
    def load(cls, file: Path) -> "Acoustic":
        """What `learn.py` wrote."""
        weights = {name: value.float() for name, value in load_file(file).items()}
        model = cls()
        model.load_state_dict(weights)
        return model.eval().requires_grad_(False)

    def encode(self, phones: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What is known of each phone `(B, P, width)`, its ln(1 + frames) and its pitch `(B, P)`.

        An utterance stands in pauses: what is seen beyond its ends is what is seen of a longer one's padding.
        """
        around = nn.functional.pad(phones, (PHONE_REACH, PHONE_REACH), value=PAUSE)
        known = self.encoder(self.embedding(around))[:, PHONE_REACH:-PHONE_REACH]
        return known, *self.prosody_head(known).unbind(-1)

    def features(self, known: Tensor, frames: Tensor, pitch: Tensor) -> Tensor:
        """What the decoder takes `(F, width + 3 + NOISE)`, of one utterance `(P, width)`, `(P,)` and `(P,)`.

        Its phone's, then how far in that phone a frame lies, how long the phone is, and the pitch on the line between
        the middles of phones; noise.
        """
        ends = frames.cumsum(0)
        frame = torch.arange(int(ends[-1]), device=known.device)
        phone = torch.searchsorted(ends, frame, right=True)
        length = frames[phone]
        inside = (frame + 0.5 - (ends - frames)[phone]) / length
        line = _between(frame + 0.5, ends - frames / 2, pitch)
        about = torch.stack((inside, length.float().log1p(), line), 1)
        noise = torch.randn(len(frame), NOISE, device=known.device)
        return torch.cat((known[phone], about, noise), 1)

    def decode(self, features: Tensor) -> Tensor:
        """Mels `(B, F, BANDS)` in units of their spread, of `(B, F, width + 3 + NOISE)`."""
        return self.decoder(features)

    @torch.inference_mode()
    def mels(
        self,
        phones: list[int],
        chunk_frames: int | None = None,
        *,
        frames: Tensor | None = None,
        pitch: Tensor | None = None,
        slower: float = 1.0,
        seed: int = 0,
    ) -> Iterator[Tensor]:
        """The mel `(BANDS, F)` of an utterance, in chunks; in one without `chunk_frames`.

        Args:
            phones: places in PHONES.
            chunk_frames: of each chunk but the last.
            frames: each phone's, where they are known, as a recording's are; else the model's.
            pitch: likewise.
            slower: factor on the model's durations.
            seed: of the noise; two give mels that differ in what can't be foretold.
        """
        torch.manual_seed(seed)
        known, log_frames, own_pitch = (part[0] for part in self.encode(torch.tensor([phones])))
        if frames is None:
            frames = (slower * log_frames.expm1()).round().long().clamp(min=1)
        features = self.features(known, frames, own_pitch if pitch is None else pitch)
        total = len(features)
        step = chunk_frames or total
        for start in range(0, total, step):
            first, end = max(start - FRAME_REACH, 0), min(start + step, total)
            decoded = self.decode(features[None, first : end + FRAME_REACH])[0, start - first : end - first]
            yield (decoded * self.scale + self.mean).T


def _between(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Linear interpolation of `values` at rising `places`; the first and the last value beyond them."""
    right = torch.searchsorted(places, at).clamp(1, max(1, len(places) - 1))
    if len(places) == 1:
        return values.expand(len(at))
    left = right - 1
    share = ((at - places[left]) / (places[right] - places[left])).clamp(0, 1)
    return torch.lerp(values[left], values[right], share)
