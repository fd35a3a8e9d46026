"""`gansound compare`: folders and models in pairs, the page for blind listening, and what comes back from it."""

import base64
import json
import re

import numpy as np
import pytest
import soundfile
from scipy.stats import binomtest

from gansound.cli import main
from gansound.metrics.evaluation import GROUND_TRUTH, Item, evaluate
from gansound.metrics.listening import (
    COLUMNS,
    mean_ratings,
    rating_difference,
    read_answers,
    told_apart,
)
from gansound.metrics.recorded import RecordedSounds
from gansound.report.listening import ListeningPage, anchor
from tests.tiny import save_tiny_model

RATE = 22050


def noise(seed: int, seconds: float = 0.6) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


@pytest.fixture
def folders(tmp_path):
    """Recordings of two speakers, a copy at half the level, one with noise of another rate and format."""
    for speaker, numbers in (("ann", (0, 1)), ("bob", (2,))):
        for number in numbers:
            real = noise(number)
            for name, audio, suffix, rate in (
                ("data", real, ".wav", RATE),
                ("halved", 0.5 * real, ".flac", RATE),
                ("noisy", real + 0.3 * noise(number + 9), ".wav", RATE),
            ):
                path = tmp_path / name / speaker / f"{number}{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, audio, rate)
    return tmp_path


def compare(*arguments) -> int:
    return main(["compare", *map(str, arguments)])


def test_folders_are_compared_in_pairs_by_speaker_with_picture_and_json(folders, capsys):
    figures, picture = folders / "figures.json", folders / "differences.png"
    code = compare(
        folders / "halved", folders / "noisy", "--data", folders / "data", "--split", "all",
        "--measures", "mel,stft", "--json", figures, "--picture", picture,
    )  # fmt: skip
    output = capsys.readouterr()
    assert code == 0, output.err
    record = json.loads(figures.read_text())
    assert record["compared"] == {name: str(folders / name) for name in ("halved", "noisy")}
    halved, noisy = (record["systems"][name]["mel_distance_mean"] for name in ("halved", "noisy"))
    assert halved == pytest.approx(np.log(2), abs=2e-3)
    assert record["differences"]["halved - noisy"]["mel_distance_mean"] == pytest.approx(halved - noisy)
    assert record["differences"].keys() == {"halved - noisy"}
    assert "mel_distance_mean" not in record
    assert {name: row["utterance_count"] for name, row in record["speakers"].items()} == {"ann": 2, "bob": 1}
    assert record["speakers"]["bob"]["halved"]["mel_distance_mean"] == pytest.approx(np.log(2), abs=2e-3)
    assert picture.read_bytes().startswith(b"\x89PNG")
    for text in ("halved − noisy, paired", "halved, by speaker", "at 22050 Hz"):
        assert text in output.out


def test_a_model_is_compared_with_a_folder_and_a_missing_sound_fails_alone(folders, capsys):
    model = save_tiny_model(folders / "model")
    (folders / "halved" / "ann" / "1.flac").unlink()
    figures = folders / "figures.json"
    code = compare(
        model, folders / "halved", "--data", folders / "data", "--split", "all", "--measures", "mel,probes",
        "--json", figures,
    )  # fmt: skip
    output = capsys.readouterr()
    assert code == 1, output.err
    record = json.loads(figures.read_text())
    assert record["utterance_count"] == 2
    assert "no file is called 1, expected one at ann/1" in record["failures"][0]["reason"]
    assert record["systems"]["model"]["noise_lines_db_count"] == 1
    assert record["systems"]["halved"]["noise_lines_db_count"] == 0


