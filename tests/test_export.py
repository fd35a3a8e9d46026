"""Exported graphs give what PyTorch gives, for every family; a file takes its place only when it does."""

import argparse
import json
import subprocess
import sys
import wave
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

import gansound
import gansound.cli
import gansound.inference.export.to_onnx as to_onnx
from gansound import extras
from gansound.cli.export import _judge, loss
from gansound.generators.freev import FreeVGenerator
from gansound.generators.hifigan import HiFiGANGenerator
from gansound.generators.multi_band_melgan import MultiBandMelGANGenerator
from gansound.inference.export import export_onnx, export_torch, load_onnx
from gansound.inference.export.writing import beside, metadata, verify
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.model_folder import LoadedModel, save_model_folder
from gansound.nn.finer_frames import FinerFrames
from gansound.nn.generator import StreamingGenerator
from gansound.nn.inference_form import InferenceForm
from tests.families import FAMILIES as TABLE
from tests.families import N_MELS, SPEC
from tests.streams import awaken
from tests.test_backends import generator_of
from tests.test_streaming_models import awake, mels, rms

BANDS, HOP = N_MELS, SPEC.hop_length
READER = Path(__file__).resolve().parents[1] / "samples" / "onnx_reader.py"
# Tracing takes seconds a graph, whatever the net's size: two are those of the backends' tests, and the others, which
# are made of the same layers, slow.
QUICK = ("melgan", "freev")
SLOW = {
    "hifigan": lambda: HiFiGANGenerator(BANDS, 8, (HOP,), (2 * HOP,), (3, 5), ((1,), (3,)), residual_block=2),
    "multi_band_melgan": lambda: MultiBandMelGANGenerator(BANDS, 8, (HOP // 4,), (3,), pqmf_taps=30),
}
EACH = [*QUICK, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)]
pytestmark = pytest.mark.usefixtures("traced_once")
needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs gansound[export]",
)


def mel_of(batch: int, frames: int, seed: int = 0) -> Tensor:
    return mels(frames, torch.float32, seed, batch)


def vocoder_of(family: str) -> Vocoder:
    """Untrained, and as loud as speech: an error in silence would not be seen."""
    torch.manual_seed(0)
    generator = awaken(SLOW[family](), mel_of(2, 40)) if family in SLOW else generator_of(family)
    assert rms(generator(mel_of(1, 50))) > 0.1
    return Vocoder(LoadedModel(generator, SPEC, {"licence": "CC0-1.0"}, Path(), {}), "cpu", backend="eager")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """`written(family, streaming)`: the vocoder and its ONNX file, made once."""
    folder, made = tmp_path_factory.mktemp("onnx"), {}

    def get(family: str, streaming: bool) -> tuple[Vocoder, Path]:
        if (family, streaming) not in made:
            vocoder = vocoder_of(family)
            path = export_onnx(vocoder, folder / f"{family}_{streaming}.onnx", streaming=streaming)
            made[family, streaming] = vocoder, path
        return made[family, streaming]

    return get


def close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@needs_onnx
@pytest.mark.parametrize("family", EACH)
def test_the_offline_graph_is_the_generator_for_any_batch_and_length(written, family):
    vocoder, path = written(family, False)
    graph = load_onnx(path)
    for batch, frames in ((1, 1), (1, 2), (3, 1), (2, 3), (1, 57)):
        mel = mel_of(batch, frames, seed=frames)
        close(graph(mel), vocoder.generator(mel))


# The reader as another project runs it: torch can't be imported.
PROGRAM = """
import sys
sys.modules["torch"] = sys.modules["gansound"] = None
import numpy as np
sys.path.insert(0, {folder!r})
from onnx_reader import Vocoder
random = np.random.default_rng(0)
vocoder, out = Vocoder(sys.argv[1]), {{}}
for name, mel in np.load(sys.argv[2]).items():  # one vocoder: each utterance begins afresh after a flush
    parts, start = [], 0
    while start < mel.shape[1]:
        n = int(random.integers(0, 6))
        parts.append(vocoder.push(mel[:, start : start + n]))
        start += n
    parts.append(vocoder.flush())
    out[name] = np.concatenate(parts)
np.savez(sys.argv[3], **out)
"""


