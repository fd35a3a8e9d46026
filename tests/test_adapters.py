"""A vocoder in the shape of each host, against what the host's documentation says its own vocoder takes and gives."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gansound.adapters import HOSTS
from gansound.generators.hifigan import HiFiGANGenerator
from gansound.generators.melgan import MelGANGenerator
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.model_folder import LoadedModel, save_model_folder
from tests.tiny import save_tiny_model

FRAMES, HOP = 9, 256


@pytest.fixture(scope="module")
def vocoder(tmp_path_factory):
    return Vocoder.from_pretrained(
        str(save_tiny_model(tmp_path_factory.mktemp("tiny") / "model")), "cpu", backend="eager"
    )


@pytest.fixture(scope="module")
def mel():
    """`(B, M, F)`, as speech is: between the floor and a little above 0."""
    return torch.rand(2, 80, FRAMES, generator=torch.Generator().manual_seed(0)) * 6 - 6


@pytest.fixture(scope="module")
def sound(vocoder, mel):
    whole = vocoder(mel)
    assert whole.square().mean().sqrt() > 1e-4
    assert whole.shape == (2, FRAMES * HOP)
    return whole


def test_transformers_takes_time_before_bands(vocoder, mel, sound):
    module = vocoder.as_module("transformers")
    assert module.config.sampling_rate == vocoder.sample_rate
    assert torch.equal(module(mel.transpose(1, 2)), sound)
    torch.testing.assert_close(module(mel[1].T), sound[1], rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"\(2, 80, 9\).*time before bands"):
        module(mel)


def test_torchaudio_takes_and_gives_lengths(vocoder, mel, sound):
    module = vocoder.as_module("torchaudio")
    assert module.sample_rate == vocoder.sample_rate
    whole, none = module(mel, None)
    assert none is None
    assert torch.equal(whole, sound)
    waveforms, lengths = module(mel, torch.tensor([FRAMES, 5], dtype=torch.int32))
    assert lengths.tolist() == [FRAMES * HOP, 5 * HOP]
    assert waveforms.shape == sound.shape
    torch.testing.assert_close(waveforms[0], sound[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(waveforms[1, : 5 * HOP], vocoder(mel[1:, :, :5])[0], rtol=0, atol=1e-6)
    assert waveforms[1, 5 * HOP :].count_nonzero() == 0


def test_espnet_takes_one_utterance_and_names_its_rate(vocoder, mel, sound):
    module = vocoder.as_module("espnet")
    assert module.fs == vocoder.sample_rate
    torch.testing.assert_close(module(mel[0].T), sound[0], rtol=0, atol=1e-6)


def test_vocos_decodes_and_copies(vocoder, mel, sound):
    module = vocoder.as_module("vocos")
    assert torch.equal(module.decode(mel), sound)
    audio = torch.randn(1, 20 * HOP, generator=torch.Generator().manual_seed(1)) / 10
    assert torch.equal(module(audio), vocoder(vocoder.mel_spec.mel(audio)))
    spec = MelSpec.preset("tacotron2")
    generator = MelGANGenerator(channels=16, upsample_rates=(8, 8, 2, 2))
    centred = Vocoder(LoadedModel(generator, spec, {}, Path(), {}), "cpu", backend="eager")
    assert centred.mel_spec.framing == "center"
    made = centred.as_module("vocos").decode(mel)
    assert torch.equal(made, centred(mel)[:, : (FRAMES - 1) * HOP])


@pytest.mark.parametrize(
    "host, call",
    [
        ("coqui", lambda module, mel: module.inference(mel)),
        ("nemo", lambda module, mel: module(spec=mel)),
        ("matcha", lambda module, mel: module(mel)),
    ],
)
def test_these_give_one_channel(vocoder, mel, sound, host, call):
    module = vocoder.as_module(host)
    assert torch.equal(call(module, mel), sound[:, None])


def test_nemo_converts_without_a_channel(vocoder, mel, sound):
    assert torch.equal(vocoder.as_module("nemo").convert_spectrogram_to_audio(spec=mel), sound)


@pytest.mark.parametrize("host", sorted({*HOSTS} - {"vits"}))  # which takes latents: tests/test_vits.py
def test_every_module_behaves_as_one_inside_its_host(vocoder, mel, host):
    module = vocoder.as_module(host)
    parent = torch.nn.ModuleDict({"vocoder": module})
    assert next(module.parameters()).device == vocoder.device
    parent.train()
    parent.half().to("cpu").eval()
    assert not module.training
    assert next(module.parameters()).dtype == torch.float32
    assert module.sample_rate == vocoder.sample_rate
    assert any(name.startswith("vocoder.generator.") for name in parent.state_dict())


def test_a_module_moves_its_vocoder_to_the_hosts_device(tmp_path):
    vocoder = Vocoder.from_pretrained(str(save_tiny_model(tmp_path / "model")), "cpu", backend="eager")
    moved = []
    vocoder.to = moved.append
    module = vocoder.as_module("coqui")
    module.to("cpu")
    assert moved == []
    module.to("meta")
    assert moved == [torch.device("meta")]


def quieter(module):
    """The same module with other weights, as a fine-tuning in the host leaves it."""
    with torch.no_grad():
        for weight in module.parameters():
            weight.mul_(0.9)
    return module


def test_weights_that_change_in_a_host_are_heard(tmp_path, mel):
    vocoder = Vocoder.from_pretrained(str(save_tiny_model(tmp_path / "model")), "cpu", backend="eager")
    module = vocoder.as_module("matcha")
    before, runner = module(mel), vocoder.runner("short")
    assert vocoder.runner("short") is runner  # nothing is made anew where nothing has changed
    stream = vocoder.stream()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    after = quieter(module)(mel)
    assert (after - before).abs().max() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(after[:, 0], vocoder.generator(mel), rtol=1e-4, atol=1e-5)
    with vocoder.stream() as anew:
        streamed = torch.from_numpy(np.concatenate([anew.push(mel[0].numpy()), anew.flush()]))
    torch.testing.assert_close(streamed, after[0, 0], rtol=0, atol=1e-5)
    old = torch.from_numpy(np.concatenate([stream.push(mel[0].numpy()), stream.flush()]))
    torch.testing.assert_close(old, before[0, 0], rtol=0, atol=1e-5)
    module.load_state_dict(state)
    assert torch.equal(module(mel), before)


def test_matchas_denoiser_tries_zeros_without_a_warning(tmp_path, mel, caplog):
    module = Vocoder.from_pretrained(
        str(save_tiny_model(tmp_path / "model")), "cpu", backend="eager"
    ).as_module("matcha")
    module(torch.zeros(1, mel.shape[1], 88))
    assert not caplog.records
    module(torch.full((1, mel.shape[1], 88), 1e-3))  # as little a mel, and said
    assert caplog.records


@pytest.mark.parametrize("how", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
@pytest.mark.parametrize("host", ["transformers", "matcha"])
def test_a_copy_of_a_host_has_weights_of_its_own_as_they_are(tmp_path, mel, how, host):
    vocoder = Vocoder.from_pretrained(str(save_tiny_model(tmp_path / "model")), "cpu", backend="eager")
    parent = torch.nn.ModuleDict({"vocoder": quieter(vocoder.as_module(host))})
    given = mel.transpose(1, 2) if host == "transformers" else mel
    expected = parent["vocoder"](given)
    again = how(how(parent))["vocoder"]
    assert torch.equal(again(given), expected)
    assert again.vocoder.generator is again.generator
    quieter(again)
    assert not torch.equal(again(given), expected)
    assert torch.equal(parent["vocoder"](given), expected)


def test_a_module_with_weight_norm_can_be_sent(tmp_path, mel):
    """Folded weights keep hooks that no pickle holds."""
    spec, config = MelSpec.preset("hifigan"), {"init_args": {"channels": 32}}
    config["class_path"] = "gansound.generators.hifigan.HiFiGANGenerator"
    save_model_folder(tmp_path / "model", HiFiGANGenerator(channels=32), spec, config=config)
    module = Vocoder.from_pretrained(tmp_path / "model", "cpu", backend="eager").as_module("matcha")
    torch.save(torch.nn.Sequential(module), tmp_path / "host.pt")
    again = torch.load(tmp_path / "host.pt", weights_only=False)
    assert torch.equal(again(mel), module(mel))


def test_another_host_is_refused(vocoder):
    with pytest.raises(ValueError, match="got host 'tacotron', expected one of transformers, "):
        vocoder.as_module("tacotron")


def test_no_host_is_imported():
    script = "import gansound.adapters, sys; from importlib import import_module\n"
    script += "for host in gansound.adapters.HOSTS: import_module('gansound.adapters.' + host)\n"
    script += "print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not set(done.stdout.split()) & {*HOSTS, "TTS", "espnet2"}
