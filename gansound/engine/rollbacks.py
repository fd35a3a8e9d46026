"""How often a run went back to a checkpoint, and which data it has left out since.

A run that went back and drew the same batches again would come to the same end. So it draws those behind the ones
that it failed on; `rollbacks.json` says how many steps' worth it has left out, and a resumed run goes on behind them.
"""

import json
from pathlib import Path
from typing import Any

from gansound.engine.folder import write_beside
from gansound.engine.own_files import read_own


class Rollbacks:
    """The rollbacks of a run's folder.

    Args:
        run: the folder.

    Raises:
        ValueError: its rollbacks.json says what no run writes.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "rollbacks.json"
        self._all = _read(self._path)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def skipped_steps(self) -> int:
        """How many steps' worth of data are left out, in all."""
        return sum(one["from_step"] - one["to_step"] for one in self._all)

    def went_back_to(self, step: int) -> bool:
        """Whether the last one ended there: what lies at that step has failed once more."""
        return bool(self._all) and self._all[-1]["to_step"] == step

    def add(self, from_step: int, to_step: int, *, write: bool) -> None:
        """Remember one, on the disk where this process writes."""
        self._all.append({"from_step": from_step, "to_step": to_step})
        if write:
            write_beside(self._path, json.dumps(self._all, indent=1) + "\n")


def _read(path: Path) -> list[dict[str, int]]:
    try:
        found = json.loads(read_own(path, 1 << 20))
    except FileNotFoundError:
        return []
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: can't be read ({error}). Put back what the run wrote") from error
    for one in found if isinstance(found, list) else [found]:
        if not isinstance(found, list) or not _is_rollback(one):
            raise ValueError(
                f"{path}: got {str(one)[:80]}, expected from_step and to_step of each time that the run went back. Put "
                "back what the run wrote"
            )
    return list(found)


def _is_rollback(one: Any) -> bool:
    if not isinstance(one, dict):
        return False
    start, end = one.get("from_step"), one.get("to_step")
    return type(start) is int and type(end) is int and 0 <= end <= start < 2**48
