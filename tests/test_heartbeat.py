"""The process that all others wait for is named within a minute, and no other; one that is quick is never."""

import logging

import pytest
import torch

from gansound.engine import heartbeat
from gansound.engine.heartbeat import Heartbeat


class Clock:
    now = 1000.0


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(heartbeat.time, "monotonic", lambda: Clock.now)
    Clock.now = 1000.0
    return Clock


@pytest.fixture
def three():
    store = torch.distributed.HashStore()
    return [Heartbeat(rank, 3, store) for rank in range(3)]


def run(clock, beats, seconds, silent=()):
    """They beat for so long, each five seconds, all but some."""
    for count in range(int(clock.now), int(clock.now + seconds), 5):
        for rank, beat in enumerate(beats):
            if rank not in silent:
                beat.beat(count)
        clock.now += 5


@pytest.mark.parametrize("stalled", [0, 1, 2])
def test_one_that_is_silent_is_named_within_a_minute_by_one_of_the_others(clock, three, caplog, stalled):
    caplog.set_level(logging.WARNING)
    for beat in three:
        beat.at(7, waits_for_data=False)
    run(clock, three, 20)
    assert not caplog.records
    run(clock, three, 60, silent=[stalled])
    (said,) = [record.message for record in caplog.records]
    assert f"process {stalled} of 3 (pid " in said
    assert "hasn't been heard of" in said
    run(clock, three, 60, silent=[stalled])
    assert len(caplog.records) == 2, "and once a minute from then on"


def test_one_that_never_spoke_is_named(clock, three, caplog):
    for beat in three:
        beat.at(0, waits_for_data=False)
    run(clock, three, 60, silent=[2])
    assert "process 2 of 3, which hasn't been heard of" in caplog.text


def test_one_that_waits_for_data_is_named(clock, three, caplog):
    caplog.set_level(logging.WARNING)
    for rank, beat in enumerate(three):
        beat.at(8, waits_for_data=rank == 1)
    run(clock, three, 55)
    (said,) = [record.message for record in caplog.records]
    assert "process 1 of 3" in said
    assert "for its data of step 8" in said


def test_steps_that_take_minutes_and_quick_ones_name_nobody(clock, three, caplog):
    caplog.set_level(logging.WARNING)
    for beat in three:
        beat.at(3, waits_for_data=False)
    run(clock, three, 300)
    for step in range(100):
        for beat in three:
            beat.at(step, waits_for_data=step % 2 == 0)
        run(clock, three, 10)
    assert not caplog.records
