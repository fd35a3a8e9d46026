"""How long `gansound stream` takes from the start of its process to its first sample, on each backend installed.

    python -m tests.reference.cold_start            # the first start of each, which may trace the net, isn't counted

Forty frames of the shipped vocoder's mel are in its stdin from the beginning. Medians of warm starts.
"""

import os
import statistics
import subprocess
import sys
import time

import numpy as np

from gansound.inference.backends import BACKENDS, missing

STARTS, FRAMES, BANDS = 5, 40, 80


def first_sample_seconds(backend: str) -> float:
    frames = np.full((FRAMES, BANDS), -6.0, "<f4").tobytes()
    began = time.perf_counter()
    command = [sys.executable, "-m", "gansound", "stream", "--backend", backend, "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(frames)
        process.stdin.flush()
        assert process.stdout.read(2), "it ended without a sound"
        took = time.perf_counter() - began
        process.kill()
    return took


if __name__ == "__main__":
    for backend in BACKENDS:
        if backend != "compile" and not missing(backend):
            seconds = [first_sample_seconds(backend) for _ in range(STARTS + 1)][1:]
            print(f"{backend}: {statistics.median(seconds):.2f} s ({min(seconds):.2f}-{max(seconds):.2f})")
