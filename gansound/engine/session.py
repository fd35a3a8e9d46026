"""How a run was started and how it ended: `sessions.jsonl`, two lines for each time that it trained.

The first says when, from which step, by which command, with which versions and commits, on what machine; the second
when and how it ended. A run that was killed has no second line.
"""

import json
import logging
import os
import platform
import socket
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

import gansound
from gansound.engine.checkout import git_states
from gansound.engine.guards import StoppedError
from gansound.engine.history import SESSIONS, process_started
from gansound.engine.own_files import open_own
from gansound.machine import cpu_name, package_version, usable_cores

log = logging.getLogger(__name__)

PACKAGES = ("numpy", "accelerate", "safetensors", "tensorboard", "soundfile", "soxr", "librosa")
# What changes how a run goes. Everything else of the environment stays out, for it may hold passwords.
_PREFIXES = (
    "ACCELERATE_", "CUBLAS_", "CUDA_", "CUDNN_", "GANSOUND_", "GLOO_", "KMP_", "MKL_", "NCCL_", "NVIDIA_", "OMP_",
    "PYTORCH_", "TORCH_", "TORCHINDUCTOR_",
)  # fmt: skip
_NAMES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT",
    "PYTHONHASHSEED", "SLURM_JOB_ID", "SLURM_NNODES", "SLURM_NODELIST", "SLURM_PROCID",
)  # fmt: skip
_SECRETS = ("KEY", "TOKEN", "SECRET", "PASSW", "CREDENTIAL", "AUTH")


class Session:
    """One stretch of training, from a start or a resume to its end; its file is only ever added to.

    Args:
        run: the run's folder.
        step: that it starts from.
        about: what else to write down, such as the number of processes.

    Raises:
        OSError: the line can't be written.
    """

    def __init__(self, run: Path, step: int, about: dict[str, Any]) -> None:
        self._file = run / SESSIONS
        self._id = uuid.uuid4().hex[:12]
        self._add({"started": _now(), "step": step, **about, **_circumstances()})

    def end(self, step: int, error: BaseException | None) -> None:
        """Write down that it ended at a step: by itself, interrupted, or by an error, with the error's message."""
        asked = isinstance(error, StoppedError) or not isinstance(error, Exception)  # by a signal or Ctrl-C
        how = "finished" if error is None else "interrupted" if asked else "error"
        record: dict[str, Any] = {"ended": _now(), "step": step, "how": how}
        if error is not None:
            record["message"] = f"{type(error).__name__}: {error}".removesuffix(": ")[:2000]
        try:
            self._add(record)
        except OSError as failure:  # the training is over, and its own error is the one to be told
            log.warning("%s: %s, so the end of this session isn't written down", self._file, failure.strerror)

    def _add(self, record: dict[str, Any]) -> None:
        try:
            descriptor = open_own(self._file, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            with os.fdopen(descriptor, "r+b") as file:
                # A line that a kill or a full disk cut stays by itself.
                torn = file.seek(0, os.SEEK_END) > 0 and os.pread(descriptor, 1, file.tell() - 1) != b"\n"
                file.write(("\n" * torn + json.dumps({"session": self._id, **record}) + "\n").encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._file)) from error


def _circumstances() -> dict[str, Any]:
    checkout = Path(gansound.__file__).parents[1]
    # In a virtual environment inside someone's repository, its commit says nothing about gansound.
    own = [checkout] if (checkout / ".git").exists() else []
    commits = git_states([Path.cwd(), *own])
    return {
        "command": [part[:1000] for part in (sys.orig_argv if sys.argv[0] in ("-c", "") else sys.argv)],
        "working_directory": str(Path.cwd()),
        "git": commits[0],
        "gansound_git": commits[1] if own else None,
        "gansound": gansound.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "packages": {name: version for name in PACKAGES if (version := package_version(name)) is not None},
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_started": process_started(os.getpid()),
        "cpu": cpu_name(),
        "cpu_count": usable_cores(),
        "threads": torch.get_num_threads(),
        **_gpus(),
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if (name in _NAMES or name.startswith(_PREFIXES)) and not any(word in name for word in _SECRETS)
        },
    }


def _gpus() -> dict[str, Any]:
    """Those that this process sees."""
    if not torch.cuda.is_available():
        return {"gpus": []}
    try:
        driver = Path("/proc/driver/nvidia/version").read_text(errors="replace").splitlines()[0]
    except (OSError, IndexError):
        driver = None
    found = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    gpus = [{"name": gpu.name, "memory_gib": round(gpu.total_memory / 2**30, 1)} for gpu in found]
    return {"gpus": gpus, "cuda": torch.version.cuda, "driver": driver}


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
