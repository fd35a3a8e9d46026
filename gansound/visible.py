"""Text from outside, such as a file's name, made fit to be shown: nothing in it moves, colours or forges anything."""

import codecs
import html
import re

# Control characters (ESC is one), what turns the direction of writing, separators of lines, bytes that are no UTF-8.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_NAMED = {"\n": r"\n", "\t": r"\t", "\r": r"\r"}
# What gansound itself writes beyond ASCII, for a stream that has no such character.
_PLAIN = {
    "•": "*",
    "–": "-",
    "…": "...",
    "×": "x",
    "±": "+/-",
    "≥": ">=",
    "≤": "<=",
    "→": "->",
    "²": "2",
    "µ": "u",
}


def visible(text: object) -> str:
    r"""A name, or anything else that stays on its line, with what isn't meant to be seen written out.

    >>> print(visible("a\x1b[31mb\nc.wav"), visible("caf\udce9.wav"))
    a\x1b[31mb\nc.wav caf\xe9.wav
    """
    return _HIDDEN.sub(_written_out, str(text))


def visible_html(text: object) -> str:
    """As `visible`, in a page of HTML."""
    return html.escape(visible(text))


def visible_lines(text: object) -> str:
    """A message, with its lines kept; those after the first are set in, so that none looks like another message."""
    first, *rest = str(text).split("\n")
    return "\n".join([visible(first), *(f"  {visible(line)}" if line.strip() else "" for line in rest)])


def _written_out(found: "re.Match[str]") -> str:
    character = found[0]
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # a byte of a name that isn't UTF-8, as Python's surrogateescape has it
        number -= 0xDC00
    return _NAMED.get(character) or (f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}")


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    plain = (_PLAIN.get(c) or (_written_out(m) if (m := _HIDDEN.match(c)) else _escaped(c)) for c in text)
    return "".join(plain), error.end


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode()


ENCODING_ERRORS = "gansound.plain"
"""For `errors=` of a text stream: what its encoding lacks is written in plain characters, and nothing raises."""
codecs.register_error(ENCODING_ERRORS, _plain)
