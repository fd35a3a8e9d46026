"""The evaluation core on callables that are easy to know, and the command around it."""

import json
import logging
import sys
from types import ModuleType

import numpy as np
import pytest
import soundfile

from gansound.extras import MissingPackage
from gansound.mel import MelSpec
from gansound.metrics import evaluation as core
from gansound.metrics.evaluation import GROUND_TRUTH, Item, evaluate

RATE = 22050
LIGHT = ("mel", "stft")


def speech(seed: int, seconds: float = 0.8) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (0.1 * generator.standard_normal(round(seconds * RATE))).astype(np.float32)


def item(name: str, audio: np.ndarray, rate: int = RATE, text: str | None = None) -> Item:
    return Item(name, lambda: (audio, rate), text)


def halved(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    return 0.5 * audio


def same(audio: np.ndarray, sample_rate: int) -> np.ndarray:
    return audio.copy()


def test_figures_of_known_systems():
    result = evaluate(
        [item("a", speech(0)), item("b", speech(1))], {"same": same, "halved": halved}, RATE, measures=LIGHT
    )
    assert result.systems == (GROUND_TRUTH, "same", "halved")
    assert result.summary("same")["mel_distance"].mean == 0.0
    assert result.summary("halved")["mel_distance"].mean == pytest.approx(np.log(2), abs=1e-3)
    assert result.summary("halved")["stft_convergence"].mean == pytest.approx(0.5, abs=1e-4)
    difference = result.difference("same", "halved")["mel_distance"]
    assert difference.mean == pytest.approx(-np.log(2), abs=1e-3)
    assert difference.clear_of_zero
    assert set(result.summary("same")) == {
        "mel_distance",
        "stft_convergence",
        "stft_log_magnitude",
        "real_time_factor",
    }
    assert result.summary(GROUND_TRUTH) == {}


def test_an_order_of_systems_or_items_changes_no_figure():
    items = [item("a", speech(0)), item("b", speech(1))]
    first = evaluate(items, {"same": same, "halved": halved}, RATE, measures=LIGHT)
    second = evaluate(items[::-1], {"halved": halved, "same": same}, RATE, measures=LIGHT)
    for one, other in zip(first.utterances, second.utterances[::-1], strict=True):
        for figure in ("mel_distance", "stft_convergence"):
            assert one.systems["halved"][figure] == other.systems["halved"][figure]


def test_recordings_come_at_the_models_rate():
    seen = []

    def vocode(audio: np.ndarray, sample_rate: int) -> np.ndarray:
        seen.append((audio.size, sample_rate))
        return audio

    low = np.sin(2 * np.pi * 300 * np.arange(16000) / 16000).astype(np.float32) * 0.3
    result = evaluate([item("a", low, 16000)], {"v": vocode}, RATE, measures=("mel",))
    assert seen[-1] == (RATE, RATE)
    assert result.utterances[0].seconds == pytest.approx(1.0)


def test_a_system_at_its_own_rate_hears_what_the_measured_rate_lacks():
    """A tone above half of the measured rate reaches it; its own answer comes back at the measured one."""
    heard = []

    def vocode(audio: np.ndarray, sample_rate: int) -> np.ndarray:
        heard.append((audio, sample_rate))
        return audio

    tone = 0.1 * np.sin(2 * np.pi * 15000 / 44100 * np.arange(44100)).astype(np.float32)
    low = 0.1 * np.sin(2 * np.pi * 500 / 44100 * np.arange(44100)).astype(np.float32)
    systems = {"own": core.AtOwnRate(vocode, 44100)}
    kept = {}
    evaluate(
        [item("a", tone + low, 44100)],
        systems,
        RATE,
        measures=LIGHT,
        on_audio=lambda _, audio: kept.update(audio),
    )
    np.testing.assert_array_equal(heard[-1][0], tone + low)
    assert heard[-1][1] == 44100
    assert kept["own"].size == RATE
    np.testing.assert_allclose(kept["own"], kept[GROUND_TRUTH], atol=1e-6)
    assert np.abs(np.fft.rfft(kept["own"] * np.hanning(RATE)))[550:].max() < 1
    again = systems["own"](low[::2], RATE)
    assert heard[-1][1] == 44100
    np.testing.assert_allclose(again[200:-200], low[::2][200:-200], atol=1e-3)


def test_a_bad_item_is_listed_and_the_others_go_on(tmp_path, caplog):
    def fragile(audio: np.ndarray, sample_rate: int) -> np.ndarray:
        return audio[:-2000] if audio.size == round(0.5 * RATE) else audio

    done = []
    items = [
        item("good", speech(0)),
        Item.from_file(tmp_path / "absent.wav", id="absent"),
        item("empty", np.zeros(0, np.float32)),
        item("nan", np.full(RATE, np.nan, np.float32)),
        item("short", speech(1, 0.5)),
        item("good too", speech(2)),
    ]
    with caplog.at_level(logging.WARNING):
        result = evaluate(
            items, {"v": fragile}, RATE, hop_length=256, measures=LIGHT, on_progress=done.append
        )
    assert [u.id for u in result.utterances] == ["good", "good too"]
    reasons = {failure.id: failure.reason for failure in result.failures}
    assert set(reasons) == {"absent", "empty", "nan", "short"}
    assert (
        "v: got reference of 11025 samples and estimate of 9025, 2000 apart, expected 256" in reasons["short"]
    )
    assert sorted(done) == sorted(i.id for i in items)
    assert all(name in caplog.text for name in reasons)


def test_what_is_undefined_stays_out_of_the_mean():
    silent = np.zeros(RATE, np.float32)
    result = evaluate(
        [item("silent", silent), item("a", speech(0))], {"v": halved}, RATE, measures=("mel", "stft")
    )
    values = result.values("v", "stft_convergence")
    assert values[0] is None
    assert "silent" in result.utterances[0].undefined["v"]["stft_convergence"]
    assert result.summary("v")["stft_convergence"].count == 1
    assert result.summary("v")["mel_distance"].count == 2
    assert not result.failures


def test_two_processes_find_what_one_finds():
    items = [Item(f"{n}", _Load(n)) for n in range(3)]
    one = evaluate(items, {"halved": halved}, RATE, measures=LIGHT)
    two = evaluate(items, {"halved": halved}, RATE, measures=LIGHT, jobs=2)
    for first, second in zip(one.utterances, two.utterances, strict=True):
        assert first.id == second.id
        for figure in ("mel_distance", "stft_convergence", "stft_log_magnitude"):
            assert first.systems["halved"][figure] == second.systems["halved"][figure]


class _Load:
    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self) -> tuple[np.ndarray, int]:
        return speech(self.seed), RATE


