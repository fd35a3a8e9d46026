"""The adapters inside the real libraries, with random weights: `pytest -m hosts`; skipped where one isn't installed.

The reference is the same host with its own vocoder left out: its spectrogram, vocoded by gansound directly; or the
host's own vocoder, imported.
"""

import importlib
import importlib.util
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from gansound.audio import resample
from gansound.importers import import_checkpoint
from gansound.inference.vocoder import Vocoder
from gansound.metrics.pesq import pesq_wb
from tests.tiny import save_tiny_model

pytestmark = pytest.mark.hosts
HOP = 256


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory):
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
    return Vocoder.from_pretrained(str(folder), "cpu", backend="eager")


def of(package):
    """A library, or the reason why it can't be tried."""
    try:
        return importlib.import_module(package)
    except Exception as error:
        pytest.skip(f"{package} doesn't load here: {error}")


@torch.no_grad()
def raise_to_speech(last, sound):
    """Scale a net's last layer until its sound has an RMS of 0.1 to 0.2: as drawn, hardly anything comes through."""
    gains = [p for name, p in last.named_parameters() if name.endswith(("original0", "weight_g"))]
    for _ in range(100):
        if sound().square().mean().sqrt() > 0.12:
            return
        for gain in gains:
            gain.mul_(1.3)


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
        theirs.head.out.bias[:129] += 4.5  # as drawn, hardly anything comes through
    torch.save(theirs.state_dict(), folder / "pytorch_model.bin")
    import_checkpoint([folder], tmp_path / "ours")
    ours = Vocoder.from_pretrained(tmp_path / "ours", "cpu", backend="eager").as_module("vocos")
    audio = torch.randn(2, 4000, generator=torch.Generator().manual_seed(1)) / 10
    mel = theirs.feature_extractor(audio)
    sound = theirs.decode(mel)
    assert sound.square().mean().sqrt() > 0.1
    torch.testing.assert_close(ours.decode(mel), sound, rtol=0, atol=1e-5)
    theirs.decode = ours.decode  # inside Vocos's own copy synthesis
    torch.testing.assert_close(theirs(audio), sound, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        ours(audio)[:, : sound.shape[1]], sound, rtol=0, atol=1e-3
    )  # its own front end


def test_default_speaks_the_mels_of_vocos_itself():
    """By its own front end at 24 kHz, which is that of F5-TTS too."""
    of("torchaudio")
    features = of("vocos.feature_extractors").MelSpectrogramFeatures(sample_rate=24000)
    default = Vocoder.from_pretrained("default", "cpu", mel="vocos_24khz", backend="eager")
    speech, rate = soundfile.read("samples/allison_hold.flac", dtype="float32")
    speech = resample(speech, rate, 24000)
    mel = features(torch.from_numpy(speech)[None])
    torch.testing.assert_close(mel, default.mel_spec.mel(torch.from_numpy(speech)[None]), rtol=0, atol=1e-3)
    made = default.as_module("vocos").decode(mel)[0].numpy()
    assert pesq_wb(speech[: len(made)], made, 24000) > 3.5


@pytest.fixture
def coqui(tmp_path):
    """Coqui's `Synthesizer` with a small GlowTTS of random weights, without a vocoder; folder of what it loaded."""
    synthesizer = of("TTS.utils.synthesizer")
    config = of("TTS.tts.configs.glow_tts_config").GlowTTSConfig(
        use_phonemes=False, text_cleaner="basic_cleaners", length_scale=3.0, num_flow_blocks_dec=2, num_block_layers=1,
        hidden_channels_enc=16, hidden_channels_dec=16, hidden_channels_dp=16, inference_noise_scale=0.0,
        encoder_params={"kernel_size": 3, "dropout_p": 0.0, "num_layers": 1, "num_heads": 2,
                        "hidden_channels_ffn": 16, "input_length": None},
    )  # fmt: skip
    config.audio.update(
        {"signal_norm": False, "do_trim_silence": False, "log_func": "np.log", "spec_gain": 1.0}
    )
    torch.manual_seed(0)
    model = of("TTS.tts.models.glow_tts").GlowTTS(config)
    model.config.save_json(tmp_path / "tts.json")
    torch.save({"model": model.state_dict(), "step": 0, "epoch": 0}, tmp_path / "tts.pth")
    return synthesizer.Synthesizer(
        tts_checkpoint=tmp_path / "tts.pth", tts_config_path=tmp_path / "tts.json"
    ), tmp_path


def spoken_by_coqui(synthesizer, heard=None):
    """The sound without the silence at its end; the mel that the vocoder was given goes into `heard`."""
    model = synthesizer.vocoder_model
    own = model.inference
    model.inference = lambda mel: (heard.append(mel) if heard is not None else None, own(mel))[1]
    try:
        sound = synthesizer.tts("hello world", split_sentences=False)
    finally:
        model.inference = own
    return torch.tensor(np.array(sound, np.float32))[: -of("TTS.utils.synthesizer").PAD_SILENCE_SAMPLES]


