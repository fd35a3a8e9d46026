"""What this process runs on: the processor, the cores left to it, the versions installed."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def usable_cores() -> int:
    """Cores that a scheduler or a container left to it (its affinity mask) where the system tells, otherwise all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int | None:
    """Memory of the machine, or what a container may take of it; None where the system doesn't tell."""
    try:
        whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return whole
    return min(whole, int(allowed)) if allowed.isdecimal() else whole


def cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor, by its own names (`model name`, `flags`); elsewhere nothing."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_name() -> str:
    """The processor's name, or its architecture where the system tells no more."""
    return cpuinfo().get("model name") or platform.processor() or platform.machine()


def package_version(package: str) -> str | None:
    """The version installed; None if it isn't."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
