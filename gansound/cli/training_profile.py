"""`gansound train --profile`: tables on the terminal, and the files in the run's folder."""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gansound.engine.plan import Plan

log = logging.getLogger(__name__)


def show_profile(planned: "Plan", steps: int, folder: Path, *, name: str) -> None:
    """Profile `steps` steps; the main process prints, and writes `profile.*` into `folder`."""
    from gansound.cli.console import Console
    from gansound.engine.folder import write_beside
    from gansound.engine.processes import speaks
    from gansound.engine.profile import TRACED_STEPS, WARM_UP_STEPS, profile
    from gansound.report.pictures import save
    from gansound.report.profile import operator_table, profile_picture, section_table

    # Its log says ERROR where there is no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    if speaks():
        folder.mkdir(parents=True, exist_ok=True)
        log.info("%d steps to warm up, %d to time, %d to trace", WARM_UP_STEPS, steps, TRACED_STEPS)
    record = {"recipe": name} | profile(planned, steps, folder / "profile.trace.json.gz")
    if not speaks():
        return
    write_beside(folder / "profile.json", json.dumps(record, indent=1) + "\n")
    save(profile_picture(record), folder / "profile.png")
    console = Console()
    if not console.is_terminal:
        console = Console(width=120)
    console.print(section_table(record))
    console.print(operator_table(record))
    console.print(
        f"{record['steps_per_second']:.3g} steps and {record['audio_seconds_per_second']:.3g} s of audio a second, "
        f"{record['peak_memory_mib']:.0f} MiB at most",
        highlight=False,
    )
    console.print(record["verdict"], style="bold", highlight=False, soft_wrap=True)
    for kind in ("png", "json", "trace.json.gz"):
        console.print(folder / f"profile.{kind}", highlight=False, soft_wrap=True)
