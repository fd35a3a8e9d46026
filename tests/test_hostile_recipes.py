"""Recipes that nobody means: refused by their key, in a moment, before anything is built or memory taken."""

import random
import subprocess
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from gansound.engine.plan import plan
from gansound.recipe import RecipeError, build, load_recipe, to_yaml
from gansound.recipe.budget import budget
from tests import warm
from tests.test_hostile_runs import tampered
from tests.tiny import SETTINGS

OPTIMIZER = "generator_optimization.optimizer"


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"generator.blocks": "30000"}, "generator: over 4,000 "),
        ({"generator.channels": "30000000"}, "generator: weights of over "),
        ({"generator.channels": f"1{'0' * 30}"}, "generator.channels: got a whole number of 100 bits"),
        ({"generator.channels": f"1{'0' * 5000}"}, "generator.channels: "),
        ({"discriminators.msd.network.layers": "100000"}, "discriminators.msd.network: "),
        ({"discriminators.msd.network.scales": "20000"}, "discriminators.msd.network: "),
        ({"threads": "100000"}, "threads must be at most 1024"),
        ({"data.workers": "100000"}, "data: workers must be at most"),
        ({"data.cache_gb": "1e300"}, "data: cache_gb must be at most"),
        ({"data.segment_samples": str(2**40)}, "batch_size, data.segment_samples: "),
        ({"batch_size": str(10**12)}, "batch_size, data.segment_samples: "),
        ({"mel.n_fft": str(2**30)}, "mel: mel n_fft: got 1073741824, expected at most"),
        ({"losses.spectrum.loss.n_fft": str(2**30)}, "losses.spectrum.loss: expected "),
        ({f"{OPTIMIZER}.lr": ".inf"}, f"{OPTIMIZER}.lr: got inf, expected a finite number"),
        ({"losses.spectrum.weight": ".nan"}, "losses.spectrum.weight: got nan, expected a finite number"),
        ({"data.speed": ".nan"}, "data.speed: got nan"),
        ({"data.gain_db": "[0, 1.0e+30]"}, "data: gain_db must be [lowest, highest] in dB, from -100 to 100"),
        ({"data.gain_db": "[-101, 0]"}, "data: gain_db must be "),
        ({"data.gain_db": "[1, 0]"}, "data: gain_db must be "),
        ({"data.silence_db": "-1"}, "data: silence_db is how far under its file's level"),
        ({f"{OPTIMIZER}.class_path": "torch.optim.LBFGS"}, f"{OPTIMIZER}: TypeError: LBFGS.step() missing"),
        ({f"{OPTIMIZER}.class_path": "torch.optim.SparseAdam"}, f"{OPTIMIZER}: RuntimeError: SparseAdam"),
        ({f"{OPTIMIZER}.class_path": "torch.optim.Optimizer"}, f"{OPTIMIZER}: TypeError: "),
        ({"seed": "!!timestamp 2001-01-01"}, "seed: tags (tag:yaml.org,2002:timestamp) aren't supported"),
        ({"seed": "!!python/name:os.system"}, "seed: tags "),
        ({"seed": "!!int many"}, "seed: "),
        ({"task": "gansound.engine.log.RunLog"}, "task: got gansound.engine.log.RunLog, expected a Task"),
        ({"task": "gansound.mel.MelSpec"}, "task: got gansound.mel.spec.MelSpec, expected a Task"),
        ({"task": f"gansound{'.a' * 2000}.B"}, "task: got "),
        ({"generator.class_path": "gansound.engine.log.RunLog"}, "generator.class_path: got "),
        ({"losses": {"a.b": {"weight": 1.0}}}, "losses: got the name 'a.b', expected letters"),
        ({"losses": {"keys": {"loss": {"class_path": "gansound.losses.phase.AmplitudeAndPhase"}, "weight": 1.0}}},
         "attribute 'keys' already exists"),
    ],
)  # fmt: skip
def test_it_is_refused_by_its_key(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as error:
        plan(load_recipe("tiny_cpu", SETTINGS | {"data.path": "/nowhere"} | settings))
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_that_is_none_is_never_built(tmp_path) -> None:
    """Building a RunLog would drop lines of the metrics that it is pointed at."""
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_text('{"step": 9}\n')
    recipe = {"task": "gansound.engine.log.RunLog", "run": str(tmp_path), "start": 1, "data": {}, "steps": 1}
    with pytest.raises(RecipeError, match="expected a Task"):
        plan(recipe)
    assert metrics.read_text() == '{"step": 9}\n'


@pytest.mark.parametrize("deep", ["[" * 5000, "{a: " * 5000, "- " * 5000])
def test_depth_is_refused(tmp_path, deep: str) -> None:
    (tmp_path / "deep.yaml").write_text(f"task: {deep}")
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "deep.yaml")
    nested: Any = 1
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(RecipeError, match="nested too deeply"):
        build({"x": nested}, dict[str, Any], "top")


def test_a_budget_counts_before_memory_is_taken() -> None:
    with budget(1000, 10, "here"):
        nn.Linear(10, 20)  # 880 bytes
    nn.Linear(10, 2000)  # outside it counts no more
    with pytest.raises(ValueError, match="over 10 tensors of weights, here"), budget(10**6, 10, "here"):
        nn.Sequential(*(nn.Linear(1, 1) for _ in range(6)))
    with pytest.raises(ValueError, match=r"over 10 layers, here"), budget(10**6, 10, "here"):
        nn.Sequential(*(nn.ReLU() for _ in range(11)))
    # 2 GiB, whose first values would take seconds and as much memory.
    with pytest.raises(ValueError, match="MiB"), budget(10**6, 10, "here"):
        nn.Linear(2**15, 2**14)


# In a process of its own, whose memory and time are limited: what a recipe takes must not be the machine's.
_PLAN_ALL = """
import resource, signal, sys
from gansound.engine.plan import plan
from gansound.recipe import RecipeError, load_recipe
if sys.platform == "linux":  # over what is there already, which with a torch for GPUs is many GiB
    had = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (had + (4 << 30),) * 2)
for path in sys.argv[1:]:
    signal.alarm(240)
    try:
        plan(load_recipe(path))
    except RecipeError as error:
        assert "\\n" not in str(error).strip(), (path, str(error))
    except BaseException as error:
        sys.exit(f"{path}: {type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("seeds", [range(60), pytest.param(range(60, 600), marks=pytest.mark.slow)])
def test_any_tampered_recipe_is_planned_or_refused(seeds: range, tmp_path: Path) -> None:
    recipe = load_recipe("tiny_cpu", SETTINGS | {"data.path": "/nowhere"})
    for seed in seeds:
        made = tampered(recipe, random.Random(seed))
        (tmp_path / f"{seed}.yaml").write_text(to_yaml(made) if isinstance(made, dict) else str(made))
    ran = subprocess.run(
        [warm.python(), "-c", _PLAN_ALL, *(str(tmp_path / f"{seed}.yaml") for seed in seeds)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[1],
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
