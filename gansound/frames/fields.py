"""What is asked of the fields of a kind of frame, whose values may come from a stranger's file."""

from collections.abc import Iterable, Mapping


def check_whole(kind: str, fields: object, most: Mapping[str, int]) -> None:
    """Raises ValueError where a field isn't a whole number of 1 to the most that is sensible."""
    for name, limit in most.items():
        value = getattr(fields, name)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= limit:
            raise ValueError(f"{kind} {name}: got {value!r}, expected a whole number of 1 to {limit}")


def check_keys(kind: str, values: Iterable[str], known: Iterable[str]) -> None:
    """Raises ValueError that names what is unknown or missing."""
    if different := set(values) ^ set(known):
        raise ValueError(
            f"{kind}: unknown or missing key {', '.join(sorted(different))}; known: {', '.join(known)}"
        )