def test_error_rates_count_words_not_utterances(monkeypatch):
    from gansound.metrics import judge
    from gansound.metrics.words import WordErrors

    monkeypatch.setattr(judge, "missing_packages", lambda measure: ())
    heard = {"one": WordErrors(1, 1), "ten": WordErrors(0, 9)}
    monkeypatch.setattr(judge, "word_errors", lambda audio, rate, text: heard[text])
    items = [item("a", speech(0), text="one"), item("b", speech(1), text="ten"), item("c", speech(2))]
    result = evaluate(items, {"v": same}, RATE, measures=("words",))
    for system in (GROUND_TRUTH, "v"):
        rate = result.summary(system)["word_error_rate"]
        assert (rate.mean, rate.count) == (pytest.approx(0.1), 2)
    assert result.difference("v", GROUND_TRUTH)["word_error_rate"].mean == 0.0
    assert "spoken_words" not in result.figures("v")


def test_extra_measures_and_waveforms_reach_the_caller():
    heard = []
    result = evaluate(
        [item("a", speech(0))],
        {"halved": halved},
        RATE,
        measures=("mel",),
        extra={"peak_ratio": lambda real, fake, rate: float(fake.max() / real.max())},
        on_audio=lambda i, waves: heard.append((i.id, {name: wave.size for name, wave in waves.items()})),
    )
    assert result.summary("halved")["peak_ratio"].mean == pytest.approx(0.5)
    assert heard == [("a", {GROUND_TRUTH: 17640, "halved": 17640})]


