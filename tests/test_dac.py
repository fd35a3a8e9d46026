"""The decoders of DAC and SNAC against a plain-torch reference, codes as frames, and files named as theirs.

The reference's weights have the names that descript-audio-codec's and snac's checkpoints have.
"""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import gansound
from gansound.cli import main
from gansound.frames import CodeSpec
from gansound.generators.dac import DACGenerator, dac_keys
from gansound.importers import import_checkpoint
from gansound.importers.checkpoint import ImportFailed
from gansound.importers.dac import describe, recognises
from gansound.inference.export import export_onnx
from gansound.model_folder import LoadedModel, ModelFolderError
from gansound.nn import streaming
from gansound.nn.fold import fold_parametrizations
from gansound.nn.noise import NOISE_COLUMNS, NoiseProduct
from tests.families import FAMILIES
from tests.reference import dac as reference
from tests.streams import Streams, chunk_by_chunk, error
from tests.test_export import READER
from tests.test_families import needs
from tests.test_streaming_models import awake

# Strides and rates, and whether it is of the kind of SNAC.
NETS = {"dac": ((1, 1, 1), (4, 2), False), "odd": ((1, 1), (3, 2), False), "snac": ((4, 2, 1), (4, 2), True)}
ORPHEUS = [0, 1, 4, 2, 3, 5, 6]


