"""Bytes of a file by range, wherever it lies: at a local path, or at a URL that fsspec opens (s3, gs, hf, http …).

The one place that knows of URLs. A store that errs, stalls or sends less than was asked for is asked again, some times
and each time later, and what it answers in the end is a StoreError with the URL in it.
"""

import contextlib
import logging
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from gansound.audio import AudioError
from gansound.extras import missing, require

logger = logging.getLogger(__name__)

T = TypeVar("T")

WAITS_SECONDS = (0.2, 1.0, 3.0, 10.0, 20.0)
"""Before each further try."""
ANSWER_SECONDS = 20.0
"""After which a try has failed, and a second more for each MiB that was asked for."""
_SAID_EVERY_SECONDS = 10.0
_SAID_FROM = 2  # tries: that one in some thousand requests fails is a store's everyday life
_READ_ONLY = ("http", "https")
_NO_BUCKET = ("nosuchbucket", "bucket does not exist", "containernotfound", "container does not exist")
_AGAIN = (408, 425, 429)  # of the answers 400 to 499 those that another time may get another


class StoreError(AudioError):
    """A store doesn't give, or take, what it should: ``URL: reason. What to do``."""


class NotThere(StoreError):
    """A store has no such file."""


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is a URL and no local path."""
    return "://" in os.fspath(place)


def join(place: str, name: str) -> str:
    """A file below a place."""
    return f"{place.rstrip('/')}/{name}"


def check(place: str) -> None:
    """Raises ValueError where a URL can't be opened on this machine: it names the package that lacks."""
    if is_url(place):
        _filesystem(place)


def is_read_only(place: str) -> bool:
    """Whether a URL is one that can't be written."""
    return is_url(place) and place.partition("://")[0] in _READ_ONLY


