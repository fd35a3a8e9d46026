"""What this process runs on."""

import os

import pytest

from gansound.machine import usable_cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system tells no process its cores")
def test_cores_left_to_the_process_are_counted_not_those_of_the_machine() -> None:
    left = os.sched_getaffinity(0)
    assert usable_cores() == len(left)
    try:
        os.sched_setaffinity(0, {min(left)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, left)
