"""A run's folder that is somebody else's, in use, moved, mixed up or tampered with: refused or right, never worse."""

import json
import os
import random
import shutil
import signal
import subprocess
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from gansound.cli import main
from gansound.engine import lock as locks
from gansound.engine.guards import TrainingError
from gansound.engine.history import read_run
from gansound.engine.lock import RUNNING, RunLock
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.engine.run_record import run_record
from gansound.recipe import load_recipe
from tests import warm
from tests.corpus import write_corpus
from tests.test_engine import TINY, weights

SETTINGS = TINY | {"trackers": "[]", "keep_checkpoints": 1}
STEPS, MORE = 4, 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def train(corpus: Path, folder: Path, steps: int = MORE, **more: object) -> None:
    settings = SETTINGS | {"data.path": str(corpus), "steps": steps} | more
    Run(plan(load_recipe("tiny_cpu", settings)), folder).fit()


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    train(corpus, folder, STEPS)
    return folder


@pytest.fixture(scope="module")
def right(corpus: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What going on with the run comes to."""
    folder = tmp_path_factory.mktemp("right") / "run"
    shutil.copytree(trained, folder)
    train(corpus, folder)
    return weights(folder)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- one process's


def test_a_second_training_says_who_has_the_run(corpus: Path, run: Path) -> None:
    with RunLock(run):
        with pytest.raises(ValueError, match=rf"being trained since 20.* by process {os.getpid()} on "):
            train(corpus, run)
        assert not (run / "failures").exists()
    assert not (run / RUNNING).exists()


def test_the_lock_of_one_that_was_killed_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib; from gansound.engine.lock import RunLock\n"
        "RunLock(pathlib.Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([warm.python(), "-c", script, tmp_path], check=False).returncode == -signal.SIGKILL
    assert (tmp_path / RUNNING).is_file()
    with RunLock(tmp_path) as taken:
        taken.check()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The lock of a process on another machine."""
    monkeypatch.setattr(locks, "WATCHED_SECONDS", 240)
    owner = {"token": "theirs", "host": "far", "machine": "other", "pid": os.getpid(), "pid_started": 1}
    (tmp_path / RUNNING).write_text(json.dumps(owner))
    return tmp_path / RUNNING


def test_a_lock_from_another_machine_is_judged_by_whether_it_is_touched(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = iter(range(1, 1000))
    monkeypatch.setattr(locks.time, "sleep", lambda _: os.utime(elsewhere, (next(touch), 0)))
    with pytest.raises(ValueError, match="on far"), RunLock(elsewhere.parent):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(locks, "WATCHED_SECONDS", 0.2)
    with RunLock(elsewhere.parent) as taken:
        taken.check()
        # And where it was this one that slept for too long, it stops, and leaves the other's lock where it is.
        elsewhere.write_text('{"token": "theirs", "pid": 7, "host": "far"}')
        with pytest.raises(TrainingError, match="process 7 on far took the run over"):
            taken.check()
    assert json.loads(elsewhere.read_text())["token"] == "theirs"


# --- the same corpus elsewhere, the same batch in parts


def test_a_corpus_may_move_and_another_may_not(corpus: Path, run: Path, right: dict, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(corpus, tmp_path / "moved"))
    train(moved, run)
    assert same(weights(run), right)
    next(moved.rglob("*.wav")).unlink()
    other = moved.rename(tmp_path / "other")
    written = (run / "recipe.yaml").read_bytes()
    for _ in range(2):  # what is refused leaves the recipe as it was, and is refused again
        with pytest.raises(ValueError, match=r"data\.path: holds other sounds than "):
            train(other, run, MORE + 1)
        assert (run / "recipe.yaml").read_bytes() == written


def test_micro_batches_may_change(corpus: Path, run: Path, right: dict) -> None:
    train(corpus, run, micro_batches=2)
    for name, value in weights(run).items():
        torch.testing.assert_close(value, right[name], rtol=1e-3, atol=1e-4)


# --- links, pipes, devices


@pytest.mark.parametrize(
    "name", ["sessions.jsonl", "metrics.jsonl", "recipe.yaml", "events.jsonl", "rollbacks.json", RUNNING]
)
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "device"])
def test_in_a_files_place_nothing_else_is_opened(
    corpus: Path, run: Path, name: str, kind: str, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine\n")
    (run / name).unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(run / name)
    else:
        targets = {"link": victim, "dangling": tmp_path / "none", "device": Path("/dev/zero")}
        (run / name).symlink_to(targets[kind])
    with pytest.raises(ValueError, match=rf"{name}: is a (link|pipe)"):
        train(corpus, run)
    history = read_run(run)
    run_record("run", history, [])
    if name in ("recipe.yaml", "metrics.jsonl", "sessions.jsonl", "events.jsonl"):
        assert history.state == ("unreadable", None)
        assert any(f"{name}: is a" in problem for problem in history.problems)
    assert victim.read_text() == "mine\n"
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["model", "checkpoints", "best", "tensorboard"])
def test_a_folder_that_is_a_link_is_left_alone(corpus: Path, run: Path, name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    if (run / name).exists():
        (run / name).rename(victim)
    else:
        victim.mkdir()
    before = sorted(path.name for path in victim.rglob("*"))
    (run / name).symlink_to(victim)
    with pytest.raises(ValueError, match=rf"{name}: is a link, expected a folder"):
        train(corpus, run)
    assert sorted(path.name for path in victim.rglob("*")) == before


def test_what_lies_beside_a_model_stays_as_it_is(corpus: Path, run: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    model = run / "model"
    (model / "README.md").symlink_to(secret)
    (model / "nowhere").symlink_to(tmp_path / "none")
    os.mkfifo(model / "pipe")
    (model / "notes").mkdir()
    (model / "notes" / "mine.txt").write_text("kept")
    train(corpus, run)
    assert (model / "README.md").readlink() == secret
    assert (model / "nowhere").is_symlink()
    assert (model / "pipe").is_fifo()
    assert (model / "notes" / "mine.txt").read_text() == "kept"
    assert json.loads((model / "config.json").read_text())["info"]["steps"] == MORE


# --- checkpoints


def resealed(checkpoint: Path) -> None:
    """Make sizes and sums fit what is there, as whoever tampers would."""
    record = json.loads((checkpoint / "state.json").read_text())
    for name in record["sizes"]:
        data = (checkpoint / name).read_bytes()
        record["sizes"][name], record["crc32"][name] = len(data), zlib.crc32(data)
    record.pop("own_crc32", None)
    record["own_crc32"] = zlib.crc32(json.dumps(record, sort_keys=True).encode())
    (checkpoint / "state.json").write_text(json.dumps(record))


def change_tensors(checkpoint: Path, part: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(checkpoint / f"{part}.safetensors")
    change(tensors)
    save_file(tensors, checkpoint / f"{part}.safetensors")
    resealed(checkpoint)


def change_state(checkpoint: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    record = json.loads((checkpoint / "state.json").read_text())
    change(record)
    (checkpoint / "state.json").write_text(json.dumps(record))
    resealed(checkpoint)


def first(tensors: dict[str, torch.Tensor], words: str = "") -> str:
    return next(name for name in sorted(tensors) if words in name and tensors[name].numel() > 1)


@pytest.mark.parametrize(
    "part, change, words",
    [
        ("generator", lambda t: t.update({first(t): t[first(t)] * float("nan")}), "holds NaN or infinity"),
        ("generator", lambda t: t.pop(first(t)), "is missing"),
        ("generator", lambda t: t.update({first(t): t[first(t)].half()}), "is torch.float16"),
        ("generator", lambda t: t.update({first(t): t[first(t)][:1].clone()}), "of shape"),
        ("generator_optimizer", lambda t: t.update({first(t): t[first(t)] / 0 * 0}), "holds NaN"),
        ("generator_optimizer", lambda t: t.update({first(t): t[first(t)].long()}), "is torch.int64"),
        ("generator_optimizer", lambda t: t.update({first(t): t[first(t)].flatten()[:1].clone()}), "of shape"),
        ("generator_optimizer", lambda t: t.pop(first(t)), "is missing"),
        ("generator_average", lambda t: t.update({first(t): t[first(t)] * float("inf")}), "holds NaN or infinity"),
    ],
)  # fmt: skip
def test_a_tampered_tensor_is_named(corpus: Path, run: Path, part: str, change: Any, words: str) -> None:
    change_tensors(run / "checkpoints" / "step_00000004", part, change)
    with pytest.raises(ValueError, match=f"{part}.safetensors: .*{words}"):
        train(corpus, run)


def group(record: dict[str, Any], key: str, value: Any) -> None:
    for name, rest in record["rest"]["generator_optimizer"]["items"]:
        if name == "param_groups":
            items = rest["list"][0]["items"]
            items[[k for k, _ in items].index(key)][1] = value


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda r: group(r, "weight_decay", {"value": 0.5}), "weight_decay is 0.5, the recipe has 0.01"),
        (lambda r: group(r, "params", {"list": []}), "of other weights"),
        (lambda r: r["rest"].pop("best"), "differ in best"),
        (lambda r: r["rest"].update(best={"items": [["score", {"value": float("nan")}]]}), "/score is NaN"),
        (lambda r: r["rest"].update(best={"value": 3}), "the state of best isn't one"),
        (lambda r: r["rest"].update(skipped={"many": 3}), "skipped"),
        (lambda r: r.update(run="0123456789abcdef"), "is of another run"),
    ],
)
def test_a_tampered_state_is_refused(corpus: Path, run: Path, change: Any, words: str) -> None:
    change_state(run / "checkpoints" / "step_00000004", change)
    with pytest.raises(ValueError, match=words):
        train(corpus, run)


def test_a_renamed_step_is_no_other_step(
    corpus: Path, run: Path, right: dict, caplog: pytest.LogCaptureFixture
) -> None:
    steps = run / "checkpoints"
    (steps / "step_00000004").rename(steps / "step_00000005")
    train(corpus, run)
    assert "is of step 4, under the name of another" in caplog.text
    assert same(weights(run), right)  # from the beginning, for there was no other


# --- anything


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise AssertionError(f"not done in {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


STRANGE: list[Any] = [
    None, True, -1, 0, 3, 10**30, 1e300, float("nan"), float("inf"), "", "x" * 5000, "gansound.engine.log.RunLog", [],
    {}, [[[]]], {"value": None}, {"tensor": "/nowhere"},
]  # fmt: skip


def tampered(value: Any, rng: random.Random) -> Any:
    """A copy with one thing in it changed, left out, doubled or renamed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        if rng.random() < 0.1:
            return {f"{k}.x" if k == key else k: v for k, v in value.items()}
        return value | {key: tampered(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        i = rng.randrange(len(value))
        if rng.random() < 0.15:
            return value[:i] + value[i + 1 :]
        return [*value[:i], tampered(value[i], rng), *value[i + 1 :]]
    return rng.choice(STRANGE)


def tamper(run: Path, rng: random.Random) -> None:
    """Change one file of a run."""
    checkpoint = run / "checkpoints" / "step_00000004"
    file = rng.choice([p for p in sorted(run.rglob("*")) if p.is_file()])
    kind = rng.randrange(5)
    if kind == 0:
        data = bytearray(file.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(bytes(data[: rng.choice([len(data), len(data) // 2])]))
    elif kind == 1:
        file.unlink()
        rng.choice(
            [file.mkdir, lambda: os.mkfifo(file), lambda: file.symlink_to("/dev/zero"), lambda: None]
        )()
    elif kind == 2:
        name = rng.choice(
            ["metrics.jsonl", "sessions.jsonl", "events.jsonl", "rollbacks.json", "trackers.json"]
        )
        lines = [
            "[" * 3000,
            "{}",
            '{"step": 1e999}',
            f'{{"step": {"9" * 5000}}}',
            '{"step": [1]}',
            "\0",
            "[3]",
        ]
        (run / name).write_text("\n".join(rng.sample(lines, 4)) + "\n")
    else:
        change_state(checkpoint, lambda record: record.update(tampered(record, rng)))


@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 150), marks=pytest.mark.slow)])
def test_a_tampered_run_is_refused_or_goes_on_right(
    corpus: Path, trained: Path, right: dict, seeds: range, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in seeds:
        run = Path(shutil.copytree(trained, tmp_path / "run", symlinks=True))
        try:
            tamper(run, random.Random(seed))
        except (KeyError, ValueError, TypeError, AttributeError, OSError):
            shutil.rmtree(run)
            continue  # it couldn't be sealed any more
        with within(240):
            assert main(["runs", str(run)]) in (0, 1, 2), seed
            code = main(["train", "tiny_cpu", "--quiet", "--run", str(run), *_as_arguments(corpus)])
        said = capsys.readouterr().err
        assert "internal error" not in said, (seed, said)
        assert code in (0, 1, 2), seed
        if code == 0:
            assert same(weights(run), right), seed
        shutil.rmtree(run)


def _as_arguments(corpus: Path) -> list[str]:
    settings = SETTINGS | {"data.path": corpus, "steps": MORE}
    return [part for name, value in settings.items() for part in (f"--{name}", _text(value))]


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, dict | int | type(None)) else str(value)
