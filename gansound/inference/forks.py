"""A process that was forked from one in which a net had run: the threads that would compute are not in it."""

import os

_ran_in: int | None = None


def check_process() -> None:
    """Note that nets run in this process; called before each run.

    Raises:
        ValueError: they ran in the process that this one was forked from. It would wait for ever: for threads that a
            fork doesn't copy, or for a lock that one of them held.
    """
    global _ran_in
    here = os.getpid()
    if _ran_in is None:
        _ran_in = here
    elif _ran_in != here:
        raise ValueError(
            f"this process (pid {here}) was forked from one in which a model had run (pid {_ran_in}), whose threads it "
            "lacks: it would hang. Start processes with multiprocessing.get_context('spawn'), which can be given a "
            "Vocoder as an argument, or fork before anything is vocoded"
        )
