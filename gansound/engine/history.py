"""What a run's folder tells afterwards, or while it trains: how far it is, how well it does, how it was started.

Reads what `RunLog` and `Session` write, and takes a folder as it finds it: a line that a kill cut, a run from before
sessions were written, a recipe that someone broke. What can't be read is told in `problems`, never raised.
"""

import json
import os
import socket
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gansound.counts import counted
from gansound.engine.own_files import read_own
from gansound.recipe.text import RecipeError, parse_yaml

RECIPE, METRICS, SESSIONS, EVENTS = "recipe.yaml", "metrics.jsonl", "sessions.jsonl", "events.jsonl"
# The figures of a validation for which less or more is better, the first one there being the main one. Others, and
# losses of a GAN, have no best.
BETTER = {
    "valid/mel_distance": "lower", "valid/kernel_distance": "lower", "valid/pesq_wb": "higher",
    "valid/stoi": "higher", "valid/coverage": "higher",
}  # fmt: skip
_HOUSEKEEPING = (
    "gradient_norm",
    "learning_rate",
    "step_seconds",
    "data_share",
    "discriminator_wins",
    "real_sign",
)
_FRESH_SECONDS = 600.0
_MOST = 1e300  # of a figure: neither infinite nor a whole number of thousands of digits
# Of a session's values, those that others rely on the kind of.
_KINDS = {"command": list, "git": dict, "gansound_git": dict, "gansound": str, "gpus": list}

Record = dict[str, Any]


@dataclass(frozen=True)
class RunHistory:
    """A run as its folder has it.

    Args:
        folder: of the run.
        recipe: as resolved; empty where it can't be read.
        records: the objects of metrics.jsonl, those figures left out that are no finite numbers.
        sessions: one object for each time it trained; `end` in it says how that ended, null where nothing says so.
        events: what happened by the way.
        problems: what is wrong with the folder, a sentence each.
        unread: its files that are there and can't be read: links, pipes, without permission.
    """

    folder: Path
    recipe: Mapping[str, Any]
    records: Sequence[Mapping[str, Any]]
    sessions: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    problems: Sequence[str]
    unread: Sequence[str]

    @property
    def step(self) -> int:
        """The last that is logged; 0 without any."""
        return self.records[-1]["step"] if self.records else 0

    @property
    def steps(self) -> int | None:
        """How many there are to be."""
        steps = self.recipe.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def state(self) -> tuple[str, str | None]:
        """`finished`, `running`, `interrupted`, `failed`, `stopped`, `empty` or `unreadable`, and why, where known."""
        if self.unread:  # what the others say isn't the whole of it; `problems` says which, and why
            return "unreadable", None
        if not self.sessions:
            if not self.records:
                return "empty", None
            if self.steps is not None and self.step >= self.steps:
                return "finished", None
            return ("running", None) if self._fresh() else ("stopped", None)
        last = self.sessions[-1]
        end = last["end"]
        if end is not None:
            how = end.get("how")
            if how == "error":
                return "failed", end.get("message")
            if how == "interrupted":
                return "interrupted", None
            return ("finished" if self.steps is None or end.get("step", 0) >= self.steps else "stopped"), None
        if last.get("host") == socket.gethostname():
            return ("running", None) if _alive(last) else ("stopped", "its process is gone: killed?")
        return ("running", None) if self._fresh() else ("stopped", f"nothing new from {last.get('host')}")

    @property
    def figures(self) -> list[str]:
        """Names of all figures in the log: those of validations, the main one first, then losses, then the rest."""
        names = list(dict.fromkeys(name for record in self.records for name in record if name != "step"))
        main = list(BETTER)
        return sorted(
            names,
            key=lambda n: (
                main.index(n) if n in main else len(main) + (not n.startswith("valid/")) + is_housekeeping(n)
            ),
        )

    @cached_property
    def hours(self) -> list[float]:
        """For each record the hours of training up to it, by the log's own seconds a step: validations left out."""
        hours, before, pace = [], 0, 0.0
        total = 0.0
        for record in self.records:
            pace = record.get("step_seconds", pace)
            total += pace * (record["step"] - before) / 3600
            before = record["step"]
            hours.append(total)
        return hours

    @property
    def step_seconds(self) -> float | None:
        """The median of the last fifty that are logged."""
        found = [record["step_seconds"] for record in self.records if "step_seconds" in record][-50:]
        return statistics.median(found) if found else None

    def curve(self, name: str) -> list[tuple[int, float]]:
        """The figure's values with their steps."""
        return [(record["step"], record[name]) for record in self.records if name in record]

    def _fresh(self) -> bool:
        """Whether the log grew not long ago, for its own pace."""
        try:
            age = time.time() - (self.folder / METRICS).stat().st_mtime
        except OSError:
            return False
        every = self.recipe.get("log_every", 50)
        return age < max(
            _FRESH_SECONDS, 5 * (self.step_seconds or 0) * (every if isinstance(every, int) else 50)
        )


