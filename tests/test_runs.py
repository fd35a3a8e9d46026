"""`gansound runs`: lists, states, comparisons and pictures of real runs, one killed, one interrupted, some broken."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gansound.cli import main
from gansound.cli.training_progress import TrainingProgress
from gansound.engine.folder import check_same_recipe
from gansound.engine.history import find_runs, read_run
from gansound.engine.run_record import run_record
from gansound.recipe import RecipeError, to_yaml
from gansound.report.run_curves import runs_picture, smooth
from tests import warm
from tests.corpus import write_corpus
from tests.tiny import arguments

VALIDATED = {"validate_every": "2", "validate_utterances": "1", "checkpoint_every": "2"}

# Ends by SIGKILL in the middle of the line of the third step.
KILLED = """
import json, os, signal, sys, threading
from gansound.engine.log import RunLog
real = RunLog.scalars
def scalars(self, step, figures):
    if step == 3:
        self._file.write(json.dumps({"step": step, **figures})[:40])
        self._file.flush()
        for thread in threading.enumerate():
            if thread.name == "the checkpoint of step 2":  # which is there, then
                thread.join()
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, step, figures)
RunLog.scalars = scalars
from gansound.cli import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("made") / "corpus")


def command(corpus: Path, run: Path, steps: int, **changes: str) -> list[str]:
    start = ["train", "tiny_cpu", "-q", "--data.path", str(corpus), "--steps", str(steps), "--run", str(run)]
    return [*start, *arguments(**(VALIDATED | changes))]


def raising(error: BaseException) -> Any:
    def observe(self: TrainingProgress, now: Any) -> None:
        if now.step == 3:
            raise error

    return observe


