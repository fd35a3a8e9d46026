"""The adapters inside the real libraries, with random weights: `pytest -m hosts`; skipped where one isn't installed.

The reference is the same host with its own vocoder left out: its spectrogram, vocoded by gansound directly.
"""

import importlib
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
import torch

from gansound.generators.hifigan import HiFiGANGenerator
from gansound.importers import import_checkpoint
from gansound.importers.back import export_checkpoint
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder, save_model_folder
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.hosts
HOP = 256


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return Vocoder.from_pretrained(str(folder), "cpu", backend="eager")


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def speech_t5(transformers):
    torch.manual_seed(0)
    small = {
        "hidden_size": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
    }
    heads = {
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "vocab_size": 20,
        "speaker_embedding_dim": 16,
    }
    config = transformers.SpeechT5Config(
        **small, **heads, speech_decoder_prenet_units=16, speech_decoder_postnet_units=16
    )
    return transformers.SpeechT5ForTextToSpeech(config).eval()


def given(model, **arguments):
    torch.manual_seed(1)  # its prenet drops out in inference too
    ids = torch.tensor([[5, 6, 7, 8]])
    speaker = torch.full((1, 16), 0.1)
    return model.generate_speech(ids, speaker, threshold=2.0, minlenratio=2.0, maxlenratio=4.0, **arguments)


def test_speech_t5_speaks_through_it(speech_t5, vocoder):
    spectrogram = given(speech_t5)
    assert spectrogram.shape[-1] == 80
    sound = given(speech_t5, vocoder=vocoder.as_module("transformers"))
    assert sound.shape == (len(spectrogram) * HOP,)
    assert sound.abs().max() > 1e-6
    torch.testing.assert_close(sound, vocoder(spectrogram.T)[0], rtol=0, atol=1e-6)


def test_speech_t5_gives_lengths_of_a_batch(speech_t5, vocoder):
    torch.manual_seed(1)
    waveforms, lengths = speech_t5.generate_speech(
        torch.tensor([[5, 6, 7, 8], [5, 6, 7, 1]]),
        torch.full((2, 16), 0.1),
        attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        threshold=2.0, maxlenratio=4.0, vocoder=vocoder.as_module("transformers"), return_output_lengths=True,
    )  # fmt: skip
    assert waveforms.shape == (2, max(lengths))
    assert all(length % HOP == 0 for length in lengths)


def test_fast_speech2_conformer_holds_it(transformers, vocoder):
    torch.manual_seed(0)
    small = {"hidden_size": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_linear_units": 32,
             "decoder_linear_units": 32, "encoder_num_attention_heads": 2, "decoder_num_attention_heads": 2,
             "vocab_size": 20, "speech_decoder_postnet_units": 16, "speech_decoder_postnet_layers": 2}  # fmt: skip
    acoustic = transformers.FastSpeech2ConformerConfig(**small)
    own = transformers.FastSpeech2ConformerHifiGanConfig(upsample_initial_channel=32)
    config = transformers.FastSpeech2ConformerWithHifiGanConfig(model_config=acoustic, vocoder_config=own)
    model = transformers.FastSpeech2ConformerWithHifiGan(config).eval()
    model.vocoder = vocoder.as_module("transformers")
    with torch.no_grad():
        output = model(torch.tensor([[5, 6, 7, 8, 9, 10]]))
    frames = output.spectrogram.shape[1]
    assert output.waveform.shape == (1, frames * HOP)
    torch.testing.assert_close(
        output.waveform, vocoder(output.spectrogram.transpose(1, 2)), rtol=0, atol=1e-6
    )


def test_its_own_vocoder_and_ours_agree_on_shapes(transformers, vocoder):
    torch.manual_seed(0)
    theirs = transformers.SpeechT5HifiGan(
        transformers.SpeechT5HifiGanConfig(upsample_initial_channel=32)
    ).eval()
    ours = vocoder.as_module("transformers")
    assert ours.config.sampling_rate
    assert ours.config.model_in_dim == theirs.config.model_in_dim
    for shape in ((7, 80), (2, 7, 80)):
        mel = torch.rand(shape) * 6 - 6
        with torch.no_grad():
            assert ours(mel).ndim == theirs(mel).ndim == len(shape) - 1


def test_the_pipeline_reads_its_rate(transformers, speech_t5, vocoder):
    pipeline = transformers.TextToAudioPipeline(
        model=speech_t5, tokenizer=None, vocoder=vocoder.as_module("transformers")
    )
    assert pipeline.sampling_rate == vocoder.sample_rate


def of(package):
    """A library, or the reason why it can't be tried."""
    try:
        return importlib.import_module(package)
    except Exception as error:
        pytest.skip(f"{package} doesn't load here: {error}")


