"""The adapters inside transformers, with random weights: `pytest -m hosts`; skipped where it isn't installed.

The reference is the same host with its own vocoder left out: its spectrogram, vocoded by gansound directly.
"""

import numpy as np
import pytest
import soundfile
import torch

from gansound.audio import resample
from gansound.generators.hifigan import HiFiGANGenerator
from gansound.importers import import_checkpoint
from gansound.importers.back import export_checkpoint
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.metrics.pesq import pesq_wb
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


def test_default_speaks_the_mels_of_speech_t5_itself(transformers, speech_t5):
    """By its own feature extractor, and inside it at its 16 kHz."""
    features = transformers.SpeechT5FeatureExtractor()
    default = Vocoder.from_pretrained("default", "cpu", mel="speecht5", backend="eager")
    speech, rate = soundfile.read("samples/allison_hold.flac", dtype="float32")
    speech = resample(speech, rate, 16000)
    mel = torch.tensor(features(audio_target=speech, sampling_rate=16000)["input_values"][0])
    module = default.as_module("transformers")
    made = module(mel).numpy()
    assert module.config.sampling_rate == 16000
    assert pesq_wb(speech[: len(made)], made[: len(speech)], 16000) > 2.9
    spectrogram = given(speech_t5)
    sound = given(speech_t5, vocoder=module)
    torch.testing.assert_close(sound, default(spectrogram.T, warn=False)[0], rtol=0, atol=1e-6)


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
