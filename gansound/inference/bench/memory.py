"""How much memory a piece of work takes, in a process of its own: the most that was resident, before and after."""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from gansound.inference.bench.contestants import OFFLINE_RIVAL, Contestant, Contestants
from gansound.model_folder import LoadedModel

STREAMED_CHUNK_FRAMES = 8
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MIB = 2**20


def measure_memory(model: LoadedModel, contestant: Contestant, audio_seconds: float) -> dict[str, Any]:
    """Memory of streaming so much audio and of making it at once, by one contestant. Once in a process."""
    contestants = Contestants(model, [] if contestant == OFFLINE_RIVAL else [contestant])
    frames = max(1, round(audio_seconds * model.frame_spec.sample_rate / model.frame_spec.hop_length))
    mel = model.frame_spec.noise(frames)
    records = []
    about = {"backend": contestant[0], "precision": contestant[1], "threads": 1, "audio_s": audio_seconds}
    for way, work in _works(contestants, contestant, mel):
        with contestants.noting(contestant, f"memory, {way}"):
            # What is made once, such as code for a shape, isn't what grows with the utterance.
            work(mel[..., : min(frames, 256)])
            contestants.settle()
            peak, growth = peak_growth_mib(partial(work, mel))
            records.append(about | {"way": way, "peak_mib": peak, "growth_mib": growth})
    return {"memory": records, "not_measured": contestants.not_measured}


def _works(
    contestants: Contestants, contestant: Contestant, mel: Tensor
) -> Iterator[tuple[str, Callable[[Tensor], Any]]]:
    # The stream first: it takes less, and what the other frees stays resident.
    if stream := contestants.streams().get(contestant):

        def pushes(mel: Tensor) -> None:
            stream.reset()
            for chunk in mel.split(STREAMED_CHUNK_FRAMES, -1):
                stream.push(chunk)
            stream.flush()

        yield "streaming", pushes
    if synthesize := contestants.offline().get(contestant):
        yield "offline", synthesize


def peak_growth_mib(work: Callable[[], object]) -> tuple[float, float]:
    """Run it, and give the process's peak while it ran and by how much that is above what was resident before, MiB.

    Where the system can't forget an earlier peak (anything but Linux), the growth is that of the peak.
    """
    try:
        _CLEAR.write_text("5")  # the peak is forgotten: it counts from what is resident now
        before = _status_mib("VmRSS")
    except OSError:
        before = _peak_mib()
    work()
    peak = _status_mib("VmHWM") if _STATUS.exists() else _peak_mib()
    return peak, max(0.0, peak - before)


def _status_mib(name: str) -> float:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024 / _MIB
    raise OSError(f"{_STATUS}: has no {name}")


def _peak_mib() -> float:
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / _MIB
