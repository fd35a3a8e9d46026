"""How many cores this process may use."""

import os


def usable_cores() -> int:
    """Those that a scheduler or a container left to it (its affinity mask) where the system tells, otherwise all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
