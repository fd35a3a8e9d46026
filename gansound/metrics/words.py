"""Word errors of an offline recogniser: PocketSphinx with the US English model inside its package.

A weak recogniser by today's measure, and so a sensitive one: read its rate against the rate on ground truth.
Text is normalised alike on both sides: Unicode compatibility form, lower case, typographic apostrophes to ', every
other character that is not a letter, digit or apostrophe to a space, hyphens too, no apostrophes at a word's ends.
Digits stay digits; the recogniser writes words, so give spelled-out text. Needs the extra `eval`.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from gansound.audio import resample
from gansound.extras import require
from gansound.metrics.pair import UndefinedMeasure, one_waveform

RECOGNISER_SAMPLE_RATE = 16000


class WordErrors(NamedTuple):
    """Substitutions, deletions and insertions against `words` spoken; the rate may exceed 1."""

    errors: int
    words: int

    @property
    def rate(self) -> float:
        """Errors per word spoken."""
        return self.errors / self.words


def normalise(text: str) -> str:
    """Words in lower case with single spaces between them, as the module's header says."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("‘", "'")
    words = re.sub(r"[^\w']|_", " ", text).split()
    return " ".join(stripped for word in words if (stripped := word.strip("'")))


def count_errors(text: str, hypothesis: str) -> WordErrors:
    """Word errors between two texts, both normalised first.

    Raises:
        UndefinedMeasure: no word is left of `text`.
    """
    require("The word error rate", "jiwer")
    from jiwer import process_words

    spoken, heard = normalise(text), normalise(hypothesis)
    if not spoken:
        raise UndefinedMeasure(f"word error rate: no word in the text {text!r}")
    if not heard:
        return WordErrors(len(spoken.split()), len(spoken.split()))
    out = process_words(spoken, heard)
    return WordErrors(out.substitutions + out.deletions + out.insertions, len(spoken.split()))


@lru_cache(maxsize=1)
def _decoder() -> Any:
    require("The word error rate", "pocketsphinx")
    from pocketsphinx import Decoder

    return Decoder(samprate=RECOGNISER_SAMPLE_RATE, loglevel="FATAL")


def recognise(audio: ArrayLike, sample_rate: int) -> str:
    """What PocketSphinx hears in `(T,)` audio. Each call starts anew: the same audio, the same words."""
    samples = resample(one_waveform(audio, "audio", sample_rate), sample_rate, RECOGNISER_SAMPLE_RATE)
    pcm = np.round(np.clip(samples, -1.0, 1.0) * 32767.0).astype("<i2")
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(pcm.tobytes(), no_search=False, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def word_errors(audio: ArrayLike, sample_rate: int, text: str) -> WordErrors:
    """Word errors of the recogniser on `(T,)` audio of somebody saying `text`."""
    return count_errors(text, recognise(audio, sample_rate))