def test_coqui_s_synthesizer_speaks_through_it(coqui, vocoder):
    synthesizer, _ = coqui
    synthesizer.vocoder_model = vocoder.as_module("coqui")
    synthesizer.vocoder_ap = synthesizer.tts_model.ap  # the mels are taken as the acoustic model makes them
    synthesizer.vocoder_config = {"audio": {"sample_rate": vocoder.sample_rate}}
    heard = []
    sound = spoken_by_coqui(synthesizer, heard)
    (mel,) = heard
    assert sound.shape == (mel.shape[-1] * HOP,)
    assert sound.abs().max() > 1e-6
    torch.testing.assert_close(sound, vocoder(mel)[0], rtol=0, atol=1e-6)


def test_coqui_s_own_hifigan_sounds_the_same_imported(coqui):
    synthesizer, folder = coqui
    config = of("TTS.vocoder.configs").HifiganConfig()
    config.generator_model_params |= {"upsample_initial_channel": 32}
    config.audio.update({"signal_norm": False, "log_func": "np.log", "spec_gain": 1.0})
    torch.manual_seed(1)
    theirs = of("TTS.vocoder.models").setup_model(config)
    raise_to_speech(theirs.model_g.conv_post, lambda: theirs.model_g(torch.randn(1, 80, 20) - 5))
    (folder / "vocoder").mkdir()
    config.save_json(folder / "vocoder" / "config.json")
    torch.save({"model": theirs.state_dict()}, folder / "vocoder" / "model.pth")
    synthesizer._load_vocoder(
        str(folder / "vocoder" / "model.pth"), str(folder / "vocoder" / "config.json"), use_cuda=False
    )
    heard = []
    expected = spoken_by_coqui(synthesizer, heard)
    assert expected.square().mean().sqrt() > 0.1
    import_checkpoint([folder / "vocoder"], folder / "ours")
    ours = Vocoder.from_pretrained(folder / "ours", "cpu", backend="eager")
    padded = torch.nn.functional.pad(heard[0], (5, 5), mode="replicate")  # docs/hosts.md, Coqui's padding
    torch.testing.assert_close(ours(padded)[0], expected, rtol=0, atol=1e-5)
    synthesizer.vocoder_model = ours.as_module("coqui")
    sound = spoken_by_coqui(synthesizer)
    torch.testing.assert_close(sound, ours(heard[0])[0], rtol=0, atol=1e-6)


def test_espnet_s_text2speech_speaks_through_it(vocoder, tmp_path):
    Text2Speech = of("espnet2.bin.tts_inference").Text2Speech
    import yaml

    config = {
        "token_list": ["<blank>", "<unk>", "a", "b", "c", "<sos/eos>"], "odim": 80, "feats_extract": None,
        "feats_extract_conf": {}, "normalize": None, "tts": "fastspeech", "model_conf": {}, "use_preprocessor": False,
        "tts_conf": {"adim": 16, "aheads": 2, "elayers": 1, "eunits": 16, "dlayers": 1, "dunits": 16,
                     "postnet_layers": 1, "postnet_chans": 16, "duration_predictor_chans": 16},
    }  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    text2speech = Text2Speech(tmp_path / "config.yaml")
    assert text2speech.vocoder is None
    text2speech.vocoder = vocoder.as_module("espnet")
    output = text2speech(torch.tensor([2, 3, 4, 2, 3]))
    mel = output["feat_gen"]
    assert mel.shape[1:] == (80,)
    assert output["wav"].shape == (len(mel) * HOP,)
    torch.testing.assert_close(output["wav"], vocoder(mel.T)[0], rtol=0, atol=1e-6)
    assert text2speech.fs == vocoder.sample_rate


def test_matcha_speaks_through_it(vocoder):
    cli, denoiser = of("matcha.cli"), of("matcha.hifigan.denoiser")
    encoder = {"n_feats": 80, "n_channels": 16, "filter_channels": 16, "filter_channels_dp": 16, "n_heads": 2,
               "n_layers": 1, "kernel_size": 3, "p_dropout": 0.0, "prenet": True}  # fmt: skip
    durations = {"filter_channels_dp": 16, "kernel_size": 3, "p_dropout": 0.0}
    torch.manual_seed(0)
    model = of("matcha.models.matcha_tts").MatchaTTS(
        n_vocab=12, n_spks=1, spk_emb_dim=4, n_feats=80, out_size=None,
        encoder=SimpleNamespace(encoder_type="RoPE Encoder", encoder_params=SimpleNamespace(**encoder),
                                duration_predictor_params=SimpleNamespace(**durations)),
        decoder={"channels": [32, 32], "dropout": 0.0, "attention_head_dim": 16, "n_blocks": 1, "num_mid_blocks": 1,
                 "num_heads": 2, "act_fn": "snakebeta"},
        cfm=SimpleNamespace(solver="euler", sigma_min=1e-4),
        data_statistics={"mel_mean": -5.5, "mel_std": 2.0},
    ).eval()  # fmt: skip
    ids = torch.tensor([[1, 2, 3, 4, 5, 6]])
    mel = model.synthesise(ids, torch.tensor([6]), n_timesteps=2, length_scale=2.0)["mel"]
    module = vocoder.as_module("matcha")
    sound = cli.to_waveform(mel, module)
    assert sound.shape == (mel.shape[-1] * HOP,)
    assert sound.abs().max() > 1e-6
    torch.testing.assert_close(sound, vocoder(mel)[0].clamp(-1, 1), rtol=0, atol=1e-6)
    quieter = cli.to_waveform(mel, module, denoiser.Denoiser(module, mode="zeros"))
    assert quieter.shape == sound.shape
    assert not torch.equal(quieter, sound)


