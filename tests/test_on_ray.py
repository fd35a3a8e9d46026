"""What a Ray of this machine makes is what the command makes without one, byte for byte. Needs `gansound[ray]`."""

import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest

from gansound import audio
from gansound.cli import main
from gansound.data.source import open_corpus
from gansound.metrics.evaluation import Item, evaluate
from tests.tiny import save_tiny_model

RATE = 22050


def noise(seed, seconds=0.4):
    rng = np.random.default_rng(seed)
    return (0.1 * rng.standard_normal(int(seconds * RATE))).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(24):
        audio.write(folder / f"{number:02d}.wav", noise(number, 0.3 + 0.02 * number), RATE)
    audio.write(folder / "23.wav", noise(3, 0.36), RATE)  # a copy
    (folder / "broken.wav").write_bytes(b"RIFF")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def pool():
    """Of two processors, and of a GPU that Ray believes in."""
    pytest.importorskip("ray")
    from gansound.on_ray import Pool, connected

    with pytest.MonkeyPatch.context() as patch:
        import ray

        begin = ray.init
        patch.setattr(ray, "init", lambda **how: begin(**how, num_gpus=1))
        with connected("local", jobs=2) as found:
            yield found, Pool(ray, gpus=True)


@pytest.fixture
def ray(pool, monkeypatch):
    """Commands with `--ray` take the pool that is there: to start one takes seconds."""
    import contextlib

    for module in ("data", "vocode", "evaluate"):
        monkeypatch.setattr(
            f"gansound.cli.{module}.pool",
            lambda args: contextlib.nullcontext(None if args.ray is None else pool[args.ray == "auto"]),
        )


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".index" and "mtime" not in path.name
    }


def test_prepare(ray, corpus, tmp_path, monkeypatch):
    # Manifests say where the corpus lies: both from a folder of the same depth.
    for name, how in (("one", []), ("other", ["--ray"])):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        command = [
            "data",
            "prepare",
            str(corpus),
            "-o",
            "out",
            "--sample-rate",
            "16000",
            "--shards",
            "shards",
        ]
        assert main([*command, *how]) == 0
    one, other = tree(tmp_path / "one"), tree(tmp_path / "other")
    assert one == other
    assert len(one) > 24
    assert len(open_corpus(tmp_path / "other" / "out")) == 23


def test_prepare_goes_on_where_it_was_stopped(ray, pool, corpus, tmp_path, capsys):
    assert main(["data", "prepare", str(corpus), "-o", str(tmp_path / "o"), "--ray"]) == 0
    capsys.readouterr()
    assert main(["data", "prepare", str(corpus), "-o", str(tmp_path / "o"), "--ray"]) == 0
    assert "24 files were done before" in capsys.readouterr().out


@pytest.mark.parametrize("where", ["local", "auto"])
def test_vocode(ray, corpus, model, tmp_path, where, capsys):
    mels = tmp_path / "in"
    mels.mkdir()
    for number in range(12):
        np.save(mels / f"m{number}.npy", np.full((80, 6 + number), -3.0, np.float32))
        (mels / f"r{number}.wav").write_bytes((corpus / f"{number:02d}.wav").read_bytes())
    np.save(mels / "wrong.npy", np.zeros((3, 3), np.float32))
    (mels / "broken.wav").write_bytes(b"RIFF")
    command = ["vocode", str(mels), "--model", str(model), "--backend", "eager", "-o"]
    assert main([*command, str(tmp_path / "one")]) == 1
    here = capsys.readouterr()
    assert main([*command, str(tmp_path / "other"), "--ray", where]) == 1
    there = capsys.readouterr()
    assert tree(tmp_path / "one") == tree(tmp_path / "other")
    assert len(tree(tmp_path / "one")) == 24
    assert here.out.replace("one/", "other/") == there.out
    for said in (here.err, there.err):
        assert "2 of 26 failed" in said
        assert "wrong.npy: " in said
    (tmp_path / "other" / "m3.wav").unlink()
    assert main([*command, str(tmp_path / "other"), "--ray", where, "--skip-existing"]) == 1
    assert tree(tmp_path / "one") == tree(tmp_path / "other")


def figures(record):
    if isinstance(record, dict):
        return {k: figures(v) for k, v in record.items() if not k.startswith("real_time_factor")}
    return [figures(one) for one in record] if isinstance(record, list) else record


