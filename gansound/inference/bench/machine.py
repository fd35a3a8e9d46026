"""The machine and the versions that figures were measured with."""

import os
import platform
from typing import Any

import torch

from gansound.machine import cpu_name, cpuinfo, package_version, usable_cores

_PACKAGES = ("gansound", "torch", "numpy", "onnxruntime", "openvino")
_INSTRUCTIONS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_bf16", "amx_int8",
    "asimd", "asimddp", "sve", "sve2", "bf16", "i8mm",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Processor, cores, instruction sets, memory, load and versions, as JSON holds them; null where not known."""
    described = cpuinfo()
    flags = set((described.get("flags") or described.get("Features") or "").split())
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "instruction_sets": [name for name in _INSTRUCTIONS if name in flags],
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": _memory_gib(),
        "load_average_1_minute": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "allocator_settings": {
            name: value
            for name, value in sorted(os.environ.items())
            if name == "LD_PRELOAD" or name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"
        },
        "versions": {"python": platform.python_version()}
        | {name: version for name in _PACKAGES if (version := package_version(name)) is not None},
    }


def _memory_gib() -> float | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    except (AttributeError, ValueError, OSError):
        return None
