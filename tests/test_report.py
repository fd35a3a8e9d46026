"""Pictures, tables and the page, read back as a browser or a program would."""

import base64
import io
import itertools
import json
from html.parser import HTMLParser

import librosa
import matplotlib.image
import numpy as np
import pytest
import soundfile
from rich.console import Console

from gansound.metrics.evaluation import GROUND_TRUTH, Evaluation, Failure, Item, Utterance
from gansound.metrics.summary import Interval
from gansound.report import pictures
from gansound.report.figures import style
from gansound.report.page import EvaluationPage
from gansound.report.record import evaluation_record
from gansound.report.tables import difference_table, left_out, summary_table, utterance_table

RATE = 22050
NASTY = "a<script>alert('&')</script>\"[bold]"
VOID = {"meta", "img", "br", "input", "link"}


def tone(hz: float, seconds: float = 0.6, level: float = 0.5) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def evaluation(count: int = 4) -> Evaluation:
    """A model that is better in PESQ beyond doubt, worse in mel distance, and undefined once."""
    generator = np.random.default_rng(0)
    out = Evaluation(RATE, (GROUND_TRUTH, "model", "Griffin-Lim"), ("pesq", "stoi", "mel"), 0)
    for index in range(count):
        shared = generator.normal()
        systems: dict[str, dict[str, float | None]] = {
            GROUND_TRUTH: {"seconds": 0.6},
            "model": {
                "seconds": 0.6,
                "pesq_wb": 3.0 + 0.1 * shared,
                "stoi": None,
                "mel_distance": 0.4 + 0.01 * index,
            },
            "Griffin-Lim": {"seconds": 0.6, "pesq_wb": 2.0 + 0.1 * shared, "stoi": None, "mel_distance": 0.3},
        }
        if index == 0:
            systems["model"]["pesq_wb"] = None
        undefined = {"model": {"pesq_wb": "no utterance <found>"}} if index == 0 else {}
        out.utterances.append(Utterance(f"{index} {NASTY}", 0.6, f"said {NASTY}", systems, undefined))
    out.failures.append(Failure("broken.wav", f"not audio {NASTY}"))
    return out


def waveforms() -> dict[str, np.ndarray]:
    return {GROUND_TRUTH: tone(440), "model": tone(450), "Griffin-Lim": tone(460, level=0.01)}


def made_page(folder, result: Evaluation, **options) -> str:
    with EvaluationPage(folder, RATE, title=f"page {NASTY}", about={"model": NASTY}, **options) as page:
        for utterance in result.utterances:
            page.add(Item(utterance.id, lambda: (tone(1), RATE)), waveforms())
        return page.write(result).read_text(encoding="utf-8")


