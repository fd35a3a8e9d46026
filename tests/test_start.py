"""Starting from a trained model, and learning with parts of it frozen."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gansound.cli import main
from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.engine.start import start_from
from gansound.generators.melgan import MelGANGenerator
from gansound.mel import MelSpec
from gansound.model_folder import load_discriminators, load_model_folder
from gansound.nn.fold import fold_parametrizations, load_folded
from gansound.recipe import RecipeError, load_recipe
from tests.clips import small_wave, write_sounds
from tests.corpus import write_corpus
from tests.test_engine import losses, tiny
from tests.tiny import arguments

ADVERSARIAL = {"adversarial_from": 0, "ema_decay": None}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


def melgan(corpus: Path, steps: int, **more: object) -> dict[str, Any]:
    """A generator and discriminators all of whose convolutions have weight norm."""
    small = {
        "generator.init_args": {"channels": 32},
        "discriminators.msd.network.init_args": {"scales": 1, "channels": 4, "layers": 2, "max_channels": 16},
        "data.segment_samples": 2048,
        "data.path": str(corpus),
        "data.workers": 0,
        "batch_size": 2,
        "threads": 1,
        "log_every": 1,
        "validate_every": None,
        "steps": steps,
    }
    return load_recipe("melgan_ljspeech", small | more)


@pytest.fixture(scope="module")
def trained(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    Run(plan(melgan(corpus, 3)), folder).fit()
    return folder


def test_folded_weights_go_back_into_weight_norm() -> None:
    torch.manual_seed(0)
    first, second = MelGANGenerator(channels=32), MelGANGenerator(channels=32)
    mel = torch.randn(1, 80, 5)
    expected = first(mel)
    assert not torch.allclose(second(mel), expected)
    keys = set(second.state_dict())
    load_folded(second, fold_parametrizations(first).state_dict())
    torch.testing.assert_close(second(mel), expected, rtol=1e-5, atol=1e-6)
    assert set(second.state_dict()) == keys
    assert all(parameter.requires_grad for parameter in second.parameters())
    second(mel).sum().backward()


@pytest.mark.parametrize("place", ["", "model"])
def test_a_run_starts_from_a_model_with_its_discriminators(
    corpus: Path, trained: Path, tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gansound")
    recipe = melgan(corpus, 2, init_from=str(trained / place), seed=5)
    run = Run(plan(recipe), tmp_path / "run")
    assert "with discriminators msd" in caplog.text
    assert "random weights" not in caplog.text
    mel = torch.randn(1, 80, 8)
    expected = load_model_folder(trained / "model").generator(mel)
    torch.testing.assert_close(run.generator.eval()(mel), expected, rtol=1e-4, atol=1e-6)
    judges = load_discriminators(trained / "model")
    assert judges is not None
    state = run.task.discriminator.state_dict()
    assert state.keys() == judges.keys()
    assert all(torch.equal(state[name].cpu(), judges[name]) for name in state)
    run.fit()
    info = load_model_folder(tmp_path / "run" / "model").info
    assert (info["steps"], info["init_from"]) == (2, str(trained / place))
    # Resumed, it goes on from its own checkpoint, though the model is gone.
    gone = melgan(corpus, 3, init_from=str(trained / place), seed=5)
    there = trained / "model" / "model.safetensors"
    aside = there.rename(there.with_name("gone"))
    try:
        Run(plan(gone), tmp_path / "run").fit()
    finally:
        aside.rename(there)
    assert [line["step"] for line in losses(tmp_path / "run")] == [1, 2, 3]


def test_an_average_starts_from_the_model_too(corpus: Path, tmp_path: Path) -> None:
    Run(plan(tiny(corpus, 2)), tmp_path / "first").fit()
    run = Run(plan(tiny(corpus, 2, init_from=str(tmp_path / "first"), seed=7)), tmp_path / "second")
    expected = load_model_folder(tmp_path / "first" / "model").generator.state_dict()
    for name, value in run.generator.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert run.generator is not run.task.generator


def test_a_model_without_discriminators_says_what_that_means(
    corpus: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((trained / "model" / name).read_bytes())
    assert load_discriminators(bare) is None
    Run(plan(melgan(corpus, 1, init_from=str(bare))), tmp_path / "one")
    assert "discriminators msd start from random weights" in caplog.text
    caplog.clear()
    other = {
        "discriminators.msd.network.init_args": {"scales": 2, "channels": 4, "layers": 2, "max_channels": 16}
    }
    Run(plan(melgan(corpus, 1, init_from=str(trained), **other)), tmp_path / "two")
    assert "its discriminator 'msd' isn't the recipe's (scales.1" in caplog.text
    assert "random weights" in caplog.text


def test_what_does_not_fit_is_refused_before_the_corpus_is_read(
    corpus: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: Any) -> None:
        pytest.fail("the corpus was opened first")

    monkeypatch.setattr("gansound.engine.run.Feed", opened)
    with pytest.raises(RecipeError, match=r"init_from .*shape \(32, 80, 7\), expected \(64, 80, 7\)"):
        Run(
            plan(melgan(corpus, 1, init_from=str(trained), **{"generator.init_args.channels": 64})),
            tmp_path / "a",
        )
    with pytest.raises(RecipeError, match=r"takes other mels.*fmax"):
        Run(plan(melgan(corpus, 1, init_from=str(trained), mel="hifigan")), tmp_path / "b")
    with pytest.raises(RecipeError, match="no such model folder"):
        Run(plan(melgan(corpus, 1, init_from="nowhere")), tmp_path / "c")
    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "model.safetensors"):
        (broken / name).write_bytes((trained / "model" / name).read_bytes())
    (broken / "discriminators.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RecipeError, match=r"discriminators\.safetensors: can't be read"):
        Run(plan(melgan(corpus, 1, init_from=str(broken))), tmp_path / "d")
    assert not any((tmp_path / name).exists() for name in "abcd")


@pytest.mark.parametrize(
    "recipe, name", [("universal_cpu", "default"), ("universal_live_cpu", "default-live")]
)
def test_the_shipped_models_can_be_fine_tuned(recipe: str, name: str, corpus: Path, tmp_path: Path) -> None:
    quick = [
        "--steps",
        "1",
        "--batch_size",
        "2",
        "--data.workers",
        "0",
        "--log_every",
        "1",
        "--validate_every",
        "null",
    ]
    begin = ["train", recipe, "--data.path", str(corpus), "--init-from", name, *quick]
    assert main([*begin, "--run", str(tmp_path / "voice")]) == 0
    fresh = ["train", recipe, "--data.path", str(corpus), *quick, "--run", str(tmp_path / "fresh")]
    assert main(fresh) == 0
    assert losses(tmp_path / "voice")[0]["spectrum"] < 0.8 * losses(tmp_path / "fresh")[0]["spectrum"]


def test_a_fine_tuning_at_another_rate_and_hop_begins_as_the_net_speaks_there(
    corpus: Path, tmp_path: Path
) -> None:
    """A hop of 300 isn't a whole part of the net's own 1024 samples."""
    mel = MelSpec.preset("parallel_wavegan_24khz")
    given = {"data.path": str(corpus), "init_from": "default", "mel": "parallel_wavegan_24khz"}
    planned = plan(load_recipe("finetune_cpu", given))
    assert planned.settings.data.segment_samples % 300 == 0
    start_from("default", planned.task)
    told = load_model_folder("default")
    speech = mel.mel(torch.randn(1, 40 * 300, generator=torch.Generator().manual_seed(0)) / 10)
    with torch.no_grad():
        net, _ = planned.task.shipped(planned.task.generator, {})
        expected = told.generator.eval().for_mel(mel)(speech)
        torch.testing.assert_close(net.eval()(speech), expected, atol=1e-5, rtol=0)
    own = plan(load_recipe("finetune_cpu", given | {"mel": "tacotron2"}))
    assert "learnt_by" not in own.recipe["generator"]["init_args"]


def test_a_full_band_run_starts_from_the_shipped_speech_model(corpus: Path, tmp_path: Path) -> None:
    given = {"data.path": str(corpus), "data.workers": 0, "batch_size": 1, "init_from": "default"}
    run = Run(plan(load_recipe("universal_44khz_cpu", given)), tmp_path / "run")
    bins = load_model_folder("default").generator.layers.core.spectrum.trunk.head.bias.chunk(3)
    for mine, its in zip(run.task.generator.spectrum.trunk.head.bias.chunk(3), bins, strict=True):
        assert torch.equal(mine[: len(its)], its)


def test_the_shipped_drums_too_without_their_vocoder(tmp_path: Path) -> None:
    shipped = load_model_folder("drums")
    arguments_ = shipped.config["init_args"]["mel_generator"]["init_args"]
    sounds = tmp_path / "sounds"
    for label in arguments_["labels"]:
        sounds.mkdir(exist_ok=True)
        (write_sounds(tmp_path / label, each=4) / "zap").rename(sounds / label)
    recipe = load_recipe("specgan_drums_44khz", {"data.path": str(sounds), "steps": 1, "data.workers": 0})
    run = Run(plan({**recipe, "init_from": "drums"}), tmp_path / "run")
    trained = shipped.generator.mel_generator.state_dict()  # type: ignore[operator, union-attr]
    assert all(torch.equal(value, trained[name]) for name, value in run.task.generator.state_dict().items())


def test_waves_start_from_waves(tmp_path: Path) -> None:
    sounds = write_sounds(tmp_path / "sounds")
    Run(plan(small_wave(sounds, 1)), tmp_path / "one").fit()
    run = Run(plan(small_wave(sounds, 1, init_from=str(tmp_path / "one"), seed=3)), tmp_path / "two")
    trained = load_file(tmp_path / "one" / "model" / "model.safetensors")
    assert all(torch.equal(value, trained[name]) for name, value in run.task.generator.state_dict().items())


def test_frozen_parts_stay_as_they_are(corpus: Path, tmp_path: Path) -> None:
    recipe = tiny(
        corpus,
        3,
        freeze=["generator.layers.spectrum.trunk.embed", "discriminators.msd.scales.0"],
        **ADVERSARIAL,
    )
    run = Run(plan(recipe), tmp_path / "run")
    before = {
        k: v.clone()
        for k, v in (run.task.generator.state_dict() | run.task.discriminator.state_dict()).items()
    }
    run.fit()
    after = run.task.generator.state_dict() | run.task.discriminator.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    frozen = {name for name in before if name.startswith(("layers.spectrum.trunk.embed.", "msd.scales.0."))}
    assert frozen
    assert not moved & frozen
    assert {name for name in moved if name.startswith("msd.scales.1.")}
    assert {name for name in moved if not name.startswith("msd.")}
    assert sum(len(group["params"]) for group in run.plan.optimizers["generator"].param_groups) < len(
        list(run.task.generator.parameters())
    )


def test_freezing_what_is_not_there_or_all_there_is(corpus: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"nothing is called 'generator\.encoder'; there are .*generator\.layers\.spectrum"
    ):
        plan(tiny(corpus, 1, freeze=["generator.encoder"]))
    with pytest.raises(RecipeError, match="nothing of the discriminator to learn"):
        plan(tiny(corpus, 1, freeze=["discriminators"]))
    plan(tiny(corpus, 1, freeze=["*.bias"]))


def test_discriminators_of_a_model_are_replaced_with_it(trained: Path, tmp_path: Path) -> None:
    """A model saved again without them doesn't keep the old ones."""
    from gansound.model_folder import save_model_folder

    loaded = load_model_folder(trained / "model")
    folder = tmp_path / "model"
    judge = {"a.weight": torch.ones(2)}
    save_model_folder(folder, loaded.generator, loaded.mel, config=loaded.config, discriminators=judge)
    found = load_discriminators(folder)
    assert found is not None
    assert torch.equal(found["a.weight"], judge["a.weight"])
    (folder / "README.md").write_text("mine")
    save_model_folder(folder, loaded.generator, loaded.mel, config=loaded.config)
    assert load_discriminators(folder) is None
    assert (folder / "README.md").read_text() == "mine"


def test_init_from_on_the_command_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = ["train", "tiny_cpu", "--data.path", str(corpus), "--steps", "1", *arguments()]
    assert main([*first, "--run", str(tmp_path / "first")]) == 0
    monkeypatch.chdir(tmp_path)
    second = [*first, "--init-from", "first", "--run", str(tmp_path / "second")]
    assert main(second) == 0
    monkeypatch.chdir(corpus)
    assert load_recipe(tmp_path / "second" / "recipe.yaml")["init_from"] == str(tmp_path / "first")
    assert main([*first, "--init-from", "nowhere", "--run", str(tmp_path / "third")]) == 2
    assert "init_from: nowhere: no such model folder" in capsys.readouterr().err
    assert main([*second, "--init_from", "x"]) == 2
    assert json.loads((tmp_path / "second" / "model" / "config.json").read_text())["info"]["init_from"]