def test_sounds_are_found_by_path_or_by_a_name_that_is_the_only_one(folders):
    sounds = RecordedSounds(folders / "halved")
    assert sounds.file("ann/1.mp3").name == "1.flac"
    assert sounds.file("elsewhere/2.wav") == folders / "halved" / "bob" / "2.flac"
    soundfile.write(folders / "halved" / "2.wav", noise(0), RATE)
    sounds = RecordedSounds(folders / "halved")
    with pytest.raises(ValueError, match="2 files are called 2, expected one at elsewhere/2"):
        sounds.file("elsewhere/2.wav")
    assert sounds.sound("ann/0.wav", RATE // 2).size == round(0.3 * RATE)
    (folders / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no audio file"):
        RecordedSounds(folders / "empty")


def test_sounds_of_prepared_copies_and_of_absolute_paths_are_found_by_the_end_of_the_path(folders):
    soundfile.write(folders / "halved" / "bob" / "1.flac", noise(3), RATE)  # of ann's name
    sounds = RecordedSounds(folders / "halved")
    for name, found in (
        ("audio/ann/1.wav.flac", "ann/1.flac"),
        ("/corpus/of mine/bob/1.wav", "bob/1.flac"),
        ("audio/ann/0.flac.flac", "ann/0.flac"),
        ("audio/elsewhere/2.wav.flac", "bob/2.flac"),
    ):
        assert sounds.file(name) == folders / "halved" / found
    with pytest.raises(ValueError, match="2 files are called 1, expected one at audio/carl/1"):
        sounds.file("audio/carl/1.wav.flac")


def test_a_folder_that_lacks_the_first_recording_is_compared_on_the_others(folders, capsys):
    (folders / "halved" / "ann" / "0.flac").unlink()
    asked = (
        folders / "halved",
        folders / "noisy",
        "--data",
        folders / "data",
        "--split",
        "all",
        "--measures",
        "mel",
    )
    assert compare(*asked) == 1
    output = capsys.readouterr()
    assert "2 utterances" in output.out
    assert "no file is called 0, expected one at ann/0" in output.out + output.err
    for path in (folders / "halved").rglob("*.flac"):
        path.rename(path.with_name("x" + path.name))
    assert compare(*asked) == 1
    assert "holds a sound of none of the recordings" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, said",
    [
        ((), "two or more"),
        (("a",), "expected two or more"),
        (("a", "a"), "twice"),
        (("a", "b"), "--data DIR"),
        (("a", "b", "--data", "absent"), "no such folder"),
        (("a", "b", "--data", ".", "--trials", "0"), "--trials: got 0"),
        (("a", "b", "--data", ".", "--picture", "absent/x.png"), "folder that exists"),
        (("--answers", "absent.csv"), "no such file"),
    ],
)
def test_what_cannot_be_compared_is_refused_first(arguments, said, capsys):
    assert compare(*arguments) == 2
    assert said in capsys.readouterr().err


def test_the_page_asks_every_trial_blind(folders):
    systems = {name: RecordedSounds(folders / name) for name in ("halved", "noisy")}
    items = [Item(f"ann/{n}.wav", lambda n=n: (noise(n), RATE)) for n in (0, 1)]
    with ListeningPage(folders / "page", RATE, items={"ann/1.wav"}) as page:
        evaluate(items, systems, RATE, measures=("mel",), on_audio=page.add)
        text = page.write().read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', text)[1])
    key = json.loads(base64.b64decode(data["key"]))
    rating, abx = data["trials"]
    assert (rating["test"], rating["item"], abx["test"]) == ("mushra", "ann/1.wav", "abx")
    assert sorted(key[name] for name in rating["sounds"]) == ["anchor", "halved", "noisy", "reference"]
    assert key[rating["open"]] == "reference"
    assert rating["open"] not in rating["sounds"]
    assert [key[name] for name in abx["sounds"]] == [key[name] for name in abx["x"]] == ["halved", "noisy"]
    files = sorted(path.stem for path in (folders / "page" / "sounds").iterdir())
    assert files == sorted(key)
    for plain in ("halved", "noisy", "reference.flac", "http"):
        assert plain not in text.split("</style>")[1]
    heard = {
        key[name]: soundfile.read(folders / "page" / "sounds" / f"{name}.flac")[0]
        for name in rating["sounds"]
    }
    np.testing.assert_allclose(heard["reference"], noise(1), atol=1e-4)
    np.testing.assert_allclose(heard["halved"], 0.5 * noise(1), atol=1e-4)
    power = np.abs(np.fft.rfft(heard["anchor"])) ** 2
    hertz = np.fft.rfftfreq(heard["anchor"].size, 1 / RATE)
    assert power[hertz > 3900].sum() < 1e-4 * power.sum()
    # What lies below passes, in time.
    np.testing.assert_allclose(anchor(heard["anchor"], RATE)[500:-500], heard["anchor"][500:-500], atol=0.01)


def test_pages_of_other_sounds_keep_their_answers_apart(folders):
    def identity(folder, level):
        with ListeningPage(folders / folder, RATE) as page:
            page.add(Item("a.wav", lambda: (noise(0), RATE)), {GROUND_TRUTH: noise(0), "x": level * noise(0)})
            data = re.search(r'id="data">(.*?)</script>', page.write().read_text())[1]
        return json.loads(data)["id"]

    assert identity("one", 0.5) == identity("again", 0.5) != identity("other", 0.25)
    script = (folders / "one" / "index.html").read_text()
    assert "localStorage.getItem(store)" in script
    assert 'store = "gansound-listening-" + data.id;' in script


def test_nothing_to_listen_to_writes_nothing(tmp_path):
    with ListeningPage(tmp_path / "page", RATE) as page, pytest.raises(ValueError, match="no recording"):
        page.write()
    assert not (tmp_path / "page").exists()


def answers_file(path, rows):
    path.write_text("\n".join(",".join(map(str, row)) for row in [COLUMNS, *rows]) + "\n")
    return path


def ratings(listener, item, **given):
    return [(listener, "mushra", item, system, rating, "", "") for system, rating in given.items()]


def test_ratings_are_means_over_items_without_those_who_miss_the_reference(tmp_path):
    fair = answers_file(
        tmp_path / "anna.csv",
        [
            *ratings("anna", "1", reference=100, a=80, b=60, anchor=20),
            *ratings("anna", "2", reference=95, a=60, b=50, anchor=30),
        ],
    )
    deaf = answers_file(tmp_path / "carl.csv", ratings("carl", "1", reference=10, a=0, b=100, anchor=90))
    answers = read_answers([fair, deaf])
    assert answers.screened() == ["carl"]
    means = mean_ratings(answers)
    assert {name: mean.mean for name, mean in means.items()} == {
        "reference": 97.5, "a": 70.0, "b": 55.0, "anchor": 25.0,
    }  # fmt: skip
    assert (*means,)[0] == "reference"
    assert (*means,)[-1] == "anchor"
    difference = rating_difference(answers, "a", "b")
    assert (difference.mean, difference.low, difference.high, difference.count) == (15.0, 10.0, 20.0, 2)


def test_right_answers_are_weighed_against_guessing(tmp_path):
    rows = [("anna", "abx", str(n), "a", "", "b", int(n < 9)) for n in range(12)]
    [told] = told_apart(read_answers([answers_file(tmp_path / "a.csv", rows)]))
    assert (told.pair, told.correct, told.count) == (("a", "b"), 9, 12)
    assert told.guessing == pytest.approx(binomtest(9, 12, 0.5, alternative="greater").pvalue)


def test_the_command_reads_answers_back(tmp_path, capsys):
    rows = [
        *ratings("anna", "1", reference=100, a=80, b=60, anchor=20),
        ("anna", "abx", '"it, 1"', "a", "", "b", 1),
    ]
    file = answers_file(tmp_path / "a.csv", rows)
    figures = tmp_path / "figures.json"
    assert compare("--answers", file, file, "--json", figures) == 0
    output = capsys.readouterr().out
    assert "a − b" in output
    assert "1 of 1" in output
    listening = json.loads(figures.read_text())["listening"]
    assert listening["rating_differences"]["a - b"]["rating_mean"] == 20.0
    assert listening["told_apart"][0]["trial_count"] == 1  # the same file twice is one answer


def test_two_listeners_of_one_name_are_not_taken_for_one(tmp_path):
    first = answers_file(tmp_path / "1.csv", ratings("anna", "1", reference=100, a=20, anchor=0))
    more = answers_file(
        tmp_path / "2.csv",
        [
            *ratings("anna", "1", reference=100, a=20, anchor=0),
            *ratings("anna", "2", reference=100, a=40, anchor=0),
        ],
    )
    assert mean_ratings(read_answers([first, more]))["a"].mean == 30
    other = answers_file(tmp_path / "3.csv", ratings("anna", "1", reference=100, a=80, anchor=0))
    with pytest.raises(
        ValueError, match=r"3\.csv:3: 'anna' says another thing of 1 than in .*1\.csv\. Of two people"
    ):
        read_answers([first, other])
    choices = [answers_file(tmp_path / f"{n}.csv", [("anna", "abx", "1", "a", "", "b", n)]) for n in (0, 1)]
    with pytest.raises(ValueError, match="another thing"):
        read_answers(choices)


@pytest.mark.parametrize(
    "text, said",
    [
        ("listener,rating\n", "expected a first line listener,test"),
        (",".join(COLUMNS) + "\nanna,mushra,1,a,120,,\n", r"a\.csv:2: got rating '120', expected 0 to 100"),
        (",".join(COLUMNS) + "\nanna,abx,1,a,,b,yes\n", "abx with 0 or 1"),
        (",".join(COLUMNS) + "\nanna,abx\n", "got 2 values, expected 7"),
        (",".join(COLUMNS) + "\n", "no answers"),
    ],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, said):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_answers([tmp_path / "a.csv"])


def test_ground_truth_is_no_system(folders):
    with pytest.raises(ValueError, match="ground truth"):
        evaluate([], {GROUND_TRUTH: RecordedSounds(folders / "noisy")}, RATE)