@needs_onnx
@pytest.mark.parametrize("family", EACH)
def test_the_reader_without_torch_gives_the_offline_samples(written, family, tmp_path):
    vocoder, path = written(family, True)
    mels = {str(frames): mel_of(1, frames, seed=frames) for frames in (40, 1, 2, 7, 23)}
    np.savez(tmp_path / "mels.npz", **{name: mel[0].numpy() for name, mel in mels.items()})
    program = PROGRAM.format(folder=str(READER.parent))
    names = [str(path), str(tmp_path / "mels.npz"), str(tmp_path / "out.npz")]
    done = subprocess.run(
        [sys.executable, "-c", program, *names], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npz")
    for name, mel in mels.items():
        expected = vocoder.generator(mel)[0]
        if mel.shape[-1] > 20:
            assert float(expected.square().mean().sqrt()) > 0.1
        close(torch.from_numpy(found[name]), expected)


@needs_onnx
def test_streams_of_one_batch_may_begin_and_end_at_different_times(written):
    vocoder, path = written("melgan", True)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    late, lengths, begins = int(about["lookahead_samples"]), (9, 4), (0, 3)
    mels = [mel_of(1, n, seed=n) for n in lengths]
    state = {
        f"state.{s['name']}": np.zeros((2, *s["shape"]), s["dtype"]) for s in json.loads(about["states"])
    }
    state["state.length"][:] = int(about["unknown_length"])
    audio = []
    for frame in range(9 + -(-late // HOP)):
        chunk = np.zeros((2, BANDS, 1), np.float32)
        for item, (begin, n) in enumerate(zip(begins, lengths, strict=True)):
            if frame == begin:
                state["state.position"][item] = 0
            if frame == begin + n:
                state["state.length"][item] = n
            if 0 <= frame - begin < n:
                chunk[item] = mels[item][0, :, frame - begin, None]
        out, *following = session.run(None, {"mel": chunk, **state})
        state = dict(zip(state, following, strict=True))
        audio.append(out)
    sound = torch.from_numpy(np.concatenate(audio, axis=1))
    for item, (begin, mel) in enumerate(zip(begins, mels, strict=True)):
        first = begin * HOP + late
        if (missing := first + mel.shape[-1] * HOP - sound.shape[1]) > 0:
            pytest.fail(f"the test feeds {missing} samples too few")
        close(sound[item, first : first + mel.shape[-1] * HOP], vocoder.generator(mel)[0])


@pytest.mark.parametrize("family", [pytest.param("melgan", marks=pytest.mark.slow), "freev"])
def test_programs_of_torch_export_give_the_offline_samples(family, tmp_path):
    vocoder = vocoder_of(family)
    generator = vocoder.generator
    path = export_torch(vocoder, tmp_path / "whole.pt2")
    about = {"gansound.json": ""}
    whole = torch.export.load(path, extra_files=about).module()
    assert json.loads(about["gansound.json"])["graph"] == "offline"
    for batch, frames in ((1, 1), (2, 3), (1, 40)):
        mel = mel_of(batch, frames)
        close(whole(mel), generator(mel))

    step = torch.export.load(export_torch(vocoder, tmp_path / "step.pt2", streaming=True)).module()
    assert isinstance(generator, StreamingGenerator)
    late, random = generator.receptive_field.lookahead, np.random.default_rng(1)
    for frames in (1, 5, 40):
        mel, state, parts, start = mel_of(1, frames), generator.init_state(1), [], 0
        while start < frames:
            chunk = mel[..., start : start + int(random.integers(1, 6))]
            audio, *following = step(chunk, state)
            state = tuple(following)
            parts.append(audio)
            start += chunk.shape[-1]
        audio, *_ = step(torch.zeros(1, BANDS, -(-late // HOP)), generator.finish(state))
        sound = torch.cat([*parts, audio], dim=1)[:, late:]
        close(sound[:, : frames * HOP], generator(mel))


@needs_onnx
def test_the_file_says_what_a_reader_must_know(written):
    import onnx

    vocoder, path = written("melgan", True)
    model = onnx.load(path)
    about = {p.key: p.value for p in model.metadata_props}
    assert model.producer_name == "gansound"
    assert model.producer_version == about["gansound_version"] == gansound.__version__
    assert MelSpec.from_dict(json.loads(about["mel"])) == SPEC
    assert about["licence"] == "CC0-1.0"
    numbers = ("sample_rate", "hop_length", "n_mels", "interior", "lookahead_samples")
    lookahead = vocoder.generator.receptive_field.lookahead
    assert [int(about[name]) for name in numbers] == [SPEC.sample_rate, HOP, BANDS, 0, lookahead]
    inputs = [value.name for value in model.graph.input]
    states = [state["name"] for state in json.loads(about["states"])]
    assert states[:2] == ["position", "length"]
    assert inputs == ["mel", *(f"state.{name}" for name in states)]
    assert [value.name for value in model.graph.output] == ["audio", *(f"next.{name}" for name in states)]
    for given in (model, onnx.load(written("melgan", False)[1])):
        mel, sound = (v[0].type.tensor_type.shape.dim for v in (given.graph.input, given.graph.output))
        assert [axis.dim_param or axis.dim_value for axis in mel] == ["batch", BANDS, "frames"]
        assert [axis.dim_param for axis in sound] == ["batch", f"{HOP}*frames"]
    assert model.ir_version <= 8  # of ONNX Runtime 1.17 and sherpa-onnx
    offline = {p.key for p in onnx.load(written("melgan", False)[1]).metadata_props}
    assert not offline & {"model_type", "states"}


def test_sherpa_onnx_is_told_of_offline_graphs_of_hifigans_convention(tmp_path):
    for preset, offered in (("hifigan", True), ("melgan_neurips", False)):
        spec = MelSpec.preset(preset)
        generator = FreeVGenerator(spec, 8, 16, 1)
        vocoder = Vocoder(LoadedModel(generator, spec, {}, Path(), {}), "cpu", backend="eager")
        whole = metadata(vocoder, generator, streaming=False, precision="fp32")
        assert whole.get("model_type") == ("hifigan" if offered else None)
        # Without it sherpa-onnx 2.0 crashes on the graph; with it, it says that inputs are missing.
        assert metadata(vocoder, generator, streaming=True, precision="fp32")["model_type"] == "hifigan"


@needs_onnx
def test_the_reader_writes_a_wav_and_refuses_the_offline_graph(written, tmp_path):
    vocoder, path = written("freev", True)
    mel = mel_of(1, 21)
    np.save(tmp_path / "mel.npy", mel[0].numpy())
    command = [sys.executable, str(READER), str(path), str(tmp_path / "mel.npy"), str(tmp_path / "out.wav")]
    subprocess.run(command, check=True)
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (
            SPEC.sample_rate,
            1,
            21 * HOP,
        )
        found = np.frombuffer(file.readframes(21 * HOP), "<i2") / 32767
    expected = vocoder.generator(mel)[0].clamp(-1, 1)
    torch.testing.assert_close(torch.from_numpy(found).float(), expected, rtol=0, atol=1.1 / 32767)
    np.save(tmp_path / "mel.npy", mel[0].T.numpy())
    command[-1] = str(tmp_path / "none.wav")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert f"expected a mel of ({BANDS}, frames), got (21, {BANDS})" in done.stderr
    assert not (tmp_path / "none.wav").exists()
    done = subprocess.run(command[:3], capture_output=True, text=True, check=False)
    assert "python onnx_reader.py vocoder.onnx mel.npy speech.wav" in done.stderr
    command[2] = str(written("freev", False)[1])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "not a streaming graph" in done.stderr


@needs_onnx
@pytest.mark.parametrize("streaming", [False, True])
def test_fp16_halves_what_was_learnt_and_nothing_else(written, streaming, tmp_path):
    import onnx
    from onnx import numpy_helper

    vocoder, path = written("freev", streaming)
    half = export_onnx(vocoder, tmp_path / "half.onnx", precision="fp16", streaming=streaming)
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer} for file in (path, half)
    )
    halved = {name.removesuffix(".half") for name in after if name.endswith(".half")}
    assert halved
    for name, value in before.items():
        if name in halved:
            np.testing.assert_array_equal(after[f"{name}.half"], value.astype(np.float16))
        else:
            np.testing.assert_array_equal(after[name], value)
    form = InferenceForm(vocoder.generator, graph=True)
    for constant in form.buffers():
        assert not any(np.array_equal(before[name], c) for name in halved for c in (constant, constant.T))
    if not streaming:
        mel = mel_of(2, 31)
        difference = load_onnx(half)(mel) - vocoder.generator(mel)
        assert 1e-7 < float(difference.square().mean().sqrt()) < 1e-2


@needs_onnx
def test_int8_leaves_products_whose_error_phases_would_add_up():
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    finer, other = FinerFrames(5, 4), torch.nn.Linear(5, 16)
    weights = {"kept": finer.sharper[1].weight, "rounded": other.weight}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", name], [f"{name}.y"], f"{name}.product") for name in weights],
        "products",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 5])],
        [helper.make_tensor_value_info(f"{name}.y", TensorProto.FLOAT, None) for name in weights],
        [numpy_helper.from_array(weight.detach().numpy().T.copy(), name) for name, weight in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    made = to_onnx.quantized(model, torch.nn.ModuleList([finer, other]).requires_grad_(False))
    products = [
        (node.op_type, node.input[1]) for node in made.graph.node if node.op_type.startswith("MatMul")
    ]
    assert sorted(products) == [("MatMul", "kept"), ("MatMulInteger", "rounded_quantized")]
    assert onnx.load_from_string(made.SerializeToString())


@needs_onnx
def test_int8_is_of_learnt_products_only_and_close(written, tmp_path, monkeypatch):
    import onnx

    vocoder, fp32 = written("freev", False)
    path = export_onnx(vocoder, tmp_path / "int8.onnx", precision="int8")
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("MatMulInteger") == 3  # expand, contract, head
    assert kinds.count("MatMul") == 2  # the filter bank's inverse, the inverse DFT
    mel = mel_of(1, 50)
    exact, found = load_onnx(fp32)(mel), load_onnx(path)(mel)
    signal_to_noise = float(exact.square().mean() / (exact - found).square().mean())
    assert 10 < 10 * np.log10(signal_to_noise) < 80
    convolutions, whole = written("melgan", False)
    with pytest.raises(ValueError, match="only convolutions"):
        to_onnx.quantized(onnx.load(whole), InferenceForm(convolutions.generator, graph=True))
    with pytest.raises(ValueError, match="depend on how it was cut"):
        export_onnx(vocoder, tmp_path / "int8.onnx", precision="int8", streaming=True)
    monkeypatch.setattr(to_onnx, "onnx_model", None)  # that there are none is known before tracing
    with pytest.raises(ValueError, match="only convolutions"):
        export_onnx(convolutions, tmp_path / "int8.onnx", precision="int8")


def test_a_graph_that_differs_is_not_written(tmp_path):
    vocoder = vocoder_of("melgan")
    generator = vocoder.generator
    assert isinstance(generator, StreamingGenerator)

    def off(inputs: list[Tensor]) -> list[Tensor]:
        audio, state = generator.step(inputs[0], tuple(inputs[1:]))
        return [audio + 2e-5, *state]

    with pytest.raises(ValueError, match=r"differs from PyTorch by 2.*e-05, expected at most 1e-05"):
        verify(off, SPEC, generator, generator, streaming=True, max_error=1e-5)
    with pytest.raises(ValueError, match="samples"):
        verify(
            lambda x: [generator(x[0])[:, 1:]], SPEC, generator, generator, streaming=False, max_error=1e-5
        )

    def fill(path: Path) -> None:
        path.write_text("half")
        raise ValueError("no")

    target = tmp_path / "old.onnx"
    target.write_text("old")
    with pytest.raises(ValueError, match="no"), beside(target) as temporary:
        fill(temporary)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old.onnx", "old")]
    with beside(target) as temporary:
        temporary.write_text("old")
    closed = OSError(13, "closed", str(temporary))
    for error, name in ((OSError(28, "full"), target), (closed, target), (OSError(2, "gone", "w"), "w")):
        with pytest.raises(OSError) as raised, beside(target):
            raise error  # that of a write has no name
        assert (raised.value.errno, raised.value.filename) == (error.errno, str(name))
    with beside(target) as temporary:
        temporary.write_text("new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("old.onnx", "new")]


def test_a_missing_package_is_named_with_its_install_line(tmp_path, monkeypatch):
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ValueError, match=r"needs onnxscript, .* pip install 'gansound\[export\]'"):
        export_onnx(vocoder_of("melgan"), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def command(monkeypatch):
    monkeypatch.setitem(gansound.cli.COMMANDS, "export", ("gansound.cli.export", "export"))

    def run(*arguments: object) -> int:
        return gansound.cli.main(["export", *map(str, arguments)])

    return run


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["--precision", "int8", "--streaming"],
            "--precision int8: is for --format onnx without --streaming",
        ),
        (["--opset", "17"], "--opset 17: expected 18 or more"),
        (["--force"], "belong to --precision int8"),
        (["--precision", "int8", "--evaluate-on", "nowhere"], "--evaluate-on nowhere: no such"),
    ],
)
def test_what_the_command_line_shows_is_wrong_ends_with_2(command, tmp_path, capsys, arguments, message):
    assert command("--format", "onnx", "-o", tmp_path / "x.onnx", *arguments) == 2
    assert message in capsys.readouterr().err
    assert command("--format", "onnx", "-o", tmp_path / "no" / "x.onnx") == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind, name, suffix",
    [
        ("torch_export", "v.onnx", ".pt2"),
        ("torch_export", "v.pt", ".pt2"),
        ("onnx", "README.md", ".onnx"),
        ("onnx", "v", ".onnx"),
    ],
)
def test_a_suffix_of_another_format_is_refused(command, tmp_path, capsys, kind, name, suffix):
    (tmp_path / name).write_text("mine")
    assert command("--format", kind, "-o", tmp_path / name) == 2
    assert f"expected a name that ends in {suffix}" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