def codebooks(name):
    strides = NETS[name][0]
    return tuple(strides[0] // stride for stride in strides)


def spec_of(name):
    strides, rates, _ = NETS[name]
    return CodeSpec(codebooks(name), 32, 24000, strides[0] * int(np.prod(rates)))


@torch.no_grad()
def theirs_of(name, dtype=torch.float32):
    """Its signal of unit variance all the way, as loud as speech at its end."""
    torch.manual_seed(0)
    strides, rates, snac = NETS[name]
    net = reference.Codec(strides, rates, depthwise=snac, noise=snac).to(dtype).eval()
    for number, layer in enumerate(m for m in net.modules() if isinstance(m, reference.Noise)):
        layer.drawn = NoiseProduct(number).noise.to(dtype)
    convolutions = [m for m in net.decoder.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    for conv in convolutions:
        seen = []
        hook = conv.register_forward_hook(lambda module, given, got, seen=seen: seen.append(got))
        net(spec_of(name).split(spec_of(name).noise(20)))
        hook.remove()
        conv.parametrizations.weight.original0 *= (0.3 if conv is convolutions[-1] else 1.0) / seen[0].std()
    return net


def ours_of(name, theirs):
    """By the importer's own reading, in double precision."""
    checkpoint = type("Read", (), {"weights": {}, "config": {}, "path": "x"})()
    for key, value in theirs.state_dict().items():
        stem = key.removesuffix("parametrizations.weight.original1")
        if stem != key:
            value = theirs.get_submodule(stem[:-1]).weight
            key = stem + "weight"
        if "original" not in key:
            checkpoint.weights[key] = value.detach()
    checkpoint.config = {"vq_strides": list(NETS[name][0]), "sampling_rate": 24000}
    assert recognises(checkpoint)
    described = describe(checkpoint)
    assert described.takes == spec_of(name)
    net = (
        fold_parametrizations(DACGenerator(**described.init_args))
        .to(theirs.decoder.model[-3].alpha.dtype)
        .eval()
    )
    keys = dac_keys(net)
    net.load_state_dict(
        {ours: described.weights[keys[ours]].reshape(value.shape) for ours, value in net.state_dict().items()}
    )
    return net.requires_grad_(False)


@torch.no_grad()
@pytest.mark.parametrize("dtype, most", [(torch.float64, 2e-6), (torch.float32, 1e-5)])
@pytest.mark.parametrize("name", NETS)
def test_it_equals_the_reference(name, dtype, most):
    """Sums of the codebooks' biases are single precision's at best."""
    theirs = theirs_of(name, dtype)
    ours, spec = ours_of(name, theirs), spec_of(name)
    for frames in (1, 2, 23):
        codes = spec.noise(frames, seed=frames).repeat(2, 1, 1)
        codes[1] = codes[1].flip(-1)
        expected = theirs(spec.split(codes))
        assert expected.shape == (2, frames * spec.hop_length)
        assert error([ours(codes.to(dtype))], [expected]) <= most
    assert float(expected.square().mean().sqrt()) > 0.1


@torch.no_grad()
def test_the_noise_is_heard_and_each_stage_has_its_own():
    theirs, spec = theirs_of("snac", torch.float64), spec_of("snac")
    codes = spec.split(spec.noise(23))
    whole = theirs(codes)
    noises = [m for m in theirs.modules() if isinstance(m, reference.Noise)]
    assert not torch.equal(noises[0].drawn, noises[1].drawn)
    for layer in noises:
        layer.drawn = layer.drawn.roll(1)
        assert error([theirs(codes)], [whole]) > 1e-2
        layer.drawn = layer.drawn.roll(-1)


def test_published_parameter_counts():
    """Of their own code: the decoder, each codebook's table and projection out of it; without weight norm.

    Beside them the hop and the look-ahead, both in samples.
    """
    snac = {"codebook_size": 4096, "latent_channels": 768, "channels": 1024, "depthwise": True, "noise": True}
    nets = {
        "snac 24 kHz": {"codebooks": (1, 2, 4), **snac},
        "dac 44 kHz": {},
        "dac 24 kHz": {"codebooks": (1,) * 32, "upsample_rates": (8, 5, 4, 2)},
        "dac 16 kHz": {"codebooks": (1,) * 12, "upsample_rates": (8, 5, 4, 2)},
    }
    found = {}
    for name, sizes in nets.items():
        with torch.device("meta"):
            net = DACGenerator(**sizes)
        count = sum(p.numel() for p in fold_parametrizations(net).parameters())
        bias = sizes.get("latent_channels", 1024)
        books = len(sizes.get("codebooks", (1,) * 9))
        found[name] = count + (books - 1) * bias, net.hop_length, net.receptive_field.lookahead
    assert found == {
        "snac 24 kHz": (13_121_025, 2048, 4757),
        "dac 44 kHz": (54_247_777, 512, 4757),
        "dac 24 kHz": (52_878_689, 320, 3141),
        "dac 16 kHz": (52_530_529, 320, 3141),
    }


def test_a_stream_of_noise_equals_the_whole_and_goes_on_after_its_end():
    layer = NoiseProduct().double()
    streams = Streams(
        lambda batch: streaming.init_state(layer, torch.zeros(batch, 2, 1, dtype=torch.float64)),
        lambda x, state, interior=False: streaming.step(layer, x, state, interior=interior),
        streaming.finish,
        streaming.reset,
        1,
        0,
    )
    x = torch.ones(2, 2, NOISE_COLUMNS + 900, dtype=torch.float64)
    whole = layer(x)
    assert torch.equal(whole[..., :900], whole[..., NOISE_COLUMNS:])
    assert not torch.equal(whole[..., 1:901], whole[..., NOISE_COLUMNS:])
    chunks = [1] * 30 + [7] * 30 + [NOISE_COLUMNS - 240, 900]
    for interior in (None, 3):
        assert torch.equal(chunk_by_chunk(streams, x, chunks, interior), whole)


# --- codes as frames


SNAC = spec_of("snac")


def test_frames_are_codebook_by_codebook_in_the_order_of_time():
    """As Orpheus's seven tokens are, in another order: c0, c1, c2, c2, c1, c2, c2."""
    coarse, middle, fine = torch.arange(3), 10 + torch.arange(6), 20 + torch.arange(12)
    frames = SNAC.join([coarse[None], middle[None], fine[None]])
    assert frames.shape == (1, 7, 3)
    assert frames[0, :, 1].tolist() == [1, 12, 13, 24, 25, 26, 27]
    assert torch.equal(SNAC.join([coarse, middle, fine]), frames)
    for frame in (frames, frames[0].numpy(), frames.float()):
        assert [part[0].tolist() for part in SNAC.split(frame)] == [
            p.tolist() for p in (coarse, middle, fine)
        ]
    numbers = []
    for i in range(3):
        seven = [
            coarse[i],
            middle[2 * i],
            *fine[4 * i : 4 * i + 2],
            middle[2 * i + 1],
            *fine[4 * i + 2 : 4 * i + 4],
        ]
        numbers += [10 + 4096 * place + int(code) for place, code in enumerate(seven)]
    orpheus = (np.array(numbers).reshape(-1, 7) - 10 - 4096 * np.arange(7)).T[ORPHEUS]
    assert np.array_equal(orpheus, frames[0])


@pytest.mark.parametrize(
    "wrong, said",
    [
        (lambda c: c[:2], r"expected 3 of \(batch, codes\) with 1, 2, 4 codes for each frame"),
        (lambda c: [c[0], c[1][:, :-1], c[2]], r"got shapes \(1, 4\), \(1, 7\), \(1, 16\)"),
        (lambda c: [c[0][0], *c[1:]], r"got shapes \(4,\)"),
        (lambda c: [part[:, :0] for part in c], "expected 3"),
        (lambda c: [], "got shapes none"),
        (lambda c: [c[0], c[1], c[2] + 32], r"got 3\d in row 3 of frame 0"),
    ],
)
def test_lists_of_other_lengths_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        SNAC.join(wrong(SNAC.split(SNAC.noise(4))))


@pytest.mark.parametrize(
    "kind", [np.int16, np.uint16, np.int64, np.float32, np.float64, torch.int32, torch.int64]
)
def test_codes_are_taken_in_any_type_of_numbers(kind):
    codes = SNAC.noise(5)[0]
    given = codes.to(kind) if isinstance(kind, torch.dtype) else codes.numpy().astype(kind)
    checked = SNAC.check(given)
    assert checked.dtype == torch.float32
    assert torch.equal(checked[0], codes)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda c: c.fill_(0).index_put_((torch.tensor(2), torch.tensor(4)), torch.tensor(32.0)),
         r"got 32 in row 2 of frame 4, expected whole numbers of 0 to 31"),
        (lambda c: c - 40, r"got -\d+ in row 0 of frame 0"),
        (lambda c: (c + 128266).long(), r"got 1282\d\d in row 0 of frame 0.*Take off what a language model adds"),
        (lambda c: c + 0.5, r"got \d+\.5 in row 0"),
        (lambda c: c.T, "looks transposed"),
        (lambda c: c.T.flatten().long(), r"codes\.reshape\(-1, 7\)\.T"),
        (lambda c: c[:6], "got 6 rows"),
        (lambda c: c * float("nan"), "NaN"),
        (lambda c: c > 3, "values of bool"),
        (lambda c: c[:, :0], "holds no frames"),
        (lambda c: c.tolist(), "got list"),
    ],
)  # fmt: skip
def test_what_is_no_code_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        SNAC.check(change(SNAC.noise(5)[0]))


