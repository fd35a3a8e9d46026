"""Where the samples lie in WAV, RF64, W64, AIFF, AU, CAF and NIST files, and how many bytes their headers say.

libsndfile takes what is there for what was meant: a cut file counts as whole, and a header whose sizes were never
filled in (0, or as large as can be, as programs leave it that write into a pipe or are killed) as an empty one.
RIFF: https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html, RF64: EBU Tech 3306, AIFF: Apple 1989.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

Read: TypeAlias = Callable[[int, int], bytes]
"""(offset, count) -> so many bytes of the file, fewer at its end."""

_MOST_CHUNKS = 10_000
_NEAR = 1 << 16  # what is so near to 2^31 or 2^32 stands for "not known"
_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of the identifiers of its chunks


@dataclass(frozen=True, slots=True)
class Extent:
    """Samples of a container: ``declared`` bytes from ``start`` on, None where the header doesn't know.

    ``end``: where another container could begin. ``head``: all before the samples. ``fields`` of it count bytes:
    (offset, format, what else it counts).
    """

    start: int
    declared: int | None
    end: int
    head: bytes
    fields: tuple[tuple[int, str, int], ...] = ()

    def header(self, count: int) -> bytes:
        """The head, saying that ``count`` bytes of samples follow."""
        changed = bytearray(self.head)
        for offset, form, more in self.fields:
            most = 256 ** struct.calcsize(form) - 1
            struct.pack_into(form, changed, offset, min(count + more, most))
        return bytes(changed)


def extent(read: Read, begin: int, size: int) -> Extent | None:
    """The extent of the container at a byte of a file of ``size`` bytes; None for another format or a torn header."""
    head = read(begin, 40)
    kind = head[:4], head[8:12]
    if kind[0] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and kind[1] == b"WAVE":
        return _wave(read, begin, size)
    if kind[0] == b"FORM" and kind[1] in (b"AIFF", b"AIFC"):
        return _aiff(read, begin, size)
    if kind[0] in (b".snd", b"dns."):
        return _au(read, begin, size)
    if head[:16] == _W64_RIFF:
        return _w64(read, begin, size)
    if kind[0] == b"caff":
        return _caf(read, begin, size)
    if head[:8] == b"NIST_1A\n":
        return _nist(read, begin, size)
    return None


def _known(declared: int, available: int) -> int | None:
    """A size that a header says, None for one that says that it isn't known."""
    unfilled = any(abs(declared - 2**bits) < _NEAR for bits in (31, 32)) or declared >= 2**62
    return None if unfilled and not 0 <= available - declared < _NEAR else declared


def _chunks(read: Read, at: int, form: str) -> Iterator[tuple[int, bytes, int]]:
    """Offset, name and size of each chunk; padded to two bytes."""
    for _ in range(_MOST_CHUNKS):
        head = read(at, 8)
        if len(head) < 8:
            return
        name, size = struct.unpack(form, head)
        yield at, name, size
        at += 8 + size + size % 2


def _only_chunks(read: Read, at: int, size: int, form: str) -> bool:
    """Whether all from a byte to the end of the file is chunks, and so no samples."""
    for place, name, length in _chunks(read, at, form):
        if not name.isascii() or not name.decode("ascii").isprintable() or place + 8 + length > size:
            return False
        at = place + 8 + length + length % 2
    return size - at < 8


def _wave(read: Read, begin: int, size: int) -> Extent | None:
    order = ">" if read(begin, 4) == b"RIFX" else "<"
    whole = struct.unpack(f"{order}I", read(begin + 4, 4))[0]
    large: tuple[int, int] | None = None  # RF64: of the file, of the samples
    large_at = 0
    for at, name, length in _chunks(read, begin + 12, f"{order}4sI"):
        if name == b"ds64" and len(sizes := read(at + 8, 16)) == 16:
            large, large_at = struct.unpack("<QQ", sizes), at + 8
        if name != b"data":
            continue
        start = at + 8
        if large is not None and length == 2**32 - 1:
            whole, length = large
        declared = _known(length, size - start)
        if declared == 0 and not _only_chunks(read, start, size, f"{order}4sI"):
            declared = None
        if declared is not None and size - start - declared > 2**32 - _NEAR and large is None:
            declared = None  # it counts to 2^32 only, and began anew
        head = read(begin, start - begin)
        if large is None and declared is None and size - start > 2**32 - _NEAR:
            sizes = struct.pack("<4sIQQQI", b"ds64", 28, 0, 0, 0, 0)
            head = b"RF64\xff\xff\xff\xffWAVE" + sizes + head[12:-4] + b"\xff\xff\xff\xff"
            large, large_at = (0, 0), begin + 20
        if large is not None:
            place = large_at - begin
            fields = ((place, "<Q", len(head) - 8), (place + 8, "<Q", 0))
        else:
            fields = ((4, f"{order}I", len(head) - 8), (len(head) - 4, f"{order}I", 0))
        if declared is None:
            return Extent(start, None, size, head, fields)
        after = start + declared + declared % 2
        end = begin + 8 + whole if start + declared <= begin + 8 + whole <= size else after
        return Extent(start, declared, end, head, fields)
    return None


