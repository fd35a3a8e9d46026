"""A part of the check: its checks one by one, and their record, written anew as each ends."""

import json
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

PASSED, FAILED, BROKEN, LEFT_OUT, CUT = "passed", "failed", "broken", "left out", "cut"
RUNNING, WAITING = "running", "waiting"
BAD = (FAILED, BROKEN, CUT)
"""States that make the whole check end with 1."""


class LeftOut(Exception):
    """What a check needs isn't here; the message says what."""


@dataclass(frozen=True)
class Settings:
    """Of all parts.

    Args:
        out: where records go.
        device: what is checked.
        tiny: the least sizes, to see that the check itself works.
        until: the moment of `time.monotonic` at which the part should have ended.
        audio: a folder of sounds to train on; None makes some.
        run: the folder of a run to go on with.
        recipe: that the last part trains.
    """

    out: Path
    device: torch.device
    tiny: bool
    until: float
    audio: Path | None = None
    run: Path | None = None
    recipe: str = "freev_cpu"

    @property
    def seconds_left(self) -> float:
        return self.until - time.monotonic()

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    def synchronize(self) -> None:
        """Wait for all that the device was given."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)


@dataclass(frozen=True)
class Check:
    """One check.

    Args:
        name: unique in its part.
        run: returns its figures; an AssertionError is a failure, LeftOut says what lacks.
        seconds: it isn't begun with fewer left.
    """

    name: str
    run: Callable[[Settings], dict[str, Any]]
    seconds: float = 0.0


def perform(part: str, checks: Sequence[Check], settings: Settings) -> dict[str, Any]:
    """Run them in order until the time is over; the record, which is in `OUT/PART.json` all along."""
    begun = time.monotonic()
    entries: list[dict[str, Any]] = [{"check": check.name, "state": WAITING} for check in checks]
    record = {
        "part": part,
        "device": about(settings.device),
        "scale": "tiny" if settings.tiny else "full",
        "torch": torch.__version__,
        "seconds": 0.0,
        "checks": entries,
    }
    for check, entry in zip(checks, entries, strict=True):
        if settings.seconds_left < check.seconds or settings.seconds_left <= 0:
            entry |= {
                "state": CUT,
                "said": f"needs {check.seconds:.0f} s and {settings.seconds_left:.0f} were left",
            }
            continue
        entry["state"] = RUNNING
        write(settings.out / f"{part}.json", record)
        entry |= attempt(check, settings)
        record["seconds"] = round(time.monotonic() - begun, 2)
    write(settings.out / f"{part}.json", record)
    return record


def attempt(check: Check, settings: Settings) -> dict[str, Any]:
    """What came of one check."""
    begun = time.monotonic()
    figures: dict[str, Any] = {}
    said = ""
    try:
        figures = check.run(settings)
        settings.synchronize()
        state = PASSED
    except LeftOut as reason:
        state, said = LEFT_OUT, str(reason)
    except AssertionError as error:
        state, said = FAILED, str(error) or _where(error)
    except Exception as error:  # whatever it is, the others go on
        state, said = BROKEN, f"{type(error).__name__}: {error} ({_where(error)})"
    entry = {"state": state, "seconds": round(time.monotonic() - begun, 2)}
    return entry | ({"said": said} if said else {}) | ({"figures": figures} if figures else {})


def about(device: torch.device) -> str:
    """The device's name."""
    if device.type == "cuda":
        capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
        return f"{torch.cuda.get_device_name(device)}, compute capability {capability}"
    from gansound.machine import cpu_name

    return cpu_name()


def write(path: Path, record: Any) -> None:
    """Beside, then renamed."""
    beside = path.with_name(f".{path.name}.writing")
    beside.write_text(json.dumps(record, indent=1, default=str))
    os.replace(beside, path)


def error_of(got: torch.Tensor, expected: torch.Tensor) -> float:
    """‖got − expected‖ / ‖expected‖ in double; infinite where a value isn't a number."""
    a, b = got.detach().cpu().double(), expected.detach().cpu().double()
    assert a.shape == b.shape, f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    error = float((a - b).norm() / b.norm().clamp_min(1e-30))
    return error if error == error else float("inf")


def within(what: str, value: float, most: float) -> None:
    """AssertionError where a value is over its bound."""
    assert value <= most, f"{what}: {value:.3g}, expected at most {most:.3g}"


def _where(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        frame for frame in frames if "/gansound/" in frame.filename or "/tests/" in frame.filename
    ] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