@pytest.fixture(scope="module")
def made(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("made") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["gansound", *command(corpus, top / "whole [é]", 4)])
        assert main(command(corpus, top / "whole [é]", 4)) == 0
        patch.setattr(TrainingProgress, "_observe", raising(KeyboardInterrupt()))
        assert main(command(corpus, top / "sweep" / "interrupted", 4, seed="1")) == 130
        patch.setattr(TrainingProgress, "_observe", raising(RuntimeError("the cable is out")))
        assert main(command(corpus, top / "sweep" / "failed", 4, validate_every="null")) == 1
    killed = subprocess.run(
        [warm.python(), "-c", KILLED, *command(corpus, top / "killed", 4)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    assert not (top / "killed" / "metrics.jsonl").read_text().endswith("\n"), "the kill was to cut a line"
    return top


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def lines(run: Path) -> list[dict[str, Any]]:
    found = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            pass
    return found


def as_json(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, dict[str, Any]]:
    capsys.readouterr()
    assert main(["runs", *map(str, arguments), "--json"]) == 0
    return {run["name"]: run for run in json.loads(capsys.readouterr().out)["runs"]}


def test_what_the_json_says_is_what_the_log_holds(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = as_json(capsys, made)
    assert set(found) == {"whole [é]", "killed", "sweep/interrupted", "sweep/failed"}
    for name, run in found.items():
        log = lines(made / name)
        assert (run["step"], run["steps"]) == (log[-1]["step"], 4)
        assert run["task"] == "VocoderTask"
        for key, better in (("valid/mel_distance", min), ("valid/pesq_wb", max)):
            curve = {line["step"]: line[key] for line in log if key in line}
            assert (key in run["figures"]) == bool(curve)
            if curve:
                figure = run["figures"][key]
                best = better(value for step, value in curve.items() if step)
                assert (figure["last_step"], figure["last"]) == list(curve.items())[-1]
                assert figure["best"] == best == curve[figure["best_step"]]
        spectrum = run["figures"]["spectrum"]
        assert (spectrum["last"], spectrum["best"]) == (
            [line["spectrum"] for line in log if "spectrum" in line][-1],
            None,
        )
        trained = sum(line.get("step_seconds", 0) for line in log)  # every step is logged
        assert run["training_hours"] == pytest.approx(trained / 3600)
        assert run["resumes"] == 0
        assert [checkpoint["name"] for checkpoint in run["checkpoints"]] == sorted(
            path.name for path in (made / name / "checkpoints").iterdir()
        )
        assert run["problems"] == []
    assert found["whole [é]"]["recipe"] == "tiny_cpu"
    assert found["whole [é]"]["best_model"]["step"] in (2, 4)
    assert found["sweep/failed"]["best_model"] is None


@pytest.mark.parametrize(
    "given, name",
    [
        ("tiny_cpu", "tiny_cpu"),
        ("my/voice.yaml", "voice"),
        ("runs/a/recipe.yaml", "a"),
        ("recipe.yaml", "here"),
    ],
)
def test_a_recipe_is_called_what_it_was_given_as(tmp_path: Path, given: str, name: str) -> None:
    session = {"session": "1", "step": 0, "started": "2026", "command": ["gansound", "train", given]}
    session |= {"working_directory": "/somewhere/here"}
    (tmp_path / "sessions.jsonl").write_text(json.dumps(session) + "\n")
    assert run_record("x", read_run(tmp_path), ())["recipe"] == name


def test_a_resume_by_its_own_recipe_leaves_a_run_its_name(tmp_path: Path) -> None:
    with (tmp_path / "sessions.jsonl").open("w") as file:
        for step, given in enumerate(("tiny_cpu", "runs/a/recipe.yaml")):
            session = {"session": str(step), "step": step, "started": "2026"}
            file.write(json.dumps(session | {"command": ["gansound", "train", given]}) + "\n")
    assert run_record("x", read_run(tmp_path), ())["recipe"] == "tiny_cpu"


@pytest.mark.parametrize(
    "checkpoints, row, detail",
    [
        ((), "–", "no checkpoint yet"),
        ((1, 2), "2", "goes on from step 2"),
        ((1, 2, "9.torn"), "2", "goes on from step 2"),
        ((2, 3), None, None),
    ],
)
def test_where_a_run_goes_on_from(
    checkpoints: tuple[Any, ...],
    row: str | None,
    detail: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "runs" / "one"
    for step in checkpoints:
        folder = run / "checkpoints" / f"step_0000000{step}"
        folder.mkdir(parents=True)
        (folder / "state.json").touch()
    run.mkdir(exist_ok=True, parents=True)
    (run / "recipe.yaml").write_text("steps: 4\n")
    (run / "metrics.jsonl").write_text('{"step": 3, "spectrum": 1.0}\n')
    assert main(["runs", str(run.parent)]) == 0
    header, found, *_ = capsys.readouterr().out.splitlines()
    told = dict(zip(header.split(), found.split(), strict=False))
    assert (told["step"], told.get("checkpoint")) == ("3/4", row)
    assert main(["runs", str(run)]) == 0
    ends = f" logged, {detail}" if detail else ""
    assert f"step 3/4{ends}\n" in capsys.readouterr().out
    assert as_json(capsys, run)["one"]["checkpoint_step"] == max(
        (step for step in checkpoints if isinstance(step, int)), default=None
    )


def test_states(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states = {name: (run["state"], run["why"]) for name, run in as_json(capsys, made).items()}
    assert states == {
        "whole [é]": ("finished", None),
        "sweep/interrupted": ("interrupted", None),
        "sweep/failed": ("failed", "RuntimeError: the cable is out"),
        "killed": ("stopped", "its process is gone: killed?"),
    }


def change_start(run: Path, **changes: Any) -> None:
    """A run whose last line is its start, with other values in it."""
    file = run / "sessions.jsonl"
    start = json.loads(file.read_text().splitlines()[0])
    file.write_text(json.dumps(start | changes) + "\n")


def test_a_run_that_trains_now(runs: Path) -> None:
    run = runs / "whole [é]"
    old = time.time() - 86400
    os.utime(run / "metrics.jsonl", (old, old))
    change_start(run)  # by this very process
    assert read_run(run).state[0] == "running"
    change_start(run, pid_started=1)  # the number has another process now
    assert read_run(run).state[0] == "stopped"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    change_start(run, pid=gone.pid)
    assert read_run(run).state[0] == "stopped"
    change_start(run, host=socket.gethostname() + "-other")
    assert read_run(run).state == ("stopped", f"nothing new from {socket.gethostname()}-other")
    os.utime(run / "metrics.jsonl")
    assert read_run(run).state[0] == "running"


def test_raising_the_steps_makes_it_unfinished(runs: Path, corpus: Path) -> None:
    run = runs / "whole [é]"
    text = (run / "recipe.yaml").read_text()
    assert "steps: 4\n" in text
    (run / "recipe.yaml").write_text(text.replace("steps: 4\n", "steps: 5\n"))
    assert read_run(run).state[0] == "stopped"
    assert main(command(corpus, run, 5)) == 0
    history = read_run(run)
    assert (history.state[0], history.step) == ("finished", 5)
    assert [session["step"] for session in history.sessions] == [0, 4]


def test_a_killed_run_resumes_and_says_so(runs: Path, corpus: Path) -> None:
    assert main(command(corpus, runs / "killed", 4)) == 0
    history = read_run(runs / "killed")
    assert history.state[0] == "finished"
    assert [(session["step"], bool(session["end"])) for session in history.sessions] == [
        (0, False),
        (2, True),
    ]
    assert [line["step"] for line in lines(runs / "killed")] == [0, 1, 2, 3, 4]


def test_a_run_of_before_there_were_sessions(runs: Path) -> None:
    for name, state in (("whole [é]", "finished"), ("killed", "running")):
        (runs / name / "sessions.jsonl").unlink()
        os.utime(runs / name / "metrics.jsonl")
        assert read_run(runs / name).state[0] == state
    old = time.time() - 86400
    os.utime(runs / "killed" / "metrics.jsonl", (old, old))
    assert read_run(runs / "killed").state[0] == "stopped"


@pytest.mark.parametrize(
    "file, content, says",
    [
        ("recipe.yaml", b"steps: [", "recipe.yaml"),
        ("recipe.yaml", b"- 1\n", "no mapping"),
        ("recipe.yaml", b"\xff\xfe\x00", "recipe.yaml"),
        ("recipe.yaml", None, "no recipe.yaml"),
        ("metrics.jsonl", None, "no metrics.jsonl"),
        ("metrics.jsonl", b'{"step": 1, "spectrum": 2}\n\0\0\0\n{"step": 3}\n', "line 2"),
        ("metrics.jsonl", b'[]\n{"spectrum": 1}\n{"step": "x"}\n', "lines"),
        ("metrics.jsonl", b"", None),
        ("sessions.jsonl", b'{"session": 1}\n{"started": 3}\n[]\nx\n{"session": "a", "ended": 1}\n', None),
        (
            "sessions.jsonl",
            b'{"session": 1, "started": 5, "step": 0, "pid": "x", "git": 3, "gpus": 2}\n',
            None,
        ),
        ("best/config.json", b"{}", None),
        ("events.jsonl", b'{"step": 1}\n{"event": [1]}\n7\n{"ev', None),
    ],
)
def test_a_broken_folder_is_listed_with_what_is_wrong(
    runs: Path, file: str, content: bytes | None, says: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "whole [é]"
    if content is None:
        (run / file).unlink()
    else:
        (run / file).write_bytes(content)
    for where in (runs, run):
        assert main(["runs", str(where)]) == 0
        captured = capsys.readouterr()
        assert "whole [é]" in captured.out
        assert says is None or says in captured.out
        assert captured.err == ""
    problems = as_json(capsys, runs)["whole [é]"]["problems"]
    assert (problems == []) == (says is None)
    assert all(name in as_json(capsys, runs) for name in ("killed", "sweep/failed"))


def test_runs_are_found_and_what_is_inside_them_is_not(runs: Path) -> None:
    shutil.copytree(runs / "killed", runs / "whole [é]" / "inside")
    shutil.copytree(runs / "killed", runs / ".hidden" / "run")
    found = [str(path.relative_to(runs)) for path in find_runs(runs)]
    assert found == ["killed", "sweep/failed", "sweep/interrupted", "whole [é]"]


def test_hours_of_training_between_lines_and_over_a_cut(tmp_path: Path) -> None:
    log = [
        {"step": 0, "valid/mel_distance": 1.0},
        {"step": 50, "step_seconds": 0.2},
        {"step": 70, "valid/mel_distance": 0.5},  # a validation between two lines: at the pace before it
        {"step": 100, "step_seconds": 0.4},
        {"step": 150, "step_seconds": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    expected = [0, 10, 14, 26, 31]
    np.testing.assert_allclose(np.array(read_run(tmp_path).hours) * 3600, expected)


@pytest.mark.parametrize("log", [[], [{"step": 0, "valid/mel_distance": 1.0}]])
def test_how_long_a_run_trained_that_logged_no_step_is_not_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], log: list[dict[str, float]]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    session = {"session": "1", "step": 0, "started": "2026"}
    (run / "sessions.jsonl").write_text(json.dumps(session) + "\n")
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    assert as_json(capsys, tmp_path, "--sort", "hours")["run"]["training_hours"] is None
    assert main(["runs", str(run)]) == 0
    assert "– of training, – s a step" in capsys.readouterr().out
    assert main(["runs", str(tmp_path)]) == 0
    assert "0 s" not in capsys.readouterr().out


def test_what_training_began_with_is_no_best(tmp_path: Path) -> None:
    name = "valid/kernel_distance"
    log = [{"step": 0, name: 17.1}]
    for step, value, best in ((None, None, None), (2, 30.0, 30.0), (4, 25.0, 25.0), (6, 40.0, 25.0)):
        log += [{"step": step, name: value}] if step else []
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
        found = run_record("run", read_run(tmp_path), [name])["figures"][name]
        assert (found["best"], found["last"]) == (best, value or 17.1)


def test_what_is_not_a_number_is_null_for_other_programs(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = runs / "whole [é]"
    (run / "events.jsonl").write_text('{"step": 1, "event": "skipped", "loss": NaN}\n')
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "spectrum": NaN, "valid/mel_distance": Infinity}\n')
    config = json.loads((run / "best" / "config.json").read_text())
    config["info"]["validation"]["pesq_wb"] = float("nan")
    (run / "best" / "config.json").write_text(json.dumps(config))
    assert main(["runs", str(run), "--json"]) == 0

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in the output")

    (found,) = json.loads(capsys.readouterr().out, parse_constant=refuse)["runs"]
    assert found["events"]["last"] == [{"step": 1, "event": "skipped", "loss": None}]
    assert (found["step"], found["figures"]["spectrum"]["last_step"]) == (5, 4)
    assert set(found["best_model"]["validation"]) == set(config["info"]["validation"]) - {"pesq_wb"}
    assert main(["runs", str(run)]) == 0


def test_the_table(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", str(made), "--key", "pesq_wb", "spectrum"]) == 0
    out = capsys.readouterr().out
    heading, *rows = out.splitlines()
    assert "PESQ (wide band) ↑" in heading
    assert "spectrum" in heading
    assert "mel distance" not in heading
    (whole,) = [row for row in rows if row.startswith("whole [é]")]
    spectrum = lines(made / "whole [é]")[-1]["spectrum"]
    assert all(part in whole for part in ("tiny_cpu", "4/4", "finished", f"{spectrum:.3g}"))
    assert f"tensorboard --logdir {made}" in out
    assert "sweep/failed failed: RuntimeError: the cable is out" in out


def test_sorting(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_name = list(as_json(capsys, made, "--sort", "name"))
    assert by_name == sorted(by_name)
    for name, key, sign in (
        ("mel_distance", "valid/mel_distance", 1),
        ("valid/pesq_wb", "valid/pesq_wb", -1),
    ):
        found = as_json(capsys, made, "--sort", name, "--key", "spectrum")
        assert list(found)[-1] == "sweep/failed", "it has no validation"
        best = [sign * run["figures"][key]["best"] for run in list(found.values())[:-1]]
        assert best == sorted(best)
    started = [run["started"] for run in as_json(capsys, made).values()]
    assert started == sorted(started)


def test_differences(made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "runs.json"
    assert main(["runs", str(made), "--differences", "--json", str(file)]) == 0
    out = capsys.readouterr().out
    found = json.loads(file.read_text())["differences"]
    assert found == {
        "seed": {"sweep/interrupted": 1},  # where it isn't set
        "validate_every": {"whole [é]": 2, "killed": 2, "sweep/interrupted": 2, "sweep/failed": None},
    }
    assert "seed" in out
    assert "precision" not in out
    assert main(["runs", str(made / "killed"), str(made / "whole [é]"), "--differences"]) == 0
    assert "the recipes are equal" in capsys.readouterr().out


def test_a_recipe_that_cannot_be_read_has_no_differences(
    made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name, text in (("a", None), ("b", "seed: [1,\n x: }"), ("c", "only words"), ("d", None)):
        (tmp_path / name).mkdir()
        recipe = (made / "killed" / "recipe.yaml").read_text()
        (tmp_path / name / "recipe.yaml").write_text(recipe if text is None else text)
    assert main(["runs", str(tmp_path), "--differences", "--json", str(tmp_path / "runs.json")]) == 0
    said = capsys.readouterr().out
    assert "the recipes are equal" in said
    assert "without a recipe, not compared: b, c" in said
    assert json.loads((tmp_path / "runs.json").read_text())["differences"] == {}
    assert main(["runs", str(tmp_path / "a"), str(tmp_path / "b"), "--differences"]) == 0
    said = capsys.readouterr().out
    assert "no two recipes" in said
    assert "equal" not in said


def test_one_run(made: Path, runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = runs / "whole [é]"
    events = [{"step": 1, "event": "skipped", "message": "a [loss] was NaN"}] * 9
    events.append({"step": 3, "event": "rollback", "message": "to step 2"})
    (run / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    assert main(["runs", str(run)]) == 0
    out = capsys.readouterr().out
    assert "events: 9 skipped, 1 rollback" in out
    assert out.count("a [loss] was NaN") == 4, "the last five are shown"
    assert "step 3: rollback: to step 2" in out
    for checkpoint in (run / "checkpoints").iterdir():
        size = sum(file.stat().st_size for file in checkpoint.iterdir())
        assert f"checkpoints/{checkpoint.name}, {size / 2**20:.1f} MiB" in out
    assert f"{run}/best" in out
    command = next(line for line in out.splitlines() if line.startswith("command: ")).removeprefix(
        "command: "
    )
    assert f"--run '{made / 'whole [é]'}'" in command, "it can be pasted"
    assert shlex.split(command) == read_run(run).sessions[-1]["command"], "whole, however long it is"


def test_the_picture_draws_what_the_logs_hold(made: Path) -> None:
    histories = {name: read_run(made / name) for name in ("whole [é]", "sweep/interrupted", "sweep/failed")}
    logs = {name: (run.records, run.hours) for name, run in histories.items()}
    figures = ["valid/mel_distance", "spectrum"]
    for x in ("step", "hours"):
        figure = runs_picture(logs, figures, x=x)
        panels = figure.axes[:2]
        for axes, name in zip(panels, figures, strict=True):
            drawn = {line.get_label(): np.array(line.get_data()) for line in axes.lines}
            for run in logs:
                log = lines(made / run)
                hours = np.cumsum([line.get("step_seconds", 0) for line in log]) / 3600
                over = hours if x == "hours" else [line["step"] for line in log]
                curve = np.array(
                    [(at, line[name]) for at, line in zip(over, log, strict=True) if name in line]
                ).T
                if not curve.size:
                    assert run not in drawn
                elif name == "spectrum":
                    np.testing.assert_allclose(drawn[f"_{run}"], curve)
                    np.testing.assert_allclose(drawn[run], [curve[0], smooth(curve[1])])
                else:
                    np.testing.assert_allclose(drawn[run], curve)
            assert axes.get_xlabel() == ("hours of training" if x == "hours" else "step")
        (legend,) = figure.legends
        assert [text.get_text() for text in legend.get_texts()] == list(logs)
    with pytest.raises(ValueError, match="loudness"):
        runs_picture(logs, ["loudness"])


def test_a_figure_of_one_validation_spans_the_steps_of_all() -> None:
    records = [
        {"step": 0, "valid/mel_distance": 1.0},
        {"step": 5, "spectrum": 2.0},
        {"step": 90, "spectrum": 1.0},
    ]
    one, other = runs_picture({"a": (records, [0.0, 1.0, 2.0])}, ["valid/mel_distance", "spectrum"]).axes
    assert one.get_xlim() == other.get_xlim()
    assert one.get_xlim()[1] >= 90


def test_many_runs_stay_apart() -> None:
    records = [{"step": step, "spectrum": 1.0 + step} for step in range(5)]
    logs = {f"run {i:02d}": (records, [0.0] * 5) for i in range(20)}
    figure = runs_picture(logs, ["spectrum"])
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(figure.axes[0].lines) == len(looks) == 20
    figure.draw_without_rendering()
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= page.x1
    assert box.y1 <= figure.axes[0].get_window_extent().y0


def test_smoothing() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(smooth(np.full(700, 3.5)), 3.5)
    ramp = np.arange(2000.0)
    np.testing.assert_allclose(smooth(ramp)[800:1200], ramp[800:1200], rtol=1e-6)  # no lag
    noise = rng.normal(size=3000)
    np.testing.assert_allclose(smooth(noise[::-1]), smooth(noise)[::-1], atol=1e-12)
    assert smooth(noise).std() < 0.2
    # By its definition: weights that fall off by e over a fiftieth, on both sides.
    away = np.abs(np.subtract.outer(np.arange(300), np.arange(300)))
    weights = np.exp(-away * 50 / 300)
    np.testing.assert_allclose(smooth(noise[:300]), weights @ noise[:300] / weights.sum(1))
    np.testing.assert_allclose(smooth(noise[:1]), noise[:1])


def test_the_picture_as_a_file(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for keys in ([], ["--key", "mel_distance", "--x", "hours"]):
        file = tmp_path / "runs.png"
        assert main(["runs", str(made), "--picture", str(file), *keys]) == 0
        with Image.open(file) as picture:
            assert picture.format == "PNG"
            assert picture.width > 600
            assert np.asarray(picture)[..., 3].any(), "not an empty page"
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "recipe.yaml").write_text("steps: 3\n")
    assert main(["runs", str(empty), "--picture", str(file)]) == 1
    assert "nothing to draw" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "runs: no such folder"),
        (["{gone}"], "no such folder"),
        (["{made}/killed/recipe.yaml"], "is a file"),
        (["{empty}"], "no run there or below"),
        (["{made}", "--key", "mel_distanse"], "did you mean"),
        (["{made}", "--sort", "beauty"], "started"),
        (["{made}", "--key", "spectrum", "{made}"], "put DIR before --key"),
        (["{made}", "--picture", "{gone}/a.png"], "expected a file in a folder that exists"),
        (["--json", "{made}"], "put DIR before --json"),
        (["{made}", "--x", "days"], "invalid choice"),
    ],
)
def test_what_the_command_line_gets_wrong(
    made: Path,
    tmp_path: Path,
    arguments: list[str],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    places = {"{gone}": str(tmp_path / "gone"), "{made}": str(made), "{empty}": str(tmp_path / "empty")}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    if arguments[:1] == ["--json"]:
        (tmp_path / "runs").symlink_to(made)
    assert main(["runs", *arguments]) == 2
    captured = capsys.readouterr()
    assert says in captured.err
    assert captured.out == ""


def test_a_resume_with_another_recipe_says_which_values_differ_and_two_ways_on(tmp_path):
    path = tmp_path / "run" / "recipe.yaml"
    path.parent.mkdir()
    before = {"steps": 5, "losses": {"a": {"weight": 1.0}}, "optimization": {"lr": 0.1, "clip_norm": None}}
    path.write_text(to_yaml(before))
    assert check_same_recipe(path, before | {"steps": 9}) is None
    now = {"steps": 9, "losses": {"a": {"weight": 1.0}}, "optimization": {"lr": 0.2, "clip_norm": 1.0}}
    with pytest.raises(RecipeError) as caught:
        check_same_recipe(path, now)
    said = str(caught.value)
    assert "optimization.lr is 0.1 (number) there, got 0.2 (number)" in said
    assert "optimization.clip_norm is nothing (null) there, got 1.0 (number)" in said
    assert "losses" not in said
    assert f"gansound train {path} --run {path.parent}" in said
    assert f"--init-from {path.parent}" in said