def test_of_a_batch_the_item_is_named():
    codes = SNAC.noise(5).repeat(3, 1, 1)
    codes[2, 1, 3] = -1
    with pytest.raises(ValueError, match="got -1 in row 1 of frame 3 of item 2"):
        SNAC.check(codes)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"codebooks": (4, 2, 1)}, "the coarsest first, each a multiple of the one before"),
        ({"codebooks": (2, 3)}, "each a multiple"),
        ({"codebooks": ()}, "whole numbers above 0"),
        ({"codebooks": (1, 0)}, "whole numbers above 0"),
        ({"codebooks": [1, True]}, "whole numbers above 0"),
        ({"codebooks": 3}, "expected a list"),
        ({"codebooks": [1] * 5000}, "at most 4096"),
        ({"codebook_size": 0}, "codebook_size: got 0"),
        ({"hop_length": 2.0}, "hop_length: got 2.0"),
        ({"extra": 1}, "unknown or missing key extra"),
    ],
)
def test_a_spec_that_cannot_be_is_refused(change, said):
    with pytest.raises(ValueError, match=said):
        CodeSpec.from_dict(SNAC.to_dict() | change)
    assert CodeSpec.from_dict(json.loads(json.dumps(SNAC.to_dict()))) == SNAC


# --- files


