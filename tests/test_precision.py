"""What the networks run in: half precision with full-precision losses, TF32 where it is asked for, compiled graphs."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gansound.engine.plan import plan
from gansound.engine.run import Run
from gansound.generators.freev import FreeVGenerator
from gansound.mel import MelSpec
from gansound.mel.inverse import MelInverse
from gansound.nn.pqmf import PQMF
from tests.clips import small_wave, write_sounds
from tests.corpus import write_corpus
from tests.test_engine import losses, tiny
from tests.test_start import melgan


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(autouse=True)
def _tf32_as_it_was() -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.mark.parametrize(
    "precision, expected", [("fp32", False), ("tf32", True), ("bf16", False), ("fp16", False)]
)
def test_only_tf32_rounds_full_precision(
    corpus: Path, tmp_path: Path, precision: str, expected: bool
) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not expected
    Run(plan(tiny(corpus, 1, precision=precision)), tmp_path / "run")
    assert torch.backends.cuda.matmul.allow_tf32 is expected
    assert torch.backends.cudnn.allow_tf32 is expected


@pytest.mark.parametrize("precision, half", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_networks_run_in_half_precision_and_losses_do_not(
    corpus: Path, tmp_path: Path, precision: str, half: torch.dtype
) -> None:
    run = Run(plan(melgan(corpus, 2, precision=precision)), tmp_path / "run")
    inside: set[torch.dtype] = set()
    for network in (run.task.generator, run.task.discriminator):
        for module in network.modules():
            if isinstance(module, torch.nn.Conv1d):
                module.register_forward_hook(lambda m, args, out: inside.add(out.dtype))
    judged: set[torch.dtype] = set()
    phase = run.task.generator_phase

    def watched(*args: Any) -> dict[str, torch.Tensor]:
        terms = phase(*args)
        judged.update(term.dtype for term in terms.values())
        return terms

    run.task.generator_phase = watched  # type: ignore[method-assign]
    run.fit()
    assert inside == {half}
    assert judged == {torch.float32}
    Run(plan(melgan(corpus, 2)), tmp_path / "full").fit()
    rough, full = losses(tmp_path / "run"), losses(tmp_path / "full")
    assert rough != full
    for name in ("discriminator/msd", "feature_matching/msd"):
        assert rough[0][name] == pytest.approx(full[0][name], rel=0.05)


def test_fp16_goes_on_with_its_scale(corpus: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    recipe = {"precision": "fp16", "adversarial_from": 0}

    def lively(run: Run) -> Run:
        for scaler in run.phases.scalers.values():
            scaler.set_growth_interval(2)
            scaler._init_scale = 16.0  # far from overflow
        return run

    lively(Run(plan(tiny(corpus, 6, **recipe)), one)).fit()
    lively(Run(plan(tiny(corpus, 4, **recipe)), two)).fit()
    lively(Run(plan(tiny(corpus, 6, **recipe)), two)).fit()
    scales = [line["loss_scale/generator"] for line in losses(one)]
    assert scales[-1] > scales[0]
    assert losses(one) == losses(two)
    Run(plan(tiny(corpus, 1, adversarial_from=0)), tmp_path / "fp32").fit()
    norm = losses(tmp_path / "fp32")[0]["gradient_norm/generator"]
    assert losses(one)[0]["gradient_norm/generator"] == pytest.approx(norm, rel=0.1)  # not scaled


@contextlib.contextmanager
def graphs() -> Iterator[list[int]]:
    """How many graphs were compiled, step by step."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    seen: list[int] = []
    real = Run.step

    def step(self: Run, *args: Any) -> dict[str, float]:
        figures = real(self, *args)
        seen.append(counters["stats"]["unique_graphs"])
        return figures

    Run.step = step  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        Run.step = real  # type: ignore[method-assign]


@pytest.mark.slow  # compiles for minutes
@pytest.mark.timeout(1200)
def test_compiled_networks_learn_the_same_from_one_set_of_graphs(corpus: Path, tmp_path: Path) -> None:
    more: dict[str, Any] = {"validate_every": 2, "validate_utterances": 1}
    Run(plan(melgan(corpus, 4, **more)), tmp_path / "eager").fit()
    with graphs() as seen:
        Run(plan(melgan(corpus, 4, compile=True, **more)), tmp_path / "compiled").fit()
    assert seen[0] > 0
    assert seen == seen[:1] * 4, (
        "constant shapes: all is compiled in the first step, and validation compiles nothing"
    )
    for line, expected in zip(losses(tmp_path / "compiled"), losses(tmp_path / "eager"), strict=True):
        assert line == pytest.approx(expected, rel=2e-2, abs=1e-3)


@pytest.mark.slow  # compiles for minutes
@pytest.mark.timeout(1200)
def test_what_a_penalty_differentiates_twice_stays_uncompiled(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gansound")
    sounds = write_sounds(tmp_path / "sounds")
    run = Run(plan(small_wave(sounds, 2, compile=True)), tmp_path / "compiled")
    run.fit()
    assert run.task.discriminator["wave"]._compiled_call_impl is None
    assert "wave" in caplog.text
    assert "penalty" in caplog.text
    Run(plan(small_wave(sounds, 2)), tmp_path / "eager").fit()
    for line, expected in zip(losses(tmp_path / "compiled"), losses(tmp_path / "eager"), strict=True):
        assert line == pytest.approx(expected, rel=2e-2, abs=1e-3)


def test_constants_of_a_design_are_not_rounded_by_autocast() -> None:
    spec = MelSpec.preset("hifigan")
    prior = FreeVGenerator(spec, channels=8, hidden_channels=8, blocks=1).layers.spectrum.prior
    magnitude = torch.rand(1, 5, spec.n_mels, generator=torch.Generator().manual_seed(0))
    mel = magnitude.transpose(1, 2).log()
    bank = PQMF()
    for net, given in (
        (MelInverse(spec, 1024), mel),
        (prior, magnitude),
        (bank, mel[:, :4]),
        (bank.analyze, mel.flatten(1)[:, None]),
    ):
        expected = net(given)
        with torch.autocast("cpu", torch.bfloat16):
            got = net(given)
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
