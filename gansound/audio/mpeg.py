"""Frames of MPEG audio (MP3), counted one by one.

Its length stands nowhere but in an optional first frame (Xing, Info), which may be wrong or lack; libsndfile believes
it, and guesses from the first frame's bit rate without it. Here the frames are counted, and that first frame is put
right or made. Headers: ISO/IEC 11172-3 and 13818-3; the Xing frame: http://gabriel.mp3-tech.org/mp3infotag.html.
"""

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from gansound.audio.containers import Read

_KILOBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_KILOBITS[2, 3] = _KILOBITS[2, 2]
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_GARBAGE_BYTES = 1 << 20  # between two frames; what comes after more isn't looked for
_SLACK_BYTES = 512


@dataclass(slots=True)
class Run:
    """Frames that belong together: ``spans`` of bytes, ``count`` frames, the Xing frame that leads them if any."""

    family: tuple[int, ...]
    first: bytes  # header of the first frame
    xing: tuple[int, int] | None = None  # its start and stop
    spans: list[list[int]] = field(default_factory=list)
    count: int = 0
    torn: bool = False  # a last frame that isn't all there

    def declared(self, read: Read) -> tuple[int | None, int | None]:
        """Frames and bytes that the Xing frame says."""
        if self.xing is None:
            return None, None
        at = self.xing[0] + _side(self.first)
        flags, one, two = struct.unpack(">III", read(at + 4, 12))
        frames = one if flags & 1 else None
        return frames, (two if flags & 1 else one) if flags & 2 else None

    def lost(self, read: Read, size: int) -> int:
        """Samples that the Xing frame says and the file, which is cut, doesn't hold."""
        frames, length = self.declared(read)
        if frames is None or self.xing is None or frames <= self.count + 1:
            return 0
        short = length is not None and self.xing[0] + length > size + _SLACK_BYTES
        return (frames - self.count) * _samples(self.first) if short or self.torn else 0

    def leading(self, read: Read) -> bytes:
        """A Xing frame that says how many frames there are."""
        length = sum(stop - start for start, stop in self.spans)
        if self.xing is not None and self.declared(read)[0] is not None:
            frame = bytearray(read(self.xing[0], self.xing[1] - self.xing[0]))
            at = _side(self.first)
            flags = struct.unpack_from(">I", frame, at + 4)[0]
            struct.pack_into(">I", frame, at + 8, self.count)
            if flags & 2:
                struct.pack_into(">I", frame, at + 12, length + len(frame))
            return bytes(frame)
        # Of the largest bit rate, so that it has room; without a checksum.
        head = bytes([self.first[0], self.first[1] | 1, self.first[2] & 0x0D | 0xE0, self.first[3]])
        size = frame_length(head)
        side = _side(head)
        xing = struct.pack(">4sIII", b"Info", 3, self.count, length + size)
        return (head.ljust(side, b"\0") + xing).ljust(size, b"\0")


@functools.lru_cache(maxsize=4096)
def frame_length(head: bytes) -> int:
    """Bytes of the frame that four bytes begin, 0 when they begin none (or one of a free bit rate)."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return 0
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    rate, bits = head[2] >> 2 & 3, head[2] >> 4
    if version == 1 or layer == 4 or rate == 3 or bits in (0, 15) or head[3] & 3 == 2:
        return 0
    bit_rate = 1000 * _KILOBITS[1 if version == 3 else 2, layer][bits - 1]
    hertz, padding = _RATES[version][rate], head[2] >> 1 & 1
    if layer == 1:
        return (12 * bit_rate // hertz + padding) * 4
    return (72 if layer == 3 and version != 3 else 144) * bit_rate // hertz + padding


def _family(head: bytes) -> tuple[int, ...]:
    """What doesn't change within a sound: version, layer, rate, mono or not."""
    return head[1] & 0x1E, head[2] & 0x0C, int(head[3] >> 6 == 3)


def _samples(head: bytes) -> int:
    """Of a frame, a channel."""
    layer = 4 - (head[1] >> 1 & 3)
    if layer == 1:
        return 384
    return 576 if layer == 3 and head[1] >> 3 & 3 != 3 else 1152


def _side(head: bytes) -> int:
    """Where a Xing tag stands in its frame."""
    mono = head[3] >> 6 == 3
    if head[1] >> 3 & 3 == 3:
        return 21 if mono else 36
    return 13 if mono else 21


def begins(read: Read, at: int, size: int) -> bool:
    """Whether two frames of one family follow each other, or one ends the file."""
    head = read(at, 4)
    length = frame_length(head)
    if not length:
        return False
    following = read(at + length, 4)
    if at + length >= size:
        return at + length == size
    return following[:3] in (b"TAG", b"ID3") or (
        frame_length(following) > 0 and _family(following) == _family(head)
    )


def runs(read: Read, at: int, size: int) -> Iterator[Run]:
    """The sounds of a file from a byte on: another begins with each Xing frame, and where rate or channels change."""
    run: Run | None = None
    while at + 4 <= size:
        head = read(at, 4)
        if head[:3] == b"ID3":
            at += id3_bytes(read, at)
            continue
        length = frame_length(head)
        if not length or ((run is None or _family(head) != run.family) and not begins(read, at, size)):
            if (found := _next(read, at + 1, size)) is None:
                break
            at = found
            continue
        if at + length > size:
            if run is not None:
                run.torn = True
            break
        xing = read(at + _side(head), 4) in (b"Xing", b"Info")
        if run is None or xing or _family(head) != run.family:
            if run is not None:
                yield run
            run = Run(_family(head), head, (at, at + length) if xing else None)
        if not xing:
            run.count += 1
            if run.spans and run.spans[-1][1] == at:
                run.spans[-1][1] = at + length
            else:
                run.spans.append([at, at + length])
        at += length
    if run is not None:
        yield run


def _next(read: Read, at: int, size: int) -> int | None:
    """Where the next frame or tag begins."""
    window = read(at, _GARBAGE_BYTES)
    tag, place = window.find(b"ID3"), window.find(b"\xff")
    while place >= 0 and not 0 <= tag < place:
        if begins(read, at + place, size):
            return at + place
        place = window.find(b"\xff", place + 1)
    return at + tag if tag >= 0 else None


def id3_bytes(read: Read, at: int) -> int:
    """Length of the ID3v2 tag at a byte, 0 where there is none."""
    head = read(at, 10)
    if len(head) < 10 or head[:3] != b"ID3" or max(head[6:]) > 127:
        return 3 * (head[:3] == b"ID3")  # three letters that begin no tag
    length = 0
    for byte in head[6:]:
        length = length << 7 | byte
    return 10 + length + (10 if head[5] & 0x10 else 0)
