"""The engine: equal to a plain loop, exact when resumed, whole when killed, and outspoken when something is wrong."""

import itertools
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from gansound.discriminators import multi_scale
from gansound.engine.checkpoint import checkpoints, write
from gansound.engine.folder import identity
from gansound.engine.phases import Phases
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.engine.schedule import factor, idle_warmups
from gansound.engine.settings import Schedule
from gansound.engine.state import RunState, join_tensors, split_tensors
from gansound.generators import melgan
from gansound.mel import MelSpec
from gansound.recipe import RecipeError, load_recipe, to_yaml
from tests import warm
from tests.corpus import write_corpus
from tests.reference.melgan import Discriminator, Generator, bring_over, plain_loop

TINY = {
    "generator.init_args": {"channels": 16, "hidden_channels": 32, "blocks": 1},
    "discriminators.msd.network.init_args": {"scales": 2, "channels": 4, "layers": 2, "max_channels": 16},
    "data.segment_samples": 2048,
    "data.workers": 0,
    "batch_size": 2,
    "threads": 1,
    "adversarial_from": 2,
    "log_every": 1,
    "checkpoint_every": 2,
    "validate_every": None,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def tiny(corpus: Path, steps: int, **more: object) -> dict:
    return load_recipe("tiny_cpu", TINY | {"data.path": str(corpus), "steps": steps} | more)


def weights(run: Path) -> dict[str, torch.Tensor]:
    newest = checkpoints(run / "checkpoints")[-1]
    return {f"{f.stem}/{k}": v for f in sorted(newest.glob("*.safetensors")) for k, v in load_file(f).items()}


def losses(run: Path) -> list[dict]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("step_seconds", "data_share")} for line in lines]


def assert_same_run(one: Path, other: Path) -> None:
    assert losses(one) == losses(other)
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    Run(plan(tiny(corpus, 6)), folder).fit()
    return folder


def test_ten_steps_equal_the_plain_loop() -> None:
    torch.manual_seed(0)
    spec = MelSpec.preset("melgan_neurips")
    # In double: Adam's first steps are signs of gradients, and in single precision rounding turns a few of them.
    theirs_g, theirs_d = Generator(ngf=4).double(), Discriminator(ndf=4, most=64).double()
    recipe = load_recipe(
        "melgan_ljspeech",
        {
            "generator.init_args": {"channels": 64},
            "discriminators.msd.network.init_args": {"channels": 4, "max_channels": 64},
            "data.segment_samples": 2048,
        },
    )
    planned = plan(recipe)
    task = planned.task
    for network in (task.generator, task.discriminator, task.front_end):
        network.double()
    ours_d = task.discriminator["msd"]
    generator_keys = melgan.melgan_neurips_keys(task.generator)
    discriminator_keys = multi_scale.melgan_neurips_keys(ours_d)
    bring_over(theirs_g, task.generator, generator_keys)
    bring_over(theirs_d, ours_d, discriminator_keys)
    audio = [0.3 * torch.randn(2, 2048, dtype=torch.float64) for _ in range(10)]
    start = {k: v.clone() for k, v in (theirs_g.state_dict() | theirs_d.state_dict()).items()}
    final_g, final_d, _ = plain_loop([(spec.mel(a), a) for a in audio], theirs_g, theirs_d)
    phases = Phases(task, Accelerator(cpu=True), planned.optimizers)
    for a in audio:
        phases.step([[{"audio": a, "position": torch.arange(2)}]], adversarial=True)
    for network, final, keys in (
        (task.generator, final_g, generator_keys),
        (ours_d, final_d, discriminator_keys),
    ):
        apart = sum((value - final[keys[key]]).square().sum() for key, value in network.state_dict().items())
        moved = sum((final[name] - start[name]).square().sum() for name in final)
        assert moved > 1e-4
        assert apart < 1e-12 * moved, "after ten steps they lie apart by more than rounding"


def test_training_twice_gives_the_same(corpus: Path, whole: Path, tmp_path: Path) -> None:
    Run(plan(tiny(corpus, 6)), tmp_path / "run").fit()
    assert_same_run(whole, tmp_path / "run")


