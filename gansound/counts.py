"""Counts in words, as they are printed and logged."""


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number of things: `1 file`, `2 files`, `0 copies`.

    Args:
        number: how many.
        thing: the word for one, with what follows it.
        things: for any other number; an s on that of one by default.
    """
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


def some_of(part: int, whole: int, thing: str, does: str = "", do: str = "") -> str:
    """Some of so many things: `1 of 2 files is`, `2 of 2 files are`; without a verb `1 of 1 file`.

    Args:
        part: how many.
        whole: of how many.
        thing: the word for one of them.
        does: the verb of one.
        do: that of several.
    """
    return f"{part} of {counted(whole, thing)} {does if part == 1 else do}".rstrip()
