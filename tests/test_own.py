"""Losses and networks of a user's own, named by class_path: tried before a file is read, refused by key, or trained."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.recipe import RecipeError, load_recipe
from tests.clips import small_wave
from tests.corpus import write_corpus
from tests.test_engine import TINY

HERE = "tests.test_own"


class Distance(nn.Module):
    """A loss as asked for, with a network of its own."""

    def __init__(self, gives: str = "mean") -> None:
        super().__init__()
        self.gives = gives
        self.net = nn.Conv1d(1, 4, 9)

    def forward(self, fake: Tensor, real: Tensor) -> Any:
        if self.gives == "error":
            raise KeyError("nothing of that name")
        apart = self.net((fake.detach() if self.gives == "detached" else fake)[:, None] - real[:, None]).abs()
        whole = apart.mean()
        return {"mean": whole, "map": apart, "detached": whole, "float": whole.item()}[self.gives]


class Judge(nn.Module):
    """A discriminator as asked for; its batch norm keeps what it saw, and it draws."""

    def __init__(self, gives: str = "maps", clips: bool = False) -> None:
        super().__init__()
        self.gives, self.clips = gives, clips
        self.net = nn.Sequential(nn.Conv1d(1, 4, 9, 4), nn.BatchNorm1d(4), nn.Dropout(0.1))
        self.last = nn.Conv1d(4, 1, 3)

    def forward(self, x: Tensor, labels: Tensor | None = None, shifts: Tensor | None = None) -> Any:
        hidden = self.net(x if self.gives == "channels" or self.clips else x[:, None])
        maps = [hidden, hidden.abs(), self.last(hidden)]
        return {"maps": [maps], "tensor": maps[-1], "flat": maps, "mean": [[maps[0], maps[0], maps[-1].mean()]],
                "two": [maps[1:]]}[self.gives]  # fmt: skip


class Maker(nn.Module):
    """A generator whose sounds have a channel, as ParallelWaveGAN's have."""

    n_mels, hop_length = 80, 256

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ConvTranspose1d(80, 1, 256, 256)

    def forward(self, mel: Tensor) -> Tensor:
        return self.net(mel)


def own(name: str, gives: str) -> dict[str, Any]:
    return {"class_path": f"{HERE}.{name}", "init_args": {"gives": gives}}


def recipe(path: Path, **changes: Any) -> dict[str, Any]:
    found = load_recipe("tiny_cpu", TINY | {"data.path": str(path), "steps": 2, "adversarial_from": 0})
    for key, value in changes.items():
        part, _, name = key.partition("__")
        found[part] = {**found[part], name: value} if name else value
    return found


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"losses__own": {"loss": own("Distance", "map"), "weight": 1.0}},
            r"losses\.own\.loss: tests\.test_own\.Distance, given generated and real sounds \(2, 2048\): it gave a "
            r"tensor \(2, 4, 2040\) of float32, expected a tensor of one number",
        ),
        ({"losses__own": {"loss": own("Distance", "float"), "weight": 1.0}}, r"losses\.own.*it gave a float"),
        ({"losses__own": {"loss": own("Distance", "detached"), "weight": 1.0}}, r"losses\.own.*no gradient"),
        (
            {"losses__own": {"loss": own("Distance", "error"), "weight": 1.0}},
            r"losses\.own.*KeyError: 'nothing of that name' \(line \d+ of .*test_own\.py\)",
        ),
        (
            {"discriminators__own": {"network": own("Judge", "channels")}},
            r"discriminators\.own\.network: tests\.test_own\.Judge, given sounds \(4, 2048\): RuntimeError: .*channels",
        ),
        (
            {"discriminators__own": {"network": own("Judge", "tensor")}},
            r"own\.network.*it gave a tensor \(4, 1",
        ),
        (
            {"discriminators__own": {"network": own("Judge", "flat")}},
            r"own\.network.*it gave a list of a tensor",
        ),
        ({"discriminators__own": {"network": own("Judge", "mean")}}, r"own\.network.*a map of a tensor \(\)"),
        ({"discriminators__own": {"network": own("Judge", "two")}}, r"own\.network.*two or more maps before"),
        (
            {"generator": {"class_path": f"{HERE}.Maker"}},
            r"generator: tests\.test_own\.Maker, given mels \(2, 80, 8\): it made a tensor \(2, 1, 2048\)",
        ),
    ],
)
def test_what_a_step_would_fail_at_is_said_by_key_before_the_corpus_is_read(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    planned = plan(recipe(tmp_path / "no corpus", **changes), allow=["tests"])
    with pytest.raises(RecipeError, match=said):
        Run(planned, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_discriminator_of_clips_is_tried_likewise(tmp_path: Path) -> None:
    network = {"class_path": f"{HERE}.Judge", "init_args": {"gives": "tensor", "clips": True}}
    wave = {**small_wave(tmp_path / "no corpus", 1), "discriminators": {"own": {"network": network}}}
    planned = plan(wave, allow=["tests"])
    with pytest.raises(
        RecipeError, match=r"discriminators\.own\.network.*given sounds \(2, 1, 1024\), labels and"
    ):
        Run(planned, tmp_path / "run")


def test_what_is_as_asked_for_trains_and_is_before_the_first_step_as_if_it_had_not_been_called(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = {
        "losses__own": {"loss": own("Distance", "mean"), "weight": 1.0},
        "discriminators__own": {"network": own("Judge", "maps")},
    }
    planned = plan(recipe(write_corpus(tmp_path / "corpus", files=3), **changes), allow=["tests"])
    before = {name: value.clone() for name, value in planned.task.discriminator.state_dict().items()}
    drawn = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        run = Run(planned, tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), drawn)
    for name, value in planned.task.discriminator.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert "losses.own.loss: Distance has 40 parameters of its own, which stay as they are" in caplog.text
    loss = planned.task.criteria["own"]
    assert not any(parameter.requires_grad for parameter in loss.parameters())
    run.fit()
    text = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '"own"' in text
    assert "discriminator/own" in text