def test_micro_batches_add_up_to_the_batch(corpus: Path, tmp_path: Path) -> None:
    changed = {"adversarial_from": 0}
    Run(plan(tiny(corpus, 2, **changed)), tmp_path / "one").fit()
    Run(plan(tiny(corpus, 2, micro_batches=2, **changed)), tmp_path / "two").fit()
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert one[0] == pytest.approx(two[0], rel=1e-3)
    a, b = weights(tmp_path / "one"), weights(tmp_path / "two")
    first = next(k for k in a if k.startswith("generator/") and k.endswith("embed.conv.weight"))
    torch.testing.assert_close(a[first], b[first], rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_equals_uninterrupted(corpus: Path, whole: Path, tmp_path: Path, workers: int) -> None:
    folder = tmp_path / "run"
    Run(plan(tiny(corpus, 6)), folder).fit()
    # Back to an older checkpoint: what a crash after it would have left.
    for newer in checkpoints(folder / "checkpoints")[1:]:
        for file in newer.iterdir():
            file.unlink()
        newer.rmdir()
    Run(plan(tiny(corpus, 6, **{"data.workers": workers})), folder).fit()
    assert_same_run(whole, folder)


KILLED = """
import os, signal, sys
import gansound.engine.checkpoint as checkpoint
where, count = sys.argv[1], int(sys.argv[2])
if where == "checkpoint":
    real = checkpoint.sync
    def sync(path):
        global count
        count -= 1
        if count == 0:
            open(os.environ["WITNESS"], "w").write(str(path))
            os.kill(os.getpid(), signal.SIGKILL)
        real(path)
    checkpoint.sync = sync
else:
    from gansound.engine.phases import Phases
    real_update = Phases._update
    def update(self, side, figures):
        global count
        count -= 1
        if count == 0:
            open(os.environ["WITNESS"], "w").write(side)
            os.kill(os.getpid(), signal.SIGKILL)
        real_update(self, side, figures)
    Phases._update = update
from gansound.engine.plan import plan
from gansound.engine.run import Run
from pathlib import Path
import json
Run(plan(json.loads(os.environ["RECIPE"])), Path(os.environ["RUN"])).fit()
"""


@pytest.mark.parametrize("where, count", [("checkpoint", 3), ("checkpoint", 20), ("step", 7)])
def test_killed_and_started_again(corpus: Path, whole: Path, tmp_path: Path, where: str, count: int) -> None:
    folder, witness = tmp_path / "run", tmp_path / "witness"
    environment = os.environ | {
        "RECIPE": json.dumps(tiny(corpus, 6)),
        "RUN": str(folder),
        "WITNESS": str(witness),
    }
    command = [warm.python(), "-c", KILLED, where, str(count)]
    killed = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert witness.exists()
    if where == "checkpoint":
        assert list((folder / "checkpoints").glob(".step_*.writing")), (
            "the kill was to land inside a checkpoint"
        )
    Run(plan(tiny(corpus, 6)), folder).fit()
    assert_same_run(whole, folder)
    assert not list((folder / "checkpoints").glob(".step_*.writing"))


def test_another_recipe_in_the_same_folder_is_refused(corpus: Path, whole: Path) -> None:
    with pytest.raises(RecipeError, match="batch_size"):
        Run(plan(tiny(corpus, 6, batch_size=4)), whole)


def test_killed_before_its_model_was_written(corpus: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    expected = load_file(folder / "model" / "model.safetensors")
    shutil.rmtree(folder / "model")
    Run(plan(tiny(corpus, 6)), folder).fit()
    found = load_file(folder / "model" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_killed_before_its_first_checkpoint_validates_step_0_once(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    Run(plan(tiny(corpus, 2, validate_every=2)), folder).fit()
    once = losses(folder)
    shutil.rmtree(folder / "checkpoints")
    Run(plan(tiny(corpus, 2, validate_every=2)), folder).fit()
    assert losses(folder) == once
    assert [line["step"] for line in once] == [0, 1, 2]


def test_validation_leaves_the_generator_in_its_mode(corpus: Path, tmp_path: Path) -> None:
    run = Run(plan(tiny(corpus, 1, validate_every=1)), tmp_path / "run")
    run.generator.eval()
    run.fit()
    assert not run.generator.training


def test_more_steps_go_on(corpus: Path, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    Run(plan(tiny(corpus, 8)), folder).fit()
    assert [line["step"] for line in losses(folder)] == list(range(1, 9))


def test_run_state_round_trips_and_refuses_a_second_name(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.1, betas=(0.5, 0.9))
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    tensors, rest = split_tensors(optimizer.state_dict())
    restored = join_tensors(tensors, json.loads(json.dumps(rest)))
    assert restored["param_groups"] == optimizer.state_dict()["param_groups"]
    assert restored["state"].keys() == {0, 1}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            assert torch.equal(restored["state"][index][name], value)
    state = RunState()
    state.register("layer", layer)
    with pytest.raises(ValueError, match="layer"):
        state.register("layer", layer)
    path = write(state.stage(5), tmp_path)
    before = layer.weight.detach().clone()
    torch.nn.init.zeros_(layer.weight)
    assert state.load(path) == 5
    assert torch.equal(layer.weight, before)


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gansound.engine.checkpoint as module

    state = RunState()
    state.register("layer", torch.nn.Linear(3, 2))
    write(state.stage(1), tmp_path)

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        write(state.stage(2), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_schedules() -> None:
    cosine = Schedule(warmup_steps=10, constant_steps=40, decay="cosine", final=0.1)
    values = [factor(cosine, step, 100) for step in range(101)]
    assert values[0] == pytest.approx(0.1)
    assert values[9:50] == [1.0] * 41
    assert values[75] == pytest.approx(0.55, abs=0.02)
    assert values[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in itertools.pairwise(values[10:]))
    assert factor(Schedule(decay="exponential", gamma=0.5, gamma_steps=10), 25, 100) == 0.25
    floored = Schedule(decay="exponential", gamma=0.5, gamma_steps=10, final=0.125)
    assert [factor(floored, step, 100) for step in (29, 30, 99)] == [0.25, 0.125, 0.125]


def test_a_default_that_is_said_or_left_out_is_the_same_run(tmp_path: Path) -> None:
    corpus = {"data.path": str(write_corpus(tmp_path / "corpus"))}
    said = {"seed": 0, "labels": None, "balance": None, "data.one_shots": None, "data.pad": "end"}
    for begun, resumed in (({}, said), (said, {})):
        before, now = (load_recipe("tiny_cpu", TINY | corpus | more) for more in (begun, resumed))
        assert identity(before) != identity(now)
        (tmp_path / "run").mkdir(exist_ok=True)
        (tmp_path / "run" / "recipe.yaml").write_text(to_yaml(before))
        run = Run(plan(now), tmp_path / "run")  # would refuse another recipe
        assert identity(run.plan.recipe) == identity(before)
        for other in ({"seed": 1}, {"data.pad": "random"}):
            with pytest.raises(RecipeError, match="another recipe"):
                Run(plan(load_recipe("tiny_cpu", TINY | corpus | resumed | other)), tmp_path / "run")


def test_a_warm_up_that_warms_nothing_up_is_told_of() -> None:
    warm = "optimization.schedule.warmup_steps"
    settings = {"steps": 40, f"generator_{warm}": 40, f"discriminator_{warm}": 10, "adversarial_from": 10}
    long, early = idle_warmups(plan(load_recipe("tiny_cpu", TINY | settings)).settings)
    assert f"generator_{warm}: 40, and the run ends at step 40: its last step has 1 of" in long
    assert f"discriminator_{warm}: 10, counted" in early
    assert "join at step 10 " in early
    settings |= {f"generator_{warm}": 400, "adversarial_from": 40}  # no discriminator joins
    (longer,) = idle_warmups(plan(load_recipe("tiny_cpu", TINY | settings)).settings)
    assert "has 0.1 of the learning rate" in longer
    settings |= {f"generator_{warm}": 39, "adversarial_from": 9}
    assert not list(idle_warmups(plan(load_recipe("tiny_cpu", TINY | settings)).settings))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"optimiser": 1}, "optimiser"),
        ({"data.segment_samples": 2000}, "segment_samples"),
        ({"generator": {"class_path": "os.system", "init_args": {}}}, "os.system"),
        ({"mel": {"preset": "hifigan", "hop_length": 200}}, "hop"),
        ({"steps": "many"}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"generator_optimization.optimizer.init_args.lr": -1.0}, "lr|learning rate"),
    ],
)
def test_a_wrong_recipe_fails_before_any_file_is_read(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        plan(load_recipe("tiny_cpu", TINY | {"data.path": str(tmp_path / "nowhere")} | changes))


def test_melgan_hop_must_be_the_product_of_its_rates() -> None:
    with pytest.raises(RecipeError, match=r"hop_length is 256.*128"):
        plan(load_recipe("melgan_ljspeech", {"generator.init_args": {"upsample_rates": [8, 8, 2]}}))
