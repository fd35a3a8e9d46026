"""`gansound recipe`: what it writes is built and trained, what can't work is refused with the values."""

import json
import math
from pathlib import Path

import pytest

from gansound.cli import main
from gansound.engine.plan import plan
from gansound.fitted_recipe import (
    FAMILIES,
    RATES_HZ,
    _generator,
    _scaled_resolutions,
    fit,
    inverted_n_fft,
    upsample_rates,
)
from gansound.mel import MelSpec
from gansound.mel.presets import presets
from gansound.recipe import load_recipe
from tests.corpus import write_corpus
from tests.test_train_cli import SMALL

every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture
def command(capsys, monkeypatch):
    monkeypatch.setattr("gansound.cli.recipe._try", lambda text: None)  # which builds nets of full size

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = main(["recipe", *map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return run


def planned(fitted, folder: Path):
    """The recipe read from its file and built, its nets narrow."""
    path = folder / "recipe.yaml"
    path.write_text(fitted.text)
    narrow = {key: value for key, value in SMALL.get(fitted.base, {}).items() if not key.startswith("data.")}
    return plan(load_recipe(path, narrow | {"threads": "1"}))


@every_family
@pytest.mark.parametrize("rate", RATES_HZ)
def test_what_is_written_for_any_family_and_rate_is_built(family, rate, tmp_path):
    fitted = fit(family, rate)
    made = planned(fitted, tmp_path)
    task = made.task
    generator, _ = task.shipped(task.generator, {})
    assert task.mel.sample_rate == task.sample_rate == rate
    assert generator.hop_length == task.mel.hop_length
    published = load_recipe(FAMILIES[family])
    if fitted.changes.get("mel"):
        assert task.mel.fmax == rate / 2  # bands up to Nyquist
        assert 0.005 < task.mel.hop_length / rate < 0.017
    own_rate = MelSpec.preset(published["mel"]).sample_rate
    seconds = made.settings.data.segment_samples / rate
    assert seconds == pytest.approx(published["data"]["segment_samples"] / own_rate, rel=0.05)
    assert generator.receptive_field.rate == task.mel.hop_length
    for key in changed_keys(fitted.changes):
        assert any(key.startswith(named) for named in fitted.reasons), key


def changed_keys(node, above=""):
    for name, value in node.items():
        below = above if name == "init_args" else f"{above}.{name}" if above else name
        if isinstance(value, dict):
            yield from changed_keys(value, below)
        else:
            yield below


# One that upsamples, one that inverts the mel's own frames, one that inverts frames of its own.
@pytest.mark.parametrize("family", ["melgan", "freev", "vocos"])
@pytest.mark.parametrize("name", presets())
def test_any_convention_is_fitted_or_refused_with_its_values(family, name, tmp_path):
    rate = MelSpec.preset(name).sample_rate
    fitted = fit(family, rate, mel=name)
    if family == "freev" and not invertible(MelSpec.preset(name)):
        with pytest.raises(ValueError, match=r"framing|win_length"):
            planned(fitted, tmp_path)
        return
    assert planned(fitted, tmp_path).task.mel == MelSpec.preset(name)


def invertible(spec):
    return spec.framing == "same" and spec.win_length == spec.n_fft and spec.n_fft % spec.hop_length == 0


@pytest.mark.parametrize(
    "family, rate, hop",
    [
        ("freev", 16000, None),
        ("vocos", 44100, None),
        ("multi_band_melgan", 24000, 300),
        ("hifigan_v3", 32000, 320),
    ],
)
def test_what_is_written_trains_two_steps(family, rate, hop, tmp_path):
    fitted = fit(family, rate, hop_length=hop)
    path = tmp_path / "recipe.yaml"
    path.write_text(fitted.text)
    corpus = write_corpus(tmp_path / "corpus", files=4)
    made = planned(fitted, tmp_path).task.mel.hop_length
    assert made == hop or hop is None
    quick = SMALL.get(fitted.base, {}) | {
        "data.segment_samples": str(16 * made), "data.workers": "0", "batch_size": "2", "threads": "1",
        "validate_every": "null", "log_every": "1", "steps": "2",
    }  # fmt: skip
    if load_recipe(path).get("adversarial_from"):
        quick["adversarial_from"] = "1"
    run = ["train", path, "--data.path", corpus, "--run", tmp_path / "run"]
    settings = [part for key, value in quick.items() for part in (f"--{key}", value)]
    assert main([*map(str, run), *settings]) == 0
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged] == [1, 2]
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (config["mel"]["sample_rate"], config["mel"]["hop_length"]) == (rate, made)


# --- the rates


@pytest.mark.parametrize(
    "hop, rest, like, rates",
    [
        (256, 1, (8, 8, 2, 2), (8, 8, 2, 2)),
        (256, 1, (4, 4, 2, 2, 2, 2), (4, 4, 2, 2, 2, 2)),
        (512, 1, (4, 4, 2, 2, 2, 2), (8, 4, 2, 2, 2, 2)),  # BigVGAN's at 44.1 kHz
        (512, 1, (8, 8, 2, 2), (8, 8, 4, 2)),
        (256, 4, (8, 8), (8, 8)),
        (300, 4, (8, 4, 2), (5, 5, 3)),
        (300, 1, (8, 8, 2, 2), (10, 5, 3, 2)),
        (200, 1, (8, 8, 2, 2), (10, 5, 2, 2)),
        (64, 1, (8, 8, 2, 2), (4, 4, 2, 2)),
        (16, 1, (8, 8, 2, 2), (2, 2, 2, 2)),
        (15, 1, (8, 8, 2, 2), (5, 3)),
    ],
)
def test_rates_are_near_the_published_ones(hop, rest, like, rates):
    assert upsample_rates(hop, rest, like) == rates


def test_rates_make_the_hop_or_are_refused_with_one_that_goes():
    for hop in range(16, 400):
        for rest, like in ((1, (8, 8, 2, 2)), (4, (8, 4, 2))):
            try:
                rates = upsample_rates(hop, rest, like)
            except ValueError as refusal:
                other = int(str(refusal).rpartition("--hop ")[2])
                assert other != hop
                assert math.prod(upsample_rates(other, rest, like)) * rest == other
                assert hop % rest or any(p > 16 for p in prime_factors(hop // rest))
            else:
                assert math.prod(rates) * rest == hop
                assert list(rates) == sorted(rates, reverse=True)
                assert all(2 <= rate <= 16 for rate in rates)


def prime_factors(number):
    return [p for p in range(2, number + 1) if number % p == 0 and all(p % q for q in range(2, p))]


def test_an_inverse_stft_has_whole_hops():
    assert inverted_n_fft(MelSpec.preset("vocos_24khz")) == 1024
    assert (
        inverted_n_fft(MelSpec.preset("parallel_wavegan_24khz")) == 1200
    )  # its window; 2048 is no multiple of 300


# --- what can't work


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["melgan", "--rate", 8000, "--mel", "melgan_neurips"],
            "fmax is 11025 Hz, but sound at 8000 Hz ends at 4000 Hz",
        ),
        (["melgan", "--rate", 16000, "--mel", "bigvgan_24khz"], "add --fmax 8000"),
        (["melgan", "--rate", 22050, "--fmax", 12000], "fmax is 12000 Hz"),
        (["melgan", "--rate", 22050, "--hop", 257], "257 has the prime factor 257; take --hop 256"),
        (["melgan", "--rate", 22050, "--hop", 5], "got 5, expected 16 to 2205 samples"),
        (["melgan", "--rate", 22050, "--hop", 4096], "got 4096, expected"),
        (["melgan", "--rate", 22050, "--mel", "hifigann"], "'hifigann' isn't known"),
        (["melgam", "--rate", 22050], "did you mean 'melgan'?"),
        (["melgan", "--rate", 4000], "got 4000 Hz, expected 8000 to 96000"),
        (["melgan", "--rate", "44.1"], "44.1 kHz is 44100"),
        (["melgan", "--rate", "fast"], "expected a whole number of Hz"),
        (["melgan"], "--rate"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(command, arguments, message, tmp_path):
    target = tmp_path / "recipe.yaml"
    code, out, err = command(*arguments, "-o", target)
    assert code == 2
    assert message in err
    assert not out
    assert not target.exists()


def test_two_parts_that_cannot_agree_are_refused_by_their_key(capsys, tmp_path):
    """Nothing of the fitting knows what FreeV inverts; its constructor does."""
    target = tmp_path / "recipe.yaml"
    assert main(["recipe", "freev", "--rate", "22050", "--mel", "tacotron2", "-o", str(target)]) == 2
    assert "generator: FreeVGenerator inverts the mel's own STFT" in capsys.readouterr().err
    assert not target.exists()


# --- what it says


def test_the_choice_is_told_in_the_file_and_on_the_terminal(command, tmp_path):
    target = tmp_path / "new" / "voice.yaml"
    code, out, err = command("melgan", "--rate", 24000, "--hop", 300, "--mel", "hifigan", "-o", target)
    assert code == 0
    assert out == f"{target}\n"
    text = target.read_text()
    assert text.startswith("# Written by: gansound recipe melgan --rate 24000 --mel hifigan --hop 300\n")
    for line in (
        "generator.upsample_rates: 10 * 5 * 3 * 2 = the hop of 300 samples; the factors nearest to the published "
        "[8, 8, 2, 2]",
        "data.segment_samples: 0.38 s as published, in 30 hops of 300",
    ):
        assert line in err
        assert f"# {line}\n" in text
    again = target.read_text()
    assert command("melgan", "--rate", 24000, "--hop", 300, "--mel", "hifigan")[1] == again
    link = tmp_path / "link.yaml"  # and a device, such as /dev/null, are written through
    link.symlink_to(target)
    target.write_text("an older one")
    assert command("melgan", "--rate", 24000, "--hop", 300, "--mel", "hifigan", "-o", link)[0] == 0
    assert link.is_symlink()
    assert target.read_text() == again
    assert load_recipe(target)["mel"] == {
        "preset": "hifigan", "sample_rate": 24000, "hop_length": 300, "n_fft": 1200, "win_length": 1200,
    }  # fmt: skip


def test_the_published_configuration_is_left_as_it_is(command):
    code, out, _ = command("melgan", "--rate", 22050)
    assert code == 0
    assert "as published for 22050 Hz" in out
    assert out.splitlines()[-1] == "base: melgan_ljspeech"


def test_resolutions_are_as_long_in_time_at_high_rates():
    twice = {"resolutions": [[2048, 512, 2048], [4096, 1024, 4096], [1024, 256, 1024]]}
    wide = fit("vocos", 48000)
    assert wide.changes["discriminators"]["mrd"]["network"]["init_args"] == twice
    assert "discriminators.mrd.network.resolutions" in wide.reasons
    assert "discriminators" not in fit("vocos", 32000).changes
    own = {"losses": {"stft": {"loss": {"class_path": "gansound.losses.spectral.MultiResolutionSTFT"}}}}
    found = _scaled_resolutions(own["losses"], 44100, "losses", reasons := {})
    assert found["stft"]["loss"]["init_args"]["resolutions"][0] == [2048, 240, 1200]  # of its default
    assert list(reasons) == ["losses.stft.loss.resolutions"]


def test_kernels_are_twice_the_rates():
    generator = fit("hifigan", 44100).changes["generator"]["init_args"]
    assert generator["upsample_rates"] == [8, 8, 4, 2]
    assert generator["upsample_kernel_sizes"] == [16, 16, 8, 4]
    assert fit("hifigan_v3", 44100).changes["generator"]["init_args"]["upsample_kernel_sizes"] == [16, 16, 16]
    assert "upsample_kernel_sizes" not in fit("hifigan_v3", 24000).changes["generator"]["init_args"]


def test_a_full_band_convention_stays_one_at_a_higher_rate():
    mel = fit("melgan", 32000, mel="melgan_neurips").changes["mel"]
    assert mel == {"preset": "melgan_neurips", "sample_rate": 32000, "fmax": 16000.0}
    assert fit("melgan", 32000, mel="hifigan").changes["mel"] == {"preset": "hifigan", "sample_rate": 32000}


@pytest.mark.parametrize(
    "rate, bins, tones",
    [(16000, 66, 132), (22050, 48, 96), (24000, 44, 88), (44100, 48, 96), (8000, 66, 128)],
)
def test_phases_go_on_and_tones_reach_below_the_same_frequency_at_any_rate(rate, bins, tones):
    """48 bins of 22,050 / 1,024 Hz; windows of 2,048 samples from above 24 kHz on, of 512 up to 12 kHz."""
    made = fit("universal", rate).recipe.get("generator", {}).get("init_args", {})
    assert made.get("single_pass_bins", 48) == bins
    assert made.get("tones", 96) == tones  # of at most half of the bins


class Hopping:
    """As the smallest vocoder of CONTRIBUTING takes its sizes."""

    def __init__(self, n_mels: int = 80, hop_length: int = 256) -> None:
        pass


def test_a_generator_that_takes_the_hop_gets_the_mels(monkeypatch):
    monkeypatch.setattr("gansound.fitted_recipe.ALLOWED", ("tests",))
    node = {"class_path": "tests.test_fitted_recipe.Hopping"}
    reasons = {}
    changed = _generator(
        {"generator": node}, MelSpec.preset("hifigan"), MelSpec.preset("bigvgan_44khz"), reasons
    )
    assert changed == {"n_mels": 128, "hop_length": 512}
    assert reasons["generator.hop_length"] == "the mel's"
