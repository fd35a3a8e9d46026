"""How fast a vocoder is on this machine: every backend that is installed, beside how it would be run without gansound.

`choose` finds the backends, a `Plan` says what is measured, `run_bench` measures it in processes of its own.
"""

from gansound.inference.bench.plan import Plan, choose
from gansound.inference.bench.run import run_bench, steps

__all__ = ["Plan", "choose", "run_bench", "steps"]
