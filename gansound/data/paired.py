"""Segments of recordings with the mel that an acoustic model made of each."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from gansound.data.items import Item
from gansound.data.pairs import Pair
from gansound.data.segments import SegmentDataset
from gansound.mel import MelSpec
from gansound.mel.levels import silence_and_full_scale


class PairedDataset(SegmentDataset):
    """`SegmentDataset` of pairs: segments begin at frames, and an item has `mel` (n_mels, segment_samples / hop) too.

    Args:
        pairs: recordings with their mels.
        spec: the convention of the mels.
        settings: of `SegmentDataset`, but for `speed`, `gain_db` and `crop`; `segment_samples` is a multiple of the
            hop.
    """

    def __init__(self, pairs: Sequence[Pair], spec: MelSpec, **settings: Any) -> None:
        super().__init__([pair.record for pair in pairs], sample_rate=spec.sample_rate, **settings)
        self.pairs = list(pairs)
        self.spec = spec
        assert self.segment_samples % spec.hop_length == 0
        self._silence = silence_and_full_scale(spec)[0].numpy()

    def whole(self, index: int) -> Item:
        """All that a recording and its mel have in common: `audio` `(F * hop_length,)` and `mel` `(n_mels, F)`.

        And `f0` `(F,)`, where a pitch is asked for.
        """
        first, frames = self._common(index)
        offset, hop = self.pairs[index].offset_frames, self.spec.hop_length
        mel = self.pairs[index].mel(self.spec)[:, first : first + frames]
        sound = self.source.read(index, (first + offset) * hop, frames * hop)[0]
        pitch = {} if self.pitch is None else {"f0": self.pitch.at(index, first + offset, frames)}
        return {"audio": sound, "mel": mel} | pitch

    def _common(self, index: int) -> tuple[int, int]:
        """The mel's first frame that the recording has too, and how many there are."""
        pair = self.pairs[index]
        first = max(0, -pair.offset_frames)
        there = int(self.source.frames[index]) // self.spec.hop_length - pair.offset_frames
        return first, max(0, min(pair.frames, there) - first)

    def _make(self, position: int, chosen: int, rng: np.random.Generator) -> Item:
        hop, pair = self.spec.hop_length, self.pairs[chosen]
        wanted = self.segment_samples // hop
        first, there = self._common(chosen)
        count = min(wanted, there)
        samples = np.zeros(self.segment_samples, dtype=np.float32)
        shown = np.repeat(self._silence, wanted, axis=1)
        begin = first
        for _ in range(self.tries):
            begin = first + int(rng.integers(there - count + 1))
            found = self.source.read(chosen, (begin + pair.offset_frames) * hop, count * hop)[0]
            if self.is_heard(chosen, found):
                break
        samples[: count * hop] = found
        shown[:, :count] = pair.mel(self.spec)[:, begin : begin + count]
        return {
            "audio": samples,
            "mel": shown,
            "record": chosen,
            "start": (begin + pair.offset_frames) * hop,
            "gain_db": 0.0,
            "bandwidth_hz": self.bandwidth_hz(chosen),
        } | self._f0(chosen, (begin + pair.offset_frames) * hop)
