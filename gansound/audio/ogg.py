"""Pages of Ogg files: where a logical stream ends and another begins (RFC 3533)."""

from gansound.audio.containers import Read

_BEGINS, _ENDS = 2, 4


def links(read: Read, at: int, size: int) -> tuple[list[tuple[int, int]], bool]:
    """Start and stop of each stream, one behind the other as links of a chain; and whether the last one has its end.

    Streams that run side by side are one link.
    """
    found: list[list[int]] = []
    opened: set[bytes] = set()
    ended: set[bytes] = set()
    beginning = False
    while at + 27 <= size:
        head = read(at, 27 + 255)
        if head[:4] != b"OggS":
            following = _next(read, at + 1, size)
            if following is None:
                break
            at = following
            continue
        serial, flags = head[14:18], head[5]
        if flags & _BEGINS and not beginning:
            found.append([at, at])
            opened, ended = set(), set()
        beginning = bool(flags & _BEGINS)
        if beginning:
            opened.add(serial)
        length = 27 + head[26] + sum(head[27 : 27 + head[26]])
        if at + length > size:
            ended.clear()  # the last page is cut
            at = size
            break
        if flags & _ENDS:
            ended.add(serial)
        at += length
        if found:
            found[-1][1] = at
    return [(start, stop) for start, stop in found], not opened or opened <= ended


def _next(read: Read, at: int, size: int) -> int | None:
    while at + 4 <= size:
        window = read(at, 1 << 16)
        if (place := window.find(b"OggS")) >= 0:
            return at + place
        at += max(1, len(window) - 3)
    return None
