"""One part in a process of its own, so that what kills it leaves the others: `python -m tests.gpu.part PART …`."""

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tests.gpu.absent import stand_in
from tests.gpu.checks import Settings, perform


def main(part: str, given: dict[str, Any]) -> None:
    """Run the checks of a part; `given` is `Settings` as JSON, with the seconds it has."""
    until = time.monotonic() + given.pop("seconds")
    if given["threads"]:
        torch.set_num_threads(given["threads"])
    settings = Settings(
        out=Path(given["out"]),
        device=torch.device(given["device"]),
        tiny=given["tiny"],
        until=until,
        audio=None if given["audio"] is None else Path(given["audio"]),
        run=None if given["run"] is None else Path(given["run"]),
        recipe=given["recipe"],
    )
    stand_in()
    perform(part, import_module(f"tests.gpu.{part}").checks(settings), settings)


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