@pytest.mark.parametrize("where", ["local", "auto"])
def test_evaluate(ray, corpus, model, tmp_path, where):
    import json

    found = []
    for name, how in (("one", []), ("other", ["--ray", where])):
        target = tmp_path / f"{name}.json"
        command = [
            "evaluate",
            "--model",
            str(model),
            "--data",
            str(corpus),
            "--split",
            "all",
            "--backend",
            "eager",
        ]
        measures = ["--measures", "stft,band", "--limit", "10", "--json", str(target)]
        assert main([*command, *measures, "--html", str(tmp_path / name), *how]) == 0
        found.append(figures(json.loads(target.read_text())))
    assert found[0] == found[1]
    pages = [(tmp_path / name / "index.html").read_text() for name in ("one", "other")]
    heard = [re.findall(r'data:audio/[^"]+', page) for page in pages]
    assert heard[0] == heard[1]
    assert len(heard[0]) == 20


def dies(number):
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_what_kills_its_process_is_left_out_alone(pool):
    lost = []

    def note(item, reason):
        lost.append((item, reason))
        return -1

    expected = [-1 if number == 13 else number * number for number in range(40)]
    assert list(pool[0].map(dies, range(40), lost=note)) == expected
    assert [item for item, _ in lost] == [13]
    assert "died" in lost[0][1]


class Fragile:
    def __call__(self, number):
        return dies(number)


def same(number):
    return number


@pytest.mark.parametrize("kind", [0, 1], ids=["processors", "GPU"])
def test_a_model_whose_process_dies_is_opened_again(pool, kind):
    through = pool[kind].through(Fragile, range(20), before=same, after=same, lost=lambda item, reason: None)
    assert list(through) == [None if number == 13 else number * number for number in range(20)]


def refuses():
    raise ValueError("no such model: nowhere")


def fails(number):
    raise OSError(28, "No space left on device", "/there")


def test_what_a_function_raises_is_raised_here(pool):
    with pytest.raises(ValueError, match="no such model: nowhere"):
        list(pool[0].through(refuses, [1], before=same, after=same, lost=same))
    with pytest.raises(OSError, match="No space left") as caught:
        list(pool[0].map(fails, [1], lost=same))
    assert (caught.value.errno, caught.value.filename) == (28, "/there")


def test_a_node_without_the_folder_is_said(pool, monkeypatch):
    monkeypatch.setattr(Path, "cwd", lambda: Path("/nowhere/at/all"))
    with pytest.raises(ValueError, match="a node of the Ray cluster, has no folder /nowhere/at/all"):
        list(pool[0].map(same, [1], lost=same))


def test_figures_of_an_item_that_can_not_be_loaded(pool):
    items = [Item("good", Loads(0)), Item("bad", Loads(None))]
    found = evaluate(items, {"same": keeps}, RATE, measures=("stft",), run=pool[0].through)
    assert [utterance.id for utterance in found.utterances] == ["good"]
    assert [(failure.id, failure.reason) for failure in found.failures] == [("bad", "nothing there")]


class Loads:
    def __init__(self, seed):
        self.seed = seed

    def __call__(self):
        if self.seed is None:
            raise ValueError("nothing there")
        return noise(self.seed), RATE


def keeps(sound, rate):
    return sound


@pytest.mark.parametrize(
    "words, said",
    [
        (["--ray=127.0.0.1:9"], "nothing answers there"),
        (["--ray", "corpus/"], "no address, expected HOST:PORT"),
        (["--ray=ray://here:10001"], "no address, expected HOST:PORT"),
    ],
)
def test_an_address_that_is_none_or_answers_not_is_said(corpus, tmp_path, words, said, capsys):
    if "answers" in said:
        pytest.importorskip("ray")
    try:
        code = main(["data", "prepare", str(corpus), "-o", str(tmp_path / "out"), *words])
    except SystemExit as end:
        code = end.code
    assert code in (1, 2)
    assert said in capsys.readouterr().err


def test_without_ray_the_extra_is_named(corpus, tmp_path, capsys, monkeypatch):
    from gansound import extras

    found = extras.find_spec
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "ray" else found(name))
    for command in (
        ["data", "prepare", str(corpus), "-o", str(tmp_path / "out")],
        ["vocode", str(corpus), "-o", str(tmp_path / "o")],
        ["evaluate", "--model", "default", "--data", str(corpus), "--split", "all"],
    ):  # fmt: skip
        assert main([*command, "--ray"]) == 1
        assert "pip install 'gansound[ray]'" in capsys.readouterr().err
    assert not (Path(tmp_path) / "out").exists()