def as_transformers_names(key):
    """`DacModel`'s name of a weight of the reference with two stages; None of what it hasn't."""
    found = re.fullmatch(r"decoder\.model\.(\d+)\.(?:block\.(\d)\.)?(?:block\.(\d)\.)?(\w+)", key)
    if not found:
        return key
    stage, part, inner, tensor = found.groups()
    if part is None:
        return f"decoder.{ {'0': 'conv1', '3': 'snake1', '4': 'conv2'}[stage] }.{tensor}"
    where = f"decoder.block.{int(stage) - 1}."
    if inner is None:
        return where + f"{('snake1', 'conv_t1')[int(part)]}.{tensor}"
    return where + f"res_unit{int(part) - 1}.{('snake1', 'conv1', 'snake2', 'conv2')[int(inner)]}.{tensor}"


def folder_of(kind, path):
    """A checkpoint as a project has it, and the codec that it holds."""
    path.mkdir()
    theirs = theirs_of("snac" if kind == "snac" else "dac")
    state = theirs.state_dict()
    config = {"sampling_rate": 24000}
    if kind == "snac":
        config |= {"vq_strides": [4, 2, 1], "attn_window_size": None, "noise": True, "decoder_rates": [4, 2]}
        torch.save(state, path / "pytorch_model.bin")
        (path / "config.json").write_text(json.dumps(config))
    elif kind == "descript":  # torch's older names of weight norm; its settings inside
        older = {
            "parametrizations.weight.original0": "weight_g",
            "parametrizations.weight.original1": "weight_v",
        }
        for new, old in older.items():
            state = {key.replace(new, old): value for key, value in state.items()}
        kwargs = {"sample_rate": 24000, "decoder_rates": [4, 2], "quantizer_dropout": 0.5, "latent_dim": None}
        torch.save(
            {"state_dict": state, "metadata": {"kwargs": kwargs, "logs": {"loss": [1.0]}}},
            path / "weights.pth",
        )
    elif kind == "parler":
        state = {f"audio_encoder.model.{key}": value for key, value in state.items()}
        state |= {
            "decoder.model.layers.0.fc1.weight": torch.ones(2, 2),
            "text_encoder.shared.weight": torch.ones(2, 2),
        }
        torch.save(state, path / "pytorch_model.bin")
        (path / "config.json").write_text(json.dumps({"audio_encoder": config}))
    else:
        plain = {}
        for key in state:
            stem = key.removesuffix("parametrizations.weight.original1")
            if stem != key:
                plain[stem + "weight"] = theirs.get_submodule(stem[:-1]).weight.detach()
            elif "original0" not in key:
                plain[key] = state[key]
        torch.save(
            {as_transformers_names(key): value for key, value in plain.items()}, path / "pytorch_model.bin"
        )
        (path / "config.json").write_text(json.dumps(config | {"model_type": "dac"}))
    return theirs