@needs_onnx
def test_the_command_writes_the_step_of_a_net_like_the_default(command, tmp_path, capsys):
    """That the graph gives the generator's samples is seen before it is written; and it is simplified."""
    family = TABLE["universal"].traced
    default = json.loads((Path(gansound.__file__).parent / "models" / "default" / "config.json").read_text())
    assert default["generator"]["class_path"] == family.config["class_path"]
    for layer in ("griffin_lim", "single_pass_bins", "group_delay_bands"):
        assert default["generator"]["init_args"][layer] >= family.arguments[layer] > 0
    net = awake("universal", False, torch.float32, traced=True)
    model = save_model_folder(tmp_path / "model", net, family.mel, config=family.config)
    target = tmp_path / "stream.onnx"
    target.write_text("an older one, whose place it takes")
    assert command("--model", model, "--format", "onnx", "--streaming", "-o", target) == 0
    assert "one step of a stream, fp32" in capsys.readouterr().out
    import onnx

    model = onnx.load(target)
    assert [value.name for value in model.graph.input][:3] == ["mel", "state.position", "state.length"]
    kinds = {node.op_type for node in model.graph.node}
    assert not model.functions
    assert not kinds & {"Constant", "CastLike"}, kinds  # as torch writes it


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("model", ["default", "default-live", "default-44khz"])
def test_the_command_writes_what_is_shipped(command, tmp_path, model):
    target = tmp_path / "stream.onnx"
    assert command("--model", model, "--format", "onnx", "--streaming", "-o", target) == 0
    assert target.is_file()