def test_nemo_s_hifigan_sounds_the_same_imported(tmp_path):
    models = of("nemo.collections.tts.models")
    preprocessor = {
        "_target_": "nemo.collections.asr.parts.preprocessing.features.FilterbankFeatures", "nfilt": 80,
        "highfreq": 8000, "lowfreq": 0, "mag_power": 1.0, "n_fft": 1024, "n_window_size": 1024, "n_window_stride": 256,
        "normalize": None, "log": True, "log_zero_guard_type": "clamp", "log_zero_guard_value": 1e-5,
        "pad_to": 0, "preemph": None, "sample_rate": 22050, "window": "hann", "dither": 0.0, "exact_pad": True,
    }  # fmt: skip
    generator = {
        "_target_": "nemo.collections.tts.modules.hifigan_modules.Generator", "resblock": 1,
        "upsample_rates": [8, 8, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4], "upsample_initial_channel": 32,
        "resblock_kernel_sizes": [3, 7], "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5]],
    }  # fmt: skip
    torch.manual_seed(0)
    corpus = {
        "dataset": {"_target_": "nemo.collections.tts.data.dataset.VocoderDataset"},
        "defer_setup": True,
    }
    config = {"preprocessor": preprocessor, "generator": generator, "train_ds": corpus}
    theirs = models.HifiGanModel(of("omegaconf").OmegaConf.create(config)).eval()
    mel = torch.randn(2, 80, 31) * 1.5 - 5
    raise_to_speech(theirs.generator.conv_post, lambda: theirs.convert_spectrogram_to_audio(spec=mel))
    theirs.save_to(str(tmp_path / "theirs.nemo"))
    import_checkpoint([tmp_path / "theirs.nemo"], tmp_path / "ours")
    ours = Vocoder.from_pretrained(tmp_path / "ours", "cpu", backend="eager")
    module = ours.as_module("nemo")
    with torch.no_grad():
        expected = theirs.convert_spectrogram_to_audio(spec=mel)
        assert expected.square().mean().sqrt() > 0.1
        torch.testing.assert_close(module.convert_spectrogram_to_audio(spec=mel), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(module(spec=mel), theirs(spec=mel), rtol=0, atol=1e-5)
        audio = torch.randn(1, 256 * 40) / 10
        own, length = theirs.audio_to_melspec_precessor(audio, torch.tensor([audio.shape[1]]))
        frames = int(length[0])  # the last, which reaches past the end by its exact pad, it sets to zero
        assert frames >= 39
        made = ours.mel_spec.mel(audio)[..., :frames]
        torch.testing.assert_close(made, own[..., :frames], rtol=0, atol=1e-3)


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
    assert np.sqrt((expected**2).mean()) > 0.02
    np.testing.assert_allclose(np.load(tmp_path / "sound.npy"), expected, atol=2e-6)
    done = said(step)
    assert done.returncode == 1, f"ended with {done.returncode}"  # a crash is a signal's number
    assert "RuntimeError" in done.stderr


@torch.inference_mode()
def test_xtts_s_decoder_sounds_the_same_imported_whole_streamed_and_inside_it(tmp_path):
    of("TTS.tts.layers.xtts.hifigan_decoder")
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

    torch.manual_seed(0)
    theirs = HifiDecoder(decoder_input_dim=20).eval()
    voice, latents = torch.randn(1, 512, 1), torch.randn(1, 25, 20)
    raise_to_speech(theirs.waveform_decoder.conv_post, lambda: theirs(latents, g=voice))
    expected = theirs(latents, g=voice).flatten()
    assert expected.square().mean().sqrt() > 0.1
    state = {f"hifigan_decoder.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"model": state, "config": XttsConfig()}, tmp_path / "model.pth")
    torch.save({"speaker_embedding": voice}, tmp_path / "voice.pth")
    import_checkpoint([tmp_path / "model.pth"], tmp_path / "ours", voice=tmp_path / "voice.pth")
    vocoder = Vocoder.from_pretrained(str(tmp_path / "ours"), "cpu", backend="eager")
    spec = vocoder.frame_spec
    torch.testing.assert_close(vocoder(spec.interpolate(latents.mT))[0], expected, atol=1e-5, rtol=0)
    interpolation = spec.interpolation()
    with vocoder.stream() as stream:
        parts = [stream.push(interpolation.push(latent.T)) for latent in latents[0].split(1)]
        parts += [stream.push(interpolation.flush()), stream.flush()]
    np.testing.assert_allclose(np.concatenate(parts), expected.numpy(), atol=1e-5)
    theirs.waveform_decoder = vocoder.as_module("vits")
    torch.testing.assert_close(theirs(latents, g=voice).flatten(), expected, atol=1e-5, rtol=0)
