"""Coqui's HiFi-GANs and MelGANs: its names, its mels, and the frames that its inference repeats."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch.nn import functional

from gansound.importers import ImportFailed, import_checkpoint
from gansound.mel import MelSpec
from tests.reference import hifigan, melgan
from tests.test_importers import HIFIGAN, SIZES, assert_same, heard, in_stacks, loud, mels, write

AUDIO = {
    "sample_rate": 16000, "fft_size": 64, "win_length": 64, "hop_length": 8, "num_mels": 20, "mel_fmin": 0.0,
    "mel_fmax": 7000.0, "log_func": "np.log10", "spec_gain": 20, "signal_norm": True, "min_level_db": -100,
    "ref_level_db": 20, "symmetric_norm": True, "max_norm": 4.0, "clip_norm": True, "stats_path": None,
    "preemphasis": 0.0,
}  # fmt: skip
PARAMETERS = {
    "upsample_factors": [4, 2], "upsample_kernel_sizes": [8, 4], "upsample_initial_channel": 16,
    "resblock_kernel_sizes": [3, 5], "resblock_dilation_sizes": [[1, 3], [1, 2]], "resblock_type": "1",
}  # fmt: skip


def config(**audio):
    return {"model": "hifigan", "generator_model_params": PARAMETERS, "audio": AUDIO | audio}


def content_of(net):
    names = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    state = {}
    for key, value in net.state_dict().items():
        stem, _, last = key.rpartition(".")
        state[f"model_g.{stem}.{names.get(last, last)}"] = value
    return {"model": state | {"model_d.mpd.discriminators.0.convs.0.bias": torch.ones(2)}, "step": 5}


@pytest.fixture
def net():
    return loud(hifigan.Generator(**SIZES))


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_its_generator_and_its_mel(tmp_path, net, where):
    content = content_of(net) | ({"config": config()} if where == "inside" else {})
    file = write(tmp_path / "in", "best_model.pth", content, config() if where == "beside" else None)
    described = import_checkpoint([file], tmp_path / "out")
    assert_same(tmp_path / "out", net, mels())
    preset = MelSpec.preset("coqui").to_dict()
    sizes = {
        "sample_rate": 16000,
        "n_fft": 64,
        "win_length": 64,
        "hop_length": 8,
        "n_mels": 20,
        "fmax": 7000.0,
    }
    assert described.takes == MelSpec.from_dict(preset | sizes)


def test_its_padding_at_inference_on_request(tmp_path, net):
    file = write(tmp_path / "in", "best_model.pth", content_of(net), config())
    described = import_checkpoint([file], tmp_path / "out")
    assert "ten hops longer" in described.notes[0]
    padded = torch.cat([mels()[..., :1]] * 5 + [mels()] + [mels()[..., -1:]] * 5, -1)
    with torch.no_grad():
        theirs = net(padded)[:, 0]
    _, ours = heard(tmp_path / "out", functional.pad(mels(), (5, 5), mode="replicate"))
    assert ours.shape[-1] == (23 + 10) * 8
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


class CoquisMelGAN(torch.nn.Module):
    """The reference with any number of bands, and Coqui's bank of four by scipy: `TTS.vocoder.layers.pqmf.PQMF`."""

    def __init__(self, bands, ratios, blocks):
        super().__init__()
        self.net = loud(melgan.Generator(20, 8, ratios, blocks))
        self.net.model[-2] = melgan.WNConv(8, bands, 7)
        low_pass = scipy.signal.firwin(63, 0.15, window=("kaiser", 9.0))
        k = np.arange(bands)[:, None]
        turn = (2 * k + 1) * np.pi / 8 * (np.arange(63) - 61 / 2)
        self.bank = torch.tensor(2 * low_pass * np.cos(turn - (-1.0) ** k * np.pi / 4), dtype=torch.float32)

    def forward(self, mel):
        signals = self.net(mel)
        if len(self.bank) == 1:
            return signals
        spread = signals.new_zeros(*signals.shape, 4)
        spread[..., 0] = 4 * signals
        return functional.conv1d(spread.flatten(2), self.bank[None], padding=31)

    def file(self, blocks, ratios):
        state = in_stacks(self.net.state_dict(), "model_g.layers", len(ratios), blocks)
        state["model_d.discriminators.0.layers.0.1.bias"] = torch.ones(2)
        if len(self.bank) > 1:
            state |= {"model_g.pqmf_layer.G": self.bank[None], "model_g.pqmf_layer.H": self.bank[:, None]}
        return {"model": state, "step": 5}


