"""What a stream costs by the frames of a push: `python -m tests.reference.push_lengths [FRAMES ...]`.

The shipped vocoder on one thread, each backend and length in turn, with everything compiled that a stream has compiled
behind it. Processor time a frame, medians of interleaved rounds. No test times.
"""

import statistics
import sys
import time

import torch

from gansound.inference.backends import missing
from gansound.inference.backends.runner import Runner
from gansound.inference.vocoder import Vocoder

PATHS = (("openvino", "fp32"), ("openvino", "bf16"), ("onnxruntime", "fp32"), ("eager", "fp32"))
FRAMES = (1, 7, 8, 13, 32)
ROUNDS, TIMED_FRAMES = 3, 160


def ms_a_frame(runner: Runner, frames: int) -> float:
    """The median push of the interior of a stream, divided by its frames."""
    mel, state, took = torch.randn(1, runner.n_mels, frames) - 4, runner.init_state(1), []
    for begun in range(0, runner.interior_frames + TIMED_FRAMES, frames):
        interior = begun >= runner.interior_frames
        start = time.process_time()
        _, state = runner.step(mel, state, interior=interior)
        if interior:
            took.append(1000 * (time.process_time() - start) / frames)
    return statistics.median(took)


if __name__ == "__main__":
    torch.set_num_threads(1)
    lengths = [int(given) for given in sys.argv[1:]] or FRAMES
    runners = {
        f"{backend} {precision}": Vocoder.from_pretrained(
            "default", backend=backend, precision=precision
        ).runner("stream")
        for backend, precision in PATHS
        if not missing(backend)
    }
    for runner in runners.values():
        for frames in lengths:
            ms_a_frame(runner, frames)
        runner.settle()
    rounds = [{(n, r): ms_a_frame(runners[r], n) for n in lengths for r in runners} for _ in range(ROUNDS)]
    print("frames a push".ljust(18), *(f"{frames:6}" for frames in lengths))
    for name in runners:
        print(name.ljust(18), *(f"{statistics.median(one[n, name] for one in rounds):6.2f}" for n in lengths))
