"""Counts in words, as they are printed and logged."""


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number of things: `1 file`, `2 files`, `0 copies`.

    Args:
        number: how many.
        thing: the word for one, with what follows it.
        things: for any other number; an s on that of one by default.
    """
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"