def _aiff(read: Read, begin: int, size: int) -> Extent | None:
    for at, name, length in _chunks(read, begin + 12, ">4sI"):
        if name != b"SSND":
            continue
        offset = 8 + int.from_bytes(read(at + 8, 4), "big")
        start = at + 8 + offset
        if start > size:
            return None
        declared = _known(length, size - start)
        if declared is not None:
            declared = max(0, declared - offset)
        if declared == 0 and not _only_chunks(read, start, size, ">4sI"):
            declared = None
        head = read(begin, start - begin)
        fields = ((4, ">I", len(head) - 8), (at + 4 - begin, ">I", offset))
        end = size if declared is None else start + declared + declared % 2
        return Extent(start, declared, end, head, fields)
    return None


def _au(read: Read, begin: int, size: int) -> Extent | None:
    order = ">" if read(begin, 4) == b".snd" else "<"
    fields = read(begin + 4, 8)
    if len(fields) < 8:
        return None
    offset, length = struct.unpack(f"{order}II", fields)
    if offset >= 1 << 20:
        return None
    start = begin + offset
    declared = _known(length, size - start)
    if declared == 0 and size > start:
        declared = None
    head = read(begin, offset)
    return Extent(
        start,
        declared,
        size if declared is None else start + declared,
        head,
        ((8, f"{order}I", 0),),
    )


def _w64(read: Read, begin: int, size: int) -> Extent | None:
    at = begin + 40
    for _ in range(_MOST_CHUNKS):
        head = read(at, 24)
        if len(head) < 24:
            return None
        length = struct.unpack("<Q", head[16:])[0]
        if head[:4] == b"data" and head[4:16] == _W64_TAIL:
            start, place = at + 24, at + 16 - begin
            declared = _known(length, size - start)
            if declared is not None:
                declared = None if declared <= 24 and size > start else max(0, declared - 24)
            before = read(begin, start - begin)
            return Extent(
                start,
                declared,
                size if declared is None else start + declared + -declared % 8,
                before,
                ((16, "<Q", len(before)), (place, "<Q", 24)),
            )
        at += max(24, length) + -length % 8
    return None


def _caf(read: Read, begin: int, size: int) -> Extent | None:
    at = begin + 8
    for _ in range(_MOST_CHUNKS):
        head = read(at, 12)
        if len(head) < 12:
            return None
        name, length = struct.unpack(">4sq", head)
        if name == b"data":
            start, place = at + 16, at + 4 - begin  # 4 bytes count its edits
            declared = None if length <= 4 else _known(length - 4, size - start)
            if length in (0, 4) and size <= start:
                declared = 0
            before = read(begin, start - begin)
            return Extent(
                start,
                declared,
                size if declared is None else start + declared,
                before,
                ((place, ">Q", 4),),
            )
        if length < 0:
            return None
        at += 12 + length
    return None


def _nist(read: Read, begin: int, size: int) -> Extent | None:
    lines = read(begin, 1024).split(b"end_head")[0].split(b"\n")
    try:
        length = int(lines[1])
        values = {words[0]: words[2] for line in lines[2:] if len(words := line.split(maxsplit=2)) == 3}
        counts = [int(values[name]) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
    except (ValueError, IndexError, KeyError):
        return None
    if b"embedded" in values.get(b"sample_coding", b"") or min(counts) < 0:
        return None  # packed: its bytes aren't so many
    declared = counts[0] * counts[1] * counts[2]
    if not 0 < length < 1 << 20:
        return None
    head = read(begin, length)
    return Extent(begin + length, declared, begin + length + declared, head)
