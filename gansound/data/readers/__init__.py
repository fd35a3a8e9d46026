"""The layouts of public corpora, a module each, and any folder of audio.

Each module has ``EXPECTED``, ``recognises`` and ``read`` (:class:`~gansound.data.readers.entry.Reader`). They are
read here and not through torchaudio's classes of the same corpora (2.11), which want the archive's own folder
inside a root or download it; give samples, decoded by torchcodec, a package of its own, where paths are wanted;
hold one subset of LibriTTS or one table of Common Voice each, so not the corpus with its splits; raise where a text
is missing, as some of LibriTTS-R are; and read Common Voice's tables with CSV's quoting, where a sentence that
begins with a lone ``"`` swallows the rows after it.
"""

from typing import cast

from gansound.data.readers import (
    common_voice,
    folder,
    hugging_face,
    libritts,
    ljspeech,
    speech_commands,
    vctk,
)
from gansound.data.readers.entry import Reader

# In order of recognition: any folder is the last.
READERS: dict[str, Reader] = {
    "ljspeech": cast(Reader, ljspeech),
    "libritts": cast(Reader, libritts),
    "vctk": cast(Reader, vctk),
    "common_voice": cast(Reader, common_voice),
    "speech_commands": cast(Reader, speech_commands),
    "hugging_face": cast(Reader, hugging_face),
    "folder": cast(Reader, folder),
}