def test_torchaudio_s_bundle_speaks_through_it(vocoder):
    pipelines = of("torchaudio.pipelines")
    models = of("torchaudio.models")
    bundle = pipelines.TACOTRON2_GRIFFINLIM_CHAR_LJSPEECH  # its get_tacotron2 would download weights
    torch.manual_seed(0)
    model = models.Tacotron2(
        n_symbol=len(bundle.get_text_processor().tokens), n_mels=80, decoder_max_step=12, decoder_early_stopping=False,
        encoder_embedding_dim=32, attention_rnn_dim=32, decoder_rnn_dim=32, symbol_embedding_dim=32, prenet_dim=16,
        postnet_embedding_dim=16,
    ).eval()  # fmt: skip
    with torch.no_grad():
        spec, frames, _ = model.infer(*bundle.get_text_processor()(["Hello there", "Hi"]))
    theirs, ours = bundle.get_vocoder(), vocoder.as_module("torchaudio")
    assert ours.sample_rate == theirs.sample_rate
    waveforms, lengths = ours(spec, frames)
    assert waveforms.shape == (2, spec.shape[-1] * HOP)
    assert lengths.tolist() == (frames * HOP).tolist()
    assert waveforms.ndim == theirs(spec, frames)[0].ndim
    for waveform, length, one, n in zip(waveforms, lengths, spec, frames, strict=True):
        torch.testing.assert_close(waveform[:length], vocoder(one[:, :n])[0], rtol=0, atol=1e-5)
        assert not waveform[length:].any()


@pytest.mark.parametrize("padding", ["center", "same"])
def test_vocos_speaks_through_its_import(tmp_path, padding):
    of("torchaudio")  # of its feature extractor
    vocos = of("vocos")
    import yaml

    def part(kind, **arguments):
        return {"class_path": f"vocos.{kind}", "init_args": arguments}

    config = {
        "feature_extractor": part("feature_extractors.MelSpectrogramFeatures", sample_rate=16000, n_fft=256,
                                  hop_length=64, n_mels=20, padding=padding),
        "backbone": part("models.VocosBackbone", input_channels=20, dim=16, intermediate_dim=32, num_layers=2),
        "head": part("heads.ISTFTHead", dim=16, n_fft=256, hop_length=64, padding=padding),
    }  # fmt: skip
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    theirs = vocos.Vocos.from_hparams(str(folder / "config.yaml")).eval()
    with torch.no_grad():
        theirs.head.out.bias[:129] += 2  # as drawn, hardly anything comes through
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    import_checkpoint([folder], tmp_path / "ours")
    ours = Vocoder.from_pretrained(tmp_path / "ours", "cpu", backend="eager").as_module("vocos")
    audio = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)) / 10
    mel = theirs.feature_extractor(audio)
    sound = theirs.decode(mel)
    assert sound.square().mean().sqrt() > 0.01
    torch.testing.assert_close(ours.decode(mel), sound, rtol=0, atol=1e-5)
    theirs.decode = ours.decode  # inside Vocos's own copy synthesis
    torch.testing.assert_close(theirs(audio), sound, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        ours(audio)[:, : sound.shape[1]], sound, rtol=0, atol=1e-3
    )  # its own front end