@needs_onnx
def test_the_command_measures_int8_and_refuses_what_is_heard(command, tmp_path, capsys, monkeypatch):
    target = tmp_path / "x.onnx"
    target.write_text("old")
    monkeypatch.setattr("gansound.cli.export.MAX_PESQ_LOSS", -5.0)  # nothing is good enough
    vocoder = vocoder_of("freev")
    model = save_model_folder(tmp_path / "model", vocoder.generator, SPEC, config=TABLE["freev"].config)
    assert command("--model", model, "--format", "onnx", "-o", target, "--precision", "int8") == 1
    told = capsys.readouterr()
    assert "int8 isn't written: wide-band PESQ falls" in told.err
    assert "fp32: PESQ" in told.err
    assert "int8: PESQ" in told.err
    assert told.out.count("PESQ") == 2
    assert target.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "x.onnx"]


def test_force_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setattr("gansound.cli.export._evaluate", lambda *_: figures_of(2.0, 0.5))
    for force in (True, False):
        args = argparse.Namespace(force=force, quiet=True)
        if force:
            _judge(args, None, tmp_path)
        else:
            with pytest.raises(
                ValueError, match=r"falls from 3.20 to 2.00.*fp32: PESQ 3.20, mel distance 0.180"
            ):
                _judge(args, None, tmp_path)


def figures_of(pesq, distance):
    """An evaluation of int8 with those means."""

    def figures(pesq, distance):
        found = {"mel_distance_model": SimpleNamespace(mean=distance)}
        return found | ({} if pesq is None else {"pesq_wb": SimpleNamespace(mean=pesq)})

    summaries = {"fp32": figures(3.20, 0.180), "int8": figures(pesq, distance)}
    return SimpleNamespace(summary=summaries.__getitem__, utterances=[None])


@pytest.mark.parametrize(
    "pesq, distance, words",
    [
        (3.15, 0.180, ""),
        (3.05, 0.180, "wide-band PESQ falls from 3.20 to 3.05"),
        (3.20, 0.200, "the mel distance grows from 0.180 to 0.200"),
        (None, 0.180, "PESQ is undefined"),
    ],
)
def test_the_rule_of_audible_loss(pesq, distance, words):
    said = loss(figures_of(pesq, distance))
    assert said.startswith(words)
    assert bool(said) == bool(words)