@pytest.mark.parametrize(
    "options, said",
    [
        ({"measures": ("psq",)}, "psq, expected some of pesq"),
        ({"measures": ()}, "no measure"),
        ({"systems": {}}, "at least one"),
        ({"systems": {GROUND_TRUTH: same}}, "ground truth"),
        ({"jobs": 0}, "jobs 0"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_first(options, said):
    with pytest.raises(ValueError, match=said):
        evaluate([], **{"systems": {"v": same}, "sample_rate": RATE, **options})


class _StubVocoder:
    """Stands for the lead's Vocoder: the recording itself, a little noisy."""

    mel_spec = MelSpec.preset("hifigan")

    @classmethod
    def from_pretrained(cls, name, device=None, mel=None, backend="auto", precision="fp32", allow=()):
        assert mel is None
        if name == "missing":
            raise ValueError("missing: no such model. Known: default")
        return cls()

    def vocode_audio(self, audio, sample_rate):
        assert sample_rate == self.mel_spec.sample_rate
        return audio + 0.001 * np.random.default_rng(0).standard_normal(audio.size).astype(np.float32)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    module = ModuleType("gansound.inference.vocoder")
    module.Vocoder, module.choose_device = _StubVocoder, str
    monkeypatch.setitem(sys.modules, "gansound.inference.vocoder", module)
    folder = tmp_path / "corpus"
    folder.mkdir()
    for index in range(5):
        soundfile.write(folder / f"clip{index}.wav", speech(index), RATE)
    return folder


def command(*arguments) -> int:
    from gansound.cli import main

    return main(["evaluate", "--measures", "mel,stft", *map(str, arguments)])


def test_command_writes_figures_and_page(corpus, tmp_path, capsys):
    figures, page = tmp_path / "figures.json", tmp_path / "page"
    code = command(
        "--model", "default", "--data", corpus, "--split", "all", "--limit", 2,
        "--baseline", "griffin-lim", "--json", figures, "--html", page,
    )  # fmt: skip
    output = capsys.readouterr()
    assert code == 0, output.err
    record = json.loads(figures.read_text())
    assert [u["id"] for u in record["utterances"]] == ["clip0.wav", "clip2.wav"]
    assert record["mel_distance_mean"] < record["systems"]["Griffin-Lim"]["mel_distance_mean"]
    assert record["mel_distance_model_mean"] < 0.1
    assert record["real_time_factor_mean"] > 0
    assert record["differences"]["model - Griffin-Lim"]["mel_distance_high"] < 0
    assert (page / "index.html").read_text().count("<audio") == 2 * 3
    assert "mel distance" in output.out
    assert "clip0" not in output.err


def test_the_seed_of_intervals_moves_no_file_into_the_split(corpus, tmp_path, capsys, monkeypatch):
    """It is the one that training makes: by seed 0 and by what the model's own training held out."""
    from gansound.data.source import open_corpus

    for index in range(5, 40):
        soundfile.write(corpus / f"clip{index}.wav", speech(index, 0.1), RATE)

    def measured(*arguments):
        figures = tmp_path / "figures.json"
        assert command("--model", "default", "--data", corpus, "--json", figures, *arguments) == 0
        return {one["id"] for one in json.loads(figures.read_text())["utterances"]}

    def tested(**shares):
        return {r.path.name for r in open_corpus(corpus, **shares) if r.split == "test"}

    assert measured() == measured("--seed", 5) == tested()
    assert measured() != {r.path.name for r in open_corpus(corpus, seed=5) if r.split == "test"}
    monkeypatch.setattr(
        "gansound.model_folder.model_info", lambda name: {"held_out": {"valid": 0.1, "test": 0.4}}
    )
    assert measured() == tested(valid=0.1, test=0.4) != tested()
    for other in ("Kathleen's", {"seed": 5, "valid": "much"}):  # a stranger's model may say anything
        monkeypatch.setattr("gansound.model_folder.model_info", lambda name, other=other: {"held_out": other})
        assert measured() == tested()


@pytest.mark.parametrize("layout", ["one folder", "folders", "labels"])
def test_a_speaker_is_the_label_or_a_folder_of_several(tmp_path, layout):
    from gansound.cli.evaluate import items_of
    from gansound.data.manifest import Record

    names = {"one folder": ("wavs/a.wav", "wavs/b.wav"), "folders": ("ann/a.wav", "bob/b.wav")}
    paths = names.get(layout, ("audio/ann/a.flac", "audio/bob/b.flac"))
    labels = ("ann", "bob") if layout == "labels" else (None, None)
    records = [Record(tmp_path / p, RATE, 9, label=one) for p, one in zip(paths, labels, strict=True)]
    expected = [None, None] if layout == "one folder" else ["ann", "bob"]
    assert [item.speaker for item in items_of(records, tmp_path)] == expected


def test_command_says_what_is_in_no_mean(corpus, capsys):
    soundfile.write(corpus / "room.wav", 1e-4 * speech(9), RATE)
    assert command("--model", "default", "--data", corpus, "--split", "all") == 0
    shown = capsys.readouterr().out
    assert "model, 1 of 6 utterances: STFT distance: the reference is silent (room.wav)" in shown


def test_command_ends_with_one_after_a_bad_file(corpus, tmp_path, capsys):
    rows = [{"path": f"clip{n}.wav", "sample_rate": RATE, "frames": 17640, "split": "test"} for n in (0, 1)]
    rows.insert(1, {"path": "gone.wav", "sample_rate": RATE, "frames": 17640, "split": "test"})
    manifest = corpus / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = tmp_path / "figures.json"
    assert command("--model", "default", "--data", corpus, "--json", figures) == 1
    record = json.loads(figures.read_text())
    assert (record["utterance_count"], record["failure_count"]) == (2, 1)
    assert record["failures"][0]["id"] == "gone.wav"
    output = capsys.readouterr()
    assert "1 failed" in output.out
    assert "gone.wav" in output.out
    assert "Traceback" not in output.out + output.err


@pytest.mark.parametrize(
    "arguments, code, said",
    [
        (["--limit", 0], 2, "--limit: got 0"),
        (["--jobs", -1], 2, "--jobs: got -1"),
        (["--measures", "mel,psq"], 2, "psq"),
        (["--split", "dev"], 2, "dev"),
        (["--json", "/nowhere/at/all.json"], 2, "--json"),
        (["--data", "/nowhere"], 2, "--data /nowhere"),
        (["--model", "missing"], 1, "no such model"),
    ],
)
def test_command_refuses_with_one_message(corpus, capsys, arguments, code, said):
    defaults = {"--model": "default", "--data": corpus}
    given = [part for name, value in defaults.items() if name not in arguments for part in (name, value)]
    assert command(*given, *arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_command_says_which_split_is_empty(corpus, capsys):
    rows = [{"path": "clip0.wav", "sample_rate": RATE, "frames": 17640, "split": "train"}]
    (corpus / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert command("--model", "default", "--data", corpus) == 1
    assert "--split all" in capsys.readouterr().err


def test_command_names_the_extra_that_is_missing(corpus, capsys, monkeypatch):
    from gansound.metrics import judge

    monkeypatch.setattr(judge, "missing_packages", lambda name: ("speechmos",) if name == "dnsmos" else ())
    assert command("--model", "default", "--data", corpus, "--measures", "dnsmos") == 2
    assert "pip install 'gansound[eval]'" in capsys.readouterr().err
    with pytest.raises(MissingPackage):
        core.evaluate([], {"v": same}, RATE, measures=("dnsmos",))