def read(place: str, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes ``start`` to ``stop`` - 1 of a file, or all of it. Raises StoreError."""
    if not is_url(place):
        return _read_local(place, start, stop)
    wanted = None if stop is None else stop - start

    def once() -> bytes:
        found: bytes = _call(place, "cat_file", wanted or 0, start=start if stop else None, end=stop)
        if wanted is not None and len(found) > wanted:
            raise StoreError(
                f"{place}: sent {len(found):,} bytes for a range of {wanted:,}. The server must serve byte ranges"
            )
        if wanted is not None and len(found) < wanted:
            raise EOFError(f"sent {len(found):,} of {wanted:,} bytes")
        return found

    return _tried(place, once)


def size(place: str) -> int | None:
    """How many bytes a file has; None where there is none. Raises StoreError."""
    if not is_url(place):
        try:
            return Path(place).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{place}: {error.strerror}") from None

    def once() -> int | None:
        _filesystem(place)[0].invalidate_cache()
        try:
            found = _call(place, "info", 0)
        except FileNotFoundError:
            return None
        return int(found["size"]) if found.get("type") != "directory" else None

    return _tried(place, once)


@contextlib.contextmanager
def writing(place: str) -> Iterator[Path]:
    """A local file to be written, which is put in its place, whole, at the end; nothing is after an exception.

    Raises StoreError where the store doesn't take it.
    """
    if not is_url(place):
        target = Path(place)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
            try:
                yield beside
                with beside.open("rb") as file:
                    os.fsync(file.fileno())
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"{place}: can't be written ({error.strerror})") from error
        return
    with tempfile.TemporaryDirectory(prefix="gansound-") as folder:
        local = Path(folder) / "file"
        yield local
        length = local.stat().st_size

        def once() -> None:
            filesystem, path = _filesystem(place)
            filesystem.put_file(str(local), path)

        _tried(place, once)
        if (there := size(place)) != length:
            raise StoreError(f"{place}: {there} bytes are there, {length} were written. Start again")


def _read_local(place: str, start: int, stop: int | None) -> bytes:
    try:
        with Path(place).open("rb", buffering=0) as file:
            wanted = (os.fstat(file.fileno()).st_size if stop is None else stop) - start
            pieces, at = [], start
            while at < start + wanted and (piece := os.pread(file.fileno(), start + wanted - at, at)):
                pieces.append(piece)
                at += len(piece)
    except OSError as error:
        raise StoreError(f"{place}: {error.strerror}. Check the path") from None
    if at < start + wanted:
        raise StoreError(f"{place}: ends at byte {at:,}, {start + wanted:,} were expected. Copy it again")
    return b"".join(pieces)


def _filesystem(place: str) -> tuple[Any, str]:
    """Of this process: fsspec keeps one for each, and makes another one after a fork."""
    protocol = place.partition("://")[0]
    require(f"{protocol}://", "fsspec", *(("aiohttp",) if protocol in _READ_ONLY else ()))
    from fsspec.core import url_to_fs

    try:
        return url_to_fs(place)
    except ImportError as error:
        named = (error.name or "").partition(".")[0]
        how = f"pip install {named}" if named and missing(named) else str(error).strip().rstrip(".")
        raise StoreError(f"{place}: {protocol}:// needs a package that isn't installed here: {how}") from None
    except ValueError as error:
        raise StoreError(f"{place}: {str(error).rstrip('.')}. Check the URL") from None


def _call(place: str, method: str, expected_bytes: int, **arguments: Any) -> Any:
    filesystem, path = _filesystem(place)
    if not filesystem.async_impl:
        return getattr(filesystem, method)(path, **arguments)
    from fsspec.asyn import sync

    patience = ANSWER_SECONDS + expected_bytes / 2**20
    return sync(filesystem.loop, getattr(filesystem, f"_{method}"), path, timeout=patience, **arguments)


def _tried(place: str, once: Callable[[], T]) -> T:
    """What a call gives at last. A place that used up all tries gets one a call from then on, until it answers."""
    waits = () if place in _hopeless else WAITS_SECONDS
    for attempt in range(len(waits) + 1):
        try:
            found = once()
        except StoreError:
            raise
        except FileNotFoundError as error:
            if (bucket := _lacking_bucket(place, error)) is not None:
                raise StoreError(
                    f"{place}: there is no bucket {bucket!r} ({str(error).rstrip('.')}). Make it, or check "
                    "its name and which store is asked: endpoint and account"
                ) from None
            raise NotThere(f"{place}: isn't there (any more). Put it back") from None
        except PermissionError as error:
            raise StoreError(
                f"{place}: access is refused ({_reason(error)}). Check the credentials"
            ) from None
        except Exception as error:  # each store has errors of its own
            status = getattr(error, "status", None)
            final = isinstance(status, int) and 400 <= status < 500 and status not in _AGAIN
            if final or attempt == len(waits):
                _hopeless.add(place)
                times = f", {attempt + 1} times" if attempt else ""
                reason = _reason(error)
                what = "Check the credentials" if "credential" in reason.lower() else "Is the store well?"
                raise StoreError(f"{place}: {reason}{times}. {what}") from error
            _say(place, _reason(error), attempt, waits[attempt])
            time.sleep(waits[attempt])
        else:
            _hopeless.discard(place)
            return found
    raise AssertionError("the last try raises")


def _lacking_bucket(place: str, error: FileNotFoundError) -> str | None:
    """The bucket, where it is what lacks and not a file in it; fsspec has one error for both, and the store's words."""
    said = f"{error} {error.__cause__ or ''}".lower()
    bucket = place.partition("://")[2].partition("/")[0]
    return bucket if any(word in said for word in _NO_BUCKET) else None


_hopeless: set[str] = set()
_said_at = [-_SAID_EVERY_SECONDS]


def _say(place: str, reason: str, attempt: int, wait: float) -> None:
    if attempt + 1 >= _SAID_FROM and time.monotonic() - _said_at[0] >= _SAID_EVERY_SECONDS:
        _said_at[0] = time.monotonic()
        logger.warning(
            "%s: %s; asking again in %g s, try %d of %d",
            place, reason, wait, attempt + 2, len(WAITS_SECONDS) + 1,
        )  # fmt: skip


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):  # fsspec's own is one
        return f"no answer in {ANSWER_SECONDS:g} s"
    text = " ".join(str(error).split()).rstrip(".")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