@pytest.mark.parametrize("kind", ["snac", "descript", "parler", "transformers"])
def test_a_folder_of_theirs_is_imported_vocodes_and_streams(kind, tmp_path):
    theirs = folder_of(kind, tmp_path / "in")
    spec = spec_of("snac" if kind == "snac" else "dac")
    described = import_checkpoint([tmp_path / "in"], tmp_path / "model")
    assert described.takes == spec
    assert any("noise" in note for note in described.notes) == (kind == "snac")
    codes = spec.noise(30)[0].long()
    lists = spec.split(codes)
    with torch.no_grad():
        expected = theirs(lists)
    vocoder = gansound.Vocoder.from_pretrained(tmp_path / "model", "cpu", backend="eager")
    assert vocoder.frame_spec == spec
    assert error([vocoder(spec.join(lists))], [expected]) <= 1e-5
    with vocoder.stream() as stream:
        parts = [stream.push(frame.numpy()) for frame in codes.split(1, -1)] + [stream.flush()]
    assert error([torch.from_numpy(np.concatenate(parts))[None]], [expected]) <= 1e-5
    batch = vocoder(torch.stack([codes, codes.flip(-1)]), lengths=[9, 30])
    with torch.no_grad():
        short = theirs(spec.split(codes[:, :9]))
    assert error([batch[:1, : short.shape[1]]], [short]) <= 1e-5


def test_what_a_stream_refuses_leaves_it_unharmed(tmp_path):
    folder_of("snac", tmp_path / "in")
    import_checkpoint([tmp_path / "in"], tmp_path / "model")
    vocoder = gansound.Vocoder.from_pretrained(tmp_path / "model", "cpu", backend="eager")
    codes = SNAC.noise(9)[0].long()
    with vocoder.stream() as stream:
        parts = [stream.push(codes[:, :4])]
        with pytest.raises(ValueError, match="got 4196 in row 0"):
            stream.push(codes[:, 4:] * 0 + 4196)
        parts += [stream.push(codes[:, 4:]), stream.flush()]
    assert error([torch.from_numpy(np.concatenate(parts))[None]], [vocoder(codes)]) <= 1e-5
    with pytest.raises(
        ValueError, match=r"the vocoder takes codes of 32 .*; expected one that takes mels alone"
    ):
        vocoder.as_module("transformers")
    with pytest.raises(ModelFolderError, match=r"takes codes of 32 .*expected a vocoder that takes mels"):
        vocoder.vocode_audio(np.zeros(2400, np.float32), 24000)


SECOND = "quantizer.quantizers.1"


def spoilt(path, change, config=None):
    folder_of("snac", path)
    state = torch.load(path / "pytorch_model.bin")
    change(state)
    torch.save(state, path / "pytorch_model.bin")
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "change, config, said",
    [
        (lambda s: s.update({"decoder.model.2.to_qkv.weight": torch.ones(3, 1)}), None, "attention over windows"),
        (lambda s: None, {"sampling_rate": 24000}, "no vq_strides in its configuration"),
        (lambda s: None, {"vq_strides": [4, 2, 1]}, "no sampling_rate in its configuration"),
        (lambda s: None, {"vq_strides": [4, 1], "sampling_rate": 24000}, "expected 3, one for each codebook"),
        (lambda s: None, {"vq_strides": [4, 3, 1], "sampling_rate": 24000}, "a divisor of the first"),
        (lambda s: None, {"vq_strides": [4, 2, 2], "sampling_rate": 24000}, "expected 1 of the finest"),
        (lambda s: None, {"vq_strides": [4, 1, 2], "sampling_rate": 24000}, "expected 1 of the finest"),
        (lambda s: None, {"vq_strides": "abc", "sampling_rate": 24000}, "can't be used"),
        (lambda s: s.pop(f"{SECOND}.out_proj.bias"), None, r"has no quantizer\.quantizers\.1\.out_proj\.bias"),
        (lambda s: s.update({f"{SECOND}.codebook.weight": torch.ones(31, 4)}), None, "codebooks of one size"),
        (lambda s: s.pop("decoder.model.2.block.0.alpha"), None, r"has no decoder\.model\.2\.block\.0\.alpha"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("decoder.")], None, "isn't that of DAC or SNAC"),
    ],
)  # fmt: skip
def test_what_is_no_such_codec_is_refused_by_name(change, config, said, tmp_path):
    spoilt(tmp_path / "in", change, config)
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint([tmp_path / "in"], tmp_path / "model")
    assert not (tmp_path / "model").exists()


