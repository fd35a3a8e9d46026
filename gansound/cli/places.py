"""Where the recordings of a command lie: a folder, a manifest or a store."""

from pathlib import Path

from gansound.cli.errors import UsageError


def place(text: str) -> Path | str:
    """A path, or a URL as it is, of whose two slashes a path would make one."""
    from gansound.data.store import is_url

    return text if is_url(text) else Path(text)


def check_place(data: Path | str) -> None:
    """Raises UsageError where nothing is there, or a URL can't be opened on this machine."""
    if isinstance(data, Path):
        if not data.exists():
            raise UsageError(f"--data {data}: no such folder or manifest")
        return
    from gansound.data import store

    try:
        store.check(data)
    except ValueError as error:
        raise UsageError(f"--data: {error}") from None
