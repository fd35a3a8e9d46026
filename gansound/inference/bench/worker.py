"""A process that measures: `python -m gansound.inference.bench.worker`, a job as JSON on stdin.

The number of threads is set in its environment, since some runtimes read it once, as they start. It answers on
stdout with a line of JSON for each case it begins (`{"case": ...}`) and a last one (`{"result": ...}`).
"""

import json
import os
import sys
from typing import Any


def main() -> int:
    """Do the one job."""
    # Whatever a library prints goes to stderr; stdout is the answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(**said: Any) -> None:
        answers.write(json.dumps(said, allow_nan=False) + "\n")
        answers.flush()

    job = json.loads(sys.stdin.read())
    import torch

    torch.set_num_threads(job["threads"])
    from gansound.inference.bench.memory import measure_memory
    from gansound.inference.bench.plan import Plan
    from gansound.inference.bench.timing import Bench
    from gansound.model_folder import load_model_folder

    plan = Plan.from_dict(job["plan"])
    model = load_model_folder(plan.model, allow=plan.allow)
    if job["memory_of"] is None:
        result = Bench(model, plan, lambda case: answer(case=case)).run()
    else:
        backend, precision = job["memory_of"]
        result = measure_memory(model, (backend, precision), plan.memory_seconds)
    answer(result=result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