class Reader(HTMLParser):
    """Checks that tags nest, and keeps the text and the attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_page_carries_the_sound_it_was_given(tmp_path):
    html = made_page(tmp_path / "page", evaluation(2))
    reader = Reader(html)
    assert not reader.open
    players, images = reader.all("audio"), reader.all("img")
    assert len(players) == len(images) == 2 * 3
    kind, _, data = players[1]["src"].partition(",")
    assert kind == "data:audio/flac;base64"
    audio, rate = soundfile.read(io.BytesIO(base64.b64decode(data)), dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(audio, tone(450), atol=1 / 32767)
    picture = matplotlib.image.imread(
        io.BytesIO(base64.b64decode(images[0]["src"].partition(",")[2])), format="png"
    )
    assert picture.shape[1] > 400
    assert [path.name for path in (tmp_path / "page").iterdir()] == ["index.html"]


def test_page_escapes_everything_and_needs_no_network(tmp_path):
    html = made_page(tmp_path, evaluation(2), limit=1)
    reader = Reader(html)
    assert "script" not in {tag for tag, _ in reader.tags}
    assert all(
        key in ("src", "alt", "aria-label", "controls", "preload", "loading")
        for key in reader.all("audio")[0]
    )
    assert f"0 {NASTY}" in reader.text
    assert f"said {NASTY}" in reader.text
    assert f"not audio {NASTY}" in reader.text
    assert f"page {NASTY}" in reader.text
    for _, attributes in reader.tags:
        for name in ("src", "href"):
            assert not (attributes.get(name) or "").startswith(("http", "//"))
    assert "@import" not in html
    assert "url(" not in html
    assert any(meta.get("name") == "viewport" for meta in reader.all("meta"))
    assert "prefers-color-scheme: dark" in html


def test_page_keeps_large_sound_beside_itself(tmp_path):
    html = made_page(tmp_path, evaluation(1), embed=False)
    assert "<p class=dim>1 utterance, " in html
    sources = [attrs["src"] for tag, attrs in Reader(html).tags if "src" in attrs]
    assert len(sources) == 6
    assert all((tmp_path / source).is_file() for source in sources)
    audio, _ = soundfile.read(tmp_path / Reader(html).all("audio")[0]["src"], dtype="float32")
    np.testing.assert_allclose(audio, tone(440), atol=1 / 32767)


def test_page_says_what_is_better_and_what_is_undefined(tmp_path):
    reader = Reader(made_page(tmp_path, evaluation(8), limit=1))
    assert len(reader.all("audio")) == 3
    cells = [attrs.get("class") for attrs in reader.all("td")]
    assert "better" in cells  # PESQ
    assert "worse" in cells  # mel distance
    assert [attrs["title"] for attrs in reader.all("td") if "title" in attrs] == ["no utterance <found>"]
    page = (tmp_path / "index.html").read_text()
    assert "<h2>Not in the means</h2><ul><li>model, 1 of 8 utterances: no utterance &lt;found&gt; (0 " in page
    assert "<h2>Alarms</h2>" not in page


def test_page_is_not_begun_where_it_cannot_end(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is a file"):
        EvaluationPage(tmp_path / "file", RATE, title="x")
    with EvaluationPage(tmp_path / "later", RATE, title="x") as page:
        page.add(Item("a", lambda: (tone(1), RATE)), waveforms())
    assert not (tmp_path / "later").exists()


def test_record_is_json_with_named_figures():
    result = evaluation()
    record = json.loads(json.dumps(evaluation_record(result, model="m"), allow_nan=False))
    scores = [u.systems["model"]["pesq_wb"] for u in result.utterances[1:]]
    assert record["pesq_wb_mean"] == pytest.approx(np.mean(scores))
    assert record["pesq_wb_low"] <= record["pesq_wb_mean"] <= record["pesq_wb_high"]
    assert record["pesq_wb_count"] == 3
    assert (record["stoi_mean"], record["stoi_count"]) == (None, 0)
    assert record["mel_distance_mean"] == pytest.approx(0.415)
    assert record["systems"]["Griffin-Lim"]["mel_distance_mean"] == pytest.approx(0.3)
    assert record["differences"]["model - Griffin-Lim"]["pesq_wb_mean"] == pytest.approx(1.0)
    assert record["utterances"][0]["undefined"] == {"model": {"pesq_wb": "no utterance <found>"}}
    assert record["failures"][0]["id"] == "broken.wav"
    assert record["audio_seconds"] == pytest.approx(2.4)


def test_verdict_follows_the_figure_that_is_better_low():
    clear, unclear = Interval(0.2, 0.1, 0.3, 9), Interval(0.2, -0.1, 0.5, 9)
    assert style("pesq_wb").verdict(clear) == "better"
    assert style("mel_distance").verdict(clear) == "worse"
    assert style("mel_distance").verdict(Interval(-0.2, -0.3, -0.1, 9)) == "better"
    assert style("pesq_wb").verdict(unclear) == "open"
    assert style("voicing_error").text(0.0312) == "3.12"


def test_tables_show_names_that_look_like_markup():
    console = Console(width=200, record=True, file=io.StringIO())
    result = evaluation()
    for table in (
        summary_table(result),
        difference_table(result, "model", "Griffin-Lim"),
        utterance_table(result, "model"),
    ):
        console.print(table)
    text = console.export_text()
    assert "[bold]" in text
    assert "PESQ (wide band) ↑" in text
    assert "+1.00" in text


def test_each_figure_says_how_many_utterances_it_is_of():
    console = Console(width=200, record=True, file=io.StringIO())
    result = evaluation(9)
    for utterance in result.utterances[1:4]:
        utterance.systems["model"]["pesq_wb"] = None
        utterance.undefined["model"] = {"pesq_wb": "PESQ: the recording is silent"}
    console.print(summary_table(result, title="9 utterances of [red]a[/red].wav"))
    shown = console.export_text(clear=False)
    assert "9 utterances of [red]a[/red].wav" in shown
    rows = {
        line.split("↑")[0].split("↓")[0].strip("│┃ "): line for line in console.export_text().splitlines()
    }
    assert rows["PESQ (wide band)"].split("│")[-2].strip() == "5 / 9"
    assert rows["mel distance (nepers)"].split("│")[-2].strip() == "9"
    said = left_out(result)
    assert len(said) == 2
    assert said[0] == f"model, 1 of 9 utterances: no utterance <found> (0 {NASTY})"
    assert said[1].startswith("model, 3 of 9 utterances: PESQ: the recording is silent (1 a<script>")


def test_the_page_says_how_many_utterances_each_figure_is_of(tmp_path):
    html = made_page(tmp_path, evaluation(8), limit=1)
    summary = html[html.index("In all") : html.index("</section>", html.index("In all"))]
    counts = [row.rpartition("<td>")[2].partition("<")[0] for row in summary.split("</tr>")[1:-1]]
    assert counts == ["8", "7 / 8"]  # mel distance, and PESQ, which the model has once not


def test_spectrogram_has_the_tone_where_it_is():
    decibels = pictures.spectrogram_db(tone(3000, level=1.0), RATE)
    peak = decibels[:, decibels.shape[1] // 2].argmax() * RATE / 2 / (decibels.shape[0] - 1)
    assert peak == pytest.approx(3000, abs=RATE / 1024)
    assert decibels.max() == pytest.approx(0.0, abs=1.5)


def test_spectrogram_axes_are_seconds_and_hertz():
    figure = pictures.spectrogram(tone(3000), RATE, title="cost $5 and $6")
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("seconds", "hertz")
    assert axes.get_xlim() == pytest.approx((0, 0.6), abs=1e-3)
    assert axes.get_ylim() == pytest.approx((0, RATE / 2))
    assert pictures.png_bytes(figure) == pictures.png_bytes(
        pictures.spectrogram(tone(3000), RATE, title="cost $5 and $6")
    )


def test_comparison_shares_one_colour_scale():
    figure = pictures.comparison(waveforms(), RATE, zoom_seconds=(0.2, 0.4))
    scales = {axes.images[0].get_clim() for axes in figure.axes[:3]}
    assert len(scales) == 1
    low, high = scales.pop()
    assert high - low == pytest.approx(pictures.RANGE_DB)
    assert figure.axes[1].get_xlim() == pytest.approx((0.2, 0.4), abs=1e-3)
    with pytest.raises(ValueError, match="zoom_seconds"):
        pictures.comparison(waveforms(), RATE, zoom_seconds=(0.2, 4.0))


def test_waveform_shows_a_single_click_of_a_long_file():
    audio = np.zeros(20 * RATE, np.float32)
    audio[123_457] = 0.8
    figure = pictures.waveform(audio, RATE)
    drawn = np.concatenate([p.vertices for c in figure.axes[0].collections for p in c.get_paths()])
    assert drawn[:, 1].max() == pytest.approx(0.8)
    assert drawn[drawn[:, 1].argmax(), 0] == pytest.approx(123_457 / RATE, abs=0.02)


def test_files_are_whole_or_not_there(tmp_path):
    target = tmp_path / "picture.png"
    pictures.write_bytes(target, b"old")
    pictures.write_bytes(target, b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(OSError, match="No space left"):
        pictures.write_bytes("/dev/full", b"x" * 10)
    with pytest.raises(FileNotFoundError):
        pictures.write_bytes(tmp_path / "nowhere" / "x", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize("count", [1, 6])
def test_long_names_stay_over_their_own_spectrogram(count):
    from gansound.report.clips import spectrogram_grid

    sound = np.random.default_rng(0).uniform(-1, 1, 4000)
    names = [f"interpolated_from_seed0_0003_to_some_other_place_{i:02d}_t0.7" for i in range(count)]
    figure = spectrogram_grid(
        [("cymbal + hat + kick + perc + snare + tom", [(name, sound) for name in names])], 8000
    )
    figure.draw_without_rendering()
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert boxes[0].x0 >= 0
    assert boxes[-1].x1 <= figure.bbox.x1
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert figure.axes[-1].get_title().endswith(f"{count - 1:02d}_t0.7")
    label = figure.axes[0].yaxis.label.get_window_extent()
    assert label.y0 >= 0
    assert label.y1 <= figure.bbox.y1


def test_sounds_of_several_lengths_are_all_seen_whole():
    from gansound.report.clips import spectrogram_grid

    noise = np.random.default_rng(0).uniform(-1, 1, 8000)
    figure = spectrogram_grid([("", [("long", noise), ("short", noise[:4000])])], 8000)
    assert figure.axes[0].get_xlim() == (0, 1)


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("hertz", [55, 440, 3000])
def test_a_low_tone_is_seen_above_the_bottom_in_pictures_of_sounds(rate, hertz, tmp_path):
    """At its place in mel, O'Shaughnessy's; on an axis of hertz 55 of 22,050 would be in the lowest row of 96."""
    from matplotlib.image import imread

    from gansound.report.clips import spectrogram_grid, thumbnail

    tone = 0.5 * np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)
    mel = librosa.hz_to_mel(np.array([hertz, rate / 2]), htk=True)
    (tmp_path / "small.png").write_bytes(thumbnail(tone, rate))
    brightness = imread(tmp_path / "small.png")[..., :3].sum((1, 2))[::-1]
    assert np.argmax(brightness) == pytest.approx(96 * mel[0] / mel[1] - 0.5, abs=2)
    (axes,) = spectrogram_grid([("", [("tone", tone)])], rate).axes
    (image,) = axes.images
    bottom, top = image.get_extent()[2:]
    row = np.argmax(image.get_array().max(1))
    assert bottom + (row + 0.5) / len(image.get_array()) * (top - bottom) == pytest.approx(
        mel[0], abs=2 * mel[1] / 96
    )
    ticks = {
        float(label.get_text()): at
        for at, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)
    }
    for tick, at in ticks.items():
        assert at == pytest.approx(librosa.hz_to_mel(tick, htk=True))
    assert max(ticks) == (2000 if rate == 8000 else 20000)