@pytest.mark.parametrize("bands, ratios, blocks", [(1, (4, 2), 4), (4, (2,), 3), (1, (4, 2), 3)])
def test_its_melgans_of_one_band_and_of_four(tmp_path, bands, ratios, blocks):
    theirs = CoquisMelGAN(bands, ratios, blocks)
    said = config() | {"generator_model_params": {"upsample_factors": ratios, "num_res_blocks": blocks}}
    file = write(tmp_path / "in", "best_model.pth", theirs.file(blocks, ratios), said)
    described = import_checkpoint([file], tmp_path / "out")
    assert "four hops longer" in described.notes[0]
    assert_same(tmp_path / "out", theirs, 3 * mels())


def test_its_melgan_without_a_configuration_is_told_what_is_missing(tmp_path):
    file = write(tmp_path / "in", "best_model.pth", CoquisMelGAN(1, (4, 2), 3).file(3, (4, 2)))
    with pytest.raises(ImportFailed, match="no configuration in it or beside it"):
        import_checkpoint([file], tmp_path / "out")


def value_of(magnitude, audio):
    """Coqui's amp_to_db and normalize, as its settings are documented."""
    log = {"np.log": np.log, "np.log10": np.log10}[audio["log_func"]]
    value = audio["spec_gain"] * log(np.maximum(1e-8, magnitude))
    if not audio["signal_norm"]:
        return value
    share = (value - audio["ref_level_db"] - audio["min_level_db"]) / -audio["min_level_db"]
    most = audio["max_norm"]
    value, least = (2 * most * share - most, -most) if audio["symmetric_norm"] else (most * share, 0)
    return np.clip(value, least, most) if audio["clip_norm"] else value


@pytest.mark.parametrize(
    "audio",
    [
        {},
        {"signal_norm": False, "spec_gain": 1.0, "log_func": "np.log"},
        {"signal_norm": False, "spec_gain": 20.0},
        {"symmetric_norm": False, "max_norm": 1.0, "min_level_db": -80, "ref_level_db": 0},
        {"clip_norm": False, "spec_gain": 10, "max_norm": 2.0},
    ],
)
def test_its_mel_values_in_every_setting(tmp_path, net, audio):
    file = write(tmp_path / "in", "best_model.pth", content_of(net), config(**audio))
    spec = import_checkpoint([file], tmp_path / "out").takes
    magnitude = np.geomspace(1e-9, 30, 50)[None].repeat(20, 0)
    found = spec.from_magnitude(torch.from_numpy(magnitude)).numpy()
    np.testing.assert_allclose(found, value_of(magnitude, AUDIO | audio), rtol=1e-6, atol=1e-6)


def test_what_a_configuration_leaves_out_is_coquis_own(tmp_path, net):
    full = import_checkpoint([write(tmp_path / "in", "g.pth", content_of(net), config())], tmp_path / "full")
    silent = config()
    for name in ("signal_norm", "min_level_db", "ref_level_db", "symmetric_norm", "max_norm", "clip_norm"):
        del silent["audio"][name]
    file = write(tmp_path / "silent", "g.pth", content_of(net), silent)
    assert import_checkpoint([file], tmp_path / "out").takes == full.takes


def test_its_statistics_are_given_as_numbers(tmp_path, net):
    file = write(tmp_path / "in", "best_model.pth", content_of(net), config(stats_path="scale_stats.npy"))
    with pytest.raises(ImportFailed, match=r"a pickle, which isn't run here.*stats\.npy"):
        import_checkpoint([file], tmp_path / "out")
    mean, scale = np.linspace(-60, -40, 20), np.linspace(10, 12, 20)
    np.save(tmp_path / "in" / "stats.npy", np.stack([mean, scale]))
    spec = import_checkpoint([file], tmp_path / "out").takes
    magnitude = np.geomspace(1e-6, 3, 20)[:, None]
    expected = (20 * np.log10(magnitude) - mean[:, None]) / scale[:, None]
    np.testing.assert_allclose(spec.from_magnitude(torch.from_numpy(magnitude)).numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "audio, said",
    [
        ({"preemphasis": 0.97}, r"audio\.preemphasis is 0\.97"),
        ({"stft_pad_mode": "constant"}, r"audio\.stft_pad_mode is constant"),
        ({"log_func": "np.log2"}, "log_func 'np.log2'"),
        ({"spec_gain": 0}, "spec_gain 0"),
        ({"min_level_db": 0}, "min_level_db is 0"),
    ],
)
def test_a_mel_that_cannot_be_said_is_refused(tmp_path, net, audio, said):
    file = write(tmp_path / "in", "best_model.pth", content_of(net), config(**audio))
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint([file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_jik876s_configuration_is_not_taken_for_it(tmp_path, net):
    file = write(tmp_path / "in", "g_1", {"generator": net.state_dict()}, HIFIGAN)
    assert import_checkpoint([file], tmp_path / "out").takes.framing == "same"