def test_vits_speaks_through_its_imported_decoder(transformers, tmp_path):
    torch.manual_seed(0)
    config = transformers.VitsConfig(
        vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, ffn_dim=16, flow_size=20,
        spectrogram_bins=17, prior_encoder_num_flows=2, prior_encoder_num_wavenet_layers=1,
        posterior_encoder_num_wavenet_layers=1, duration_predictor_num_flows=1, num_speakers=3,
        speaker_embedding_size=6, upsample_initial_channel=32, upsample_rates=[4, 2], upsample_kernel_sizes=[8, 4],
        resblock_kernel_sizes=[3, 5], resblock_dilation_sizes=[[1, 3], [1, 2]],
    )  # fmt: skip
    model = transformers.VitsModel(config).eval()
    with torch.no_grad():  # as drawn, hardly anything comes through
        for parameter in model.decoder.parameters():
            parameter.mul_(8 if parameter.ndim == 3 else 1)
    model.save_pretrained(tmp_path / "theirs")
    import_checkpoint([tmp_path / "theirs"], tmp_path / "ours", speaker="1")
    vocoder = Vocoder.from_pretrained(tmp_path / "ours", "cpu", backend="eager")
    latent = torch.randn(2, 20, 31)
    with torch.no_grad():
        speaker = model.embed_speaker(torch.tensor([1]))[..., None]
        expected = model.decoder(latent, speaker)[:, 0]
    assert expected.square().mean().sqrt() > 0.1
    torch.testing.assert_close(vocoder(latent), expected, rtol=0, atol=1e-5)
    with vocoder.stream() as stream:
        parts = [stream.push(latent[0, :, i : i + 6]) for i in range(0, 31, 6)] + [stream.flush()]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(parts)), expected[0], rtol=0, atol=1e-5)

    def spoken():
        torch.manual_seed(1)
        with torch.no_grad():
            return model(torch.tensor([[1, 2, 3, 4, 5]]), speaker_id=1).waveform

    whole = spoken()
    model.decoder = vocoder.as_module("vits")
    torch.testing.assert_close(spoken(), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("normalized", [False, True])
def test_speech_t5s_hifigan_loads_what_is_exported(transformers, tmp_path, normalized):
    sizes = {
        "channels": 32, "upsample_rates": [4, 4, 4, 4], "upsample_kernel_sizes": [8, 8, 8, 8],
        "residual_kernel_sizes": [3, 7], "residual_dilations": [[1, 3], [1, 5]],
    }  # fmt: skip
    spec = MelSpec.preset("speecht5")
    if normalized:
        values = {"mean": [b / 20 - 5 for b in range(80)], "scale": [1 + b / 80 for b in range(80)]}
        spec = MelSpec.from_dict(spec.to_dict() | values)
    torch.manual_seed(0)
    generator = HiFiGANGenerator(**sizes)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            parameter.mul_(2.5 if name.endswith("original0") else 1.0)
    config = {"class_path": "gansound.generators.hifigan.HiFiGANGenerator", "init_args": sizes}
    ours = load_model_folder(save_model_folder(tmp_path / "ours", generator, spec, config=config))
    export_checkpoint(ours, tmp_path / "theirs", "transformers")
    theirs, report = transformers.SpeechT5HifiGan.from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    raw = torch.randn(40, 80, generator=torch.Generator().manual_seed(2)) * 1.5 - 3
    own = MelSpec.from_dict(spec.to_dict() | {"mean": [0.0], "scale": [1.0]}).convert(raw.T, spec)
    with torch.no_grad():
        expected = theirs.eval()(raw)
        assert expected.square().mean().sqrt() > 0.1
        torch.testing.assert_close(ours.generator(own[None])[0], expected, rtol=0, atol=1e-5)
    theirs.save_pretrained(tmp_path / "resaved")  # by transformers itself, the mel carried along
    assert import_checkpoint([tmp_path / "resaved"], tmp_path / "again").takes == spec


SHERPA = """
import sys
import numpy as np
import sherpa_onnx

folder, vocoder = sys.argv[1:]
matcha = sherpa_onnx.OfflineTtsMatchaModelConfig(
    acoustic_model=f"{folder}/acoustic.onnx", vocoder=vocoder, lexicon=f"{folder}/lexicon.txt",
    tokens=f"{folder}/tokens.txt", data_dir="",
)
model = sherpa_onnx.OfflineTtsModelConfig(matcha=matcha, provider="cpu", num_threads=1)
audio = sherpa_onnx.OfflineTts(sherpa_onnx.OfflineTtsConfig(model=model)).generate("\u4f60\u597d", sid=0, speed=1.0)
np.save(f"{folder}/sound.npy", np.array(audio.samples, np.float32))
"""


def save_acoustic_model(folder, mel):
    """What sherpa-onnx takes for a Matcha model: it says the same mel whatever it is to say."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    inputs = [
        helper.make_tensor_value_info("x", TensorProto.INT64, ["N", "L"]),
        helper.make_tensor_value_info("x_length", TensorProto.INT64, ["N"]),
        helper.make_tensor_value_info("noise_scale", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("length_scale", TensorProto.FLOAT, [1]),
    ]
    outputs = [helper.make_tensor_value_info("mel", TensorProto.FLOAT, list(mel.shape))]
    node = helper.make_node("Identity", ["said"], ["mel"])
    graph = helper.make_graph([node], "matcha", inputs, outputs, [numpy_helper.from_array(mel, "said")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    about = {"model_type": "matcha-tts", "language": "Chinese", "voice": "zh", "has_espeak": "0", "jieba": "1",
             "n_speakers": "1", "sample_rate": "22050", "version": "1", "pad_id": "0", "use_eos_bos": "0",
             "num_ode_steps": "3"}  # fmt: skip
    helper.set_model_props(model, about)
    onnx.save(model, folder / "acoustic.onnx")
    (folder / "tokens.txt").write_text("_ 0\na 1\nb 2\n")
    (folder / "lexicon.txt").write_text("\u4f60 a b\n\u597d b a\n")


def test_sherpa_onnx_speaks_through_it_and_refuses_the_step_of_a_stream(vocoder, tmp_path):
    for package in ("sherpa_onnx", "onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    from gansound.inference.export import export_onnx

    mel = np.random.default_rng(0).normal(-5, 1.5, (1, 80, 40)).astype(np.float32)
    save_acoustic_model(tmp_path, mel)
    whole = export_onnx(vocoder, tmp_path / "whole.onnx", more={"model_type": "hifigan"})
    step = export_onnx(vocoder, tmp_path / "step.onnx", streaming=True)

    def said(file):
        # Another process: it brings an ONNX Runtime of its own, and might die.
        command = [sys.executable, "-c", SHERPA, str(tmp_path), str(file)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = said(whole)
    assert done.returncode == 0, done.stderr
    expected = vocoder(mel, warn=False)[0].numpy()
    assert np.sqrt((expected**2).mean()) > 0.01
    np.testing.assert_allclose(np.load(tmp_path / "sound.npy"), expected, atol=1e-5)
    done = said(step)
    assert done.returncode == 1, f"ended with {done.returncode}"  # a crash is a signal's number
    assert "RuntimeError" in done.stderr