def is_housekeeping(name: str) -> bool:
    """Whether a figure is about the training itself rather than a loss or a validation."""
    return name.startswith(_HOUSEKEEPING)


def find_runs(top: Path) -> Iterator[Path]:
    """The folders at and below `top` that hold a recipe.yaml or a metrics.jsonl, sorted; not those inside a run."""
    for folder, inside, files in os.walk(top):
        if RECIPE in files or METRICS in files:
            inside.clear()
            yield Path(folder)
        inside[:] = sorted(name for name in inside if not name.startswith("."))


def read_run(folder: Path) -> RunHistory:
    """Read a run's folder; raises nothing for whatever is in it."""
    problems: list[str] = []
    unread: list[str] = []

    def text(name: str) -> str | None:
        try:
            return read_own(folder / name).decode(errors="replace")
        except FileNotFoundError:
            if name in (RECIPE, METRICS):
                problems.append(f"no {name}")
        except OSError as error:
            unread.append(name)
            problems.append(f"{name}: {error.strerror}")
        except ValueError as error:
            unread.append(name)
            problems.append(str(error))
        return None

    written = text(RECIPE)
    recipe: Any = {}
    try:
        recipe = {} if written is None else parse_yaml(written, RECIPE)
    except RecipeError as error:
        problems.append(str(error))
    if not isinstance(recipe, dict):
        problems.append(f"{RECIPE}: no mapping of keys")
        recipe = {}
    lines, events, begun = (_objects(text(name), name, problems) for name in (METRICS, EVENTS, SESSIONS))
    records = [_finite(line) for line in lines if type(line.get("step")) is int]
    if len(records) < len(lines):
        problems.append(f"{METRICS}: {counted(len(lines) - len(records), 'line')} without a step")
    return RunHistory(folder, recipe, records, _sessions(begun), events, problems, unread)


def differences(recipes: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The dotted keys whose values differ between recipes: for each the value by recipe, left out where it has none."""
    flats = {name: flat(recipe) for name, recipe in recipes.items()}
    keys = dict.fromkeys(key for values in flats.values() for key in values)
    found = {key: {name: values[key] for name, values in flats.items() if key in values} for key in keys}
    return {
        key: values
        for key, values in found.items()
        if len(values) < len(flats) or len({json.dumps(value, default=str) for value in values.values()}) > 1
    }


def flat(recipe: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A recipe's values by their dotted keys; a list is one value."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def process_started(pid: object) -> int | None:
    """When a process began, in ticks since the machine did; None where the system doesn't tell, or it is gone.

    With it a number that the system gave to another process since isn't taken for the same.
    """
    try:
        # The second field, the program's name in brackets, may hold anything.
        fields = Path(f"/proc/{int(str(pid))}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else int(fields[19])  # ended, and nobody has asked how
    except (OSError, ValueError, IndexError):
        return None


def _alive(session: Mapping[str, Any]) -> bool:
    pid, started = session.get("pid"), session.get("pid_started")
    if not isinstance(pid, int):
        return False
    if started is not None:
        return process_started(pid) == started
    try:
        os.kill(pid, 0)  # asks only
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _objects(text: str | None, name: str, problems: list[str]) -> list[Record]:
    """The JSON objects of a file's lines. A last line without its end is one being written, or cut by a kill."""
    if text is None:
        return []
    *lines, last = text.split("\n")
    found: list[Record] = []
    bad: list[int] = []
    for number, line in enumerate(lines, start=1):
        value = _object(line)
        if value is not None:
            found.append(value)
        elif line.strip():
            bad.append(number)
    if (value := _object(last)) is not None:
        found.append(value)
    if bad and name == METRICS:  # in the others a cut line stays where it is
        problems.append(f"{name}: {counted(len(bad), 'line')} can't be read, the first of them line {bad[0]}")
    return found


def _object(line: str) -> Record | None:
    try:
        value = json.loads(line, parse_constant=lambda _: None)  # NaN is no JSON for others
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _sessions(lines: Iterable[Record]) -> list[Record]:
    sessions: dict[str, Record] = {}
    for line in lines:
        name = str(line.get("session"))
        if not isinstance(line.get("step"), int):
            continue
        if isinstance(line.get("started"), str):
            odd = {key: None for key, kind in _KINDS.items() if not isinstance(line.get(key), kind)}
            sessions[name] = {**line, **odd, "end": None}
        elif name in sessions:
            sessions[name]["end"] = line
    return list(sessions.values())


def _finite(record: Record) -> Record:
    return {
        name: value
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and -_MOST < value < _MOST
    }