class Told:
    """What a training may leave in the metadata."""


def test_metadata_that_is_more_than_plain_values_is_not_run(tmp_path):
    state = theirs_of("dac").state_dict()
    torch.save(
        {"state_dict": state, "metadata": {"kwargs": {"sample_rate": 1}, "x": Told()}},
        tmp_path / "weights.pth",
    )
    with pytest.raises(ImportFailed, match="holds more than tensors and plain values"):
        import_checkpoint([tmp_path / "weights.pth"], tmp_path / "model")


def test_a_generator_that_cannot_be_is_refused():
    for arguments, said in (
        ({"codebooks": (2, 1)}, "the coarsest first"),
        ({"channels": 24}, "channels 24 can't be halved by each of 4 stages"),
        ({"upsample_rates": (8, 1)}, "2 or more"),
    ):
        with pytest.raises(ValueError, match=said):
            DACGenerator(**arguments)


# --- the commands


@needs("onnx", "onnxscript", "onnxruntime")
def test_the_commands_take_codes(tmp_path, capfd, monkeypatch):
    theirs = folder_of("snac", tmp_path / "in")
    model = str(tmp_path / "model")
    assert main(["import", str(tmp_path / "in"), "-o", model]) == 0
    said = capfd.readouterr().out
    assert "takes codes of 32 from 3 codebooks (1, 2, 4 a frame), 24000 Hz, hop 32" in said
    codes = SNAC.noise(40)[0].long().numpy()
    np.save(tmp_path / "codes.npy", codes)
    with torch.no_grad():
        expected = theirs(SNAC.split(codes))[0].numpy()
    common = ["--model", model, "--backend", "eager"]
    for command in (["vocode", str(tmp_path / "codes.npy")], ["stream", "-i", str(tmp_path / "codes.npy")]):
        sound = tmp_path / f"{command[0]}.wav"
        assert (
            main([*command, *common, "-o", str(sound), *(["--bits", "32"] if command[0] == "vocode" else [])])
            == 0
        )
        read, rate = gansound.audio.read(sound)
        assert rate == 24000
        assert np.abs(np.asarray(read).ravel() - expected).max() < 1e-4
    codes[3, 5] = 99
    np.save(tmp_path / "codes.npy", codes)
    assert main(["vocode", str(tmp_path / "codes.npy"), *common, "-o", str(tmp_path / "no.wav")]) == 1
    assert "got 99 in row 3 of frame 5" in capfd.readouterr().err
    assert main(["stream", "-i", str(tmp_path / "codes.npy"), *common, "-o", str(tmp_path / "cut.wav")]) == 1
    assert "frame 5 (counted from 0) holds 99" in capfd.readouterr().err


@needs("onnx", "onnxscript", "onnxruntime")
@pytest.mark.usefixtures("traced_once")
def test_a_graph_of_it_says_that_it_takes_codes(tmp_path):
    """The one that `test_families.py` traces, over the shipped reader."""
    net = awake("snac", False, torch.float32, traced=True)
    spec = CodeSpec(FAMILIES["snac"].arguments["codebooks"], 4, 24000, net.hop_length)
    vocoder = gansound.Vocoder(LoadedModel(net, spec, {}, Path(), {}), "cpu", backend="eager")
    step = export_onnx(vocoder, tmp_path / "step.onnx", streaming=True)
    source = importlib.util.spec_from_file_location("onnx_reader", READER)
    reader = importlib.util.module_from_spec(source)
    source.loader.exec_module(reader)
    one = reader.Vocoder(str(step))
    assert one.mel_convention == spec.to_dict()
    codes = spec.noise(40)[0].long()
    parts = [one.push(part.numpy()) for part in codes.split(3, -1)] + [one.flush()]
    assert error([torch.from_numpy(np.concatenate(parts))[None]], [vocoder(codes)]) <= 1e-5
