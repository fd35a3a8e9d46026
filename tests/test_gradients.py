"""A small network's gradients over processes: those that DDP gives, to the bit, in a message that other work passes."""

import json
import sys

import pytest

from tests import warm
from tests.clips import small_wave, write_sounds
from tests.test_distributed import ended, started

TRAINED = """
import hashlib, json, os, sys, torch
from pathlib import Path
from gansound.engine import gradients
from gansound.engine.plan import plan
from gansound.engine.run import Run

recipe, run = json.loads(os.environ["RECIPE"]), Path(os.environ["RUN"])
if os.environ["WAY"] == "ddp":
    gradients._SMALL_BYTES = 0
planned = plan(recipe)
if os.environ["RANK"] == "1":  # another beginning, which gives way to the first process's
    with torch.no_grad():
        for network in (planned.task.generator, planned.task.discriminator):
            for parameter in network.parameters():
                parameter.add_(1)
run = Run(planned, run)
events = []
run.task.generator.register_forward_hook(lambda *_: events.append("make"))
if os.environ["WAY"] == "message":
    real = gradients.OneMessage.send
    def send(self, figures):
        events.append("send")
        arrived = real(self, figures)
        def heard():
            events.append("hear")
            return arrived()
        return heard
    gradients.OneMessage.send = send
batches = run.feed.batches(0, rank=run.accelerator.process_index, ranks=2, pin_memory=False)
for step in range(3):
    told = run.step(step, [next(batches) for _ in range(run.task.critic_steps)])
weights = hashlib.sha1()
for network in (run.task.generator, run.task.discriminator):
    for parameter in network.parameters():
        weights.update(parameter.detach().numpy().tobytes())
kind = type(run.phases.generator).__name__
run.close()
threads = [name.read_text().strip() for name in Path("/proc/self/task").glob("*/comm")]
print(json.dumps([weights.hexdigest(), told, kind, events[-len(events) // 3 :], threads]))
"""


def by_two(recipe: dict[str, object], folder: object, way: str) -> list[list[object]]:
    """What both processes say after three steps."""
    told = {"RECIPE": json.dumps(recipe), "RUN": str(folder), "WAY": way}
    with started([warm.python(), "-c", TRAINED], **told) as processes:
        done = ended(processes)
    assert [code for code, _ in done] == [0, 0], done
    return [json.loads(next(line for line in out.splitlines() if line.startswith('["'))) for _, out in done]


@pytest.mark.skipif(sys.platform != "linux", reason="two processes that are forked")
def test_one_message_gives_what_ddp_gives(tmp_path):
    recipe = small_wave(write_sounds(tmp_path / "sounds"), steps=3)
    (weights, figures, kind, events, _), second = by_two(recipe, tmp_path / "message", "message")
    assert kind == "OneMessage"
    assert second[:2] == [weights, figures]
    ddp = by_two(recipe, tmp_path / "ddp", "ddp")
    assert ddp[0][2] == "DistributedDataParallel"
    assert [one[0] for one in ddp] == [weights] * 2
    assert ddp[0][1] == pytest.approx(figures, rel=1e-6)
    # The second critic round's sounds are made while the first one's gradients travel; figures cost no message.
    assert events == ["make", "send", "make", "hear", "send", "hear", "send", "hear"]
    # Closed, a run has left nothing for DDP to take apart, which might never end: what is there writes checkpoints.
    assert [one[4].count("pt_gloo_runloop") for one in ddp] == [2, 2]
