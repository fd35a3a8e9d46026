"""The frame-rate generator and its layers: inversion, framing, reach, and what its prior is worth."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
from torch.nn import functional as F

from gansound.generators.freev import FreeVGenerator
from gansound.mel import MelSpec
from gansound.model_folder import load_model_folder, save_model_folder
from gansound.nn.convnext import ConvNeXtBlock, FrameConv
from gansound.nn.istft import ISTFT, LEAST_POWER

SPEC = MelSpec.preset("hifigan")
SMALL = {"channels": 16, "hidden_channels": 32, "blocks": 2}


def generator(seed: int = 0, **settings: object) -> FreeVGenerator:
    torch.manual_seed(seed)
    return FreeVGenerator(**({"mel": SPEC} | SMALL | settings)).eval()


def voice(samples: int, seed: int = 0) -> torch.Tensor:
    """Gliding harmonics in noise, `(1, samples)`."""
    time = torch.arange(samples) / SPEC.sample_rate
    phase = 2 * math.pi * (130 * time + 20 * torch.sin(2 * math.pi * 1.5 * time))
    harmonics = sum(torch.sin(k * phase) / k for k in range(1, 40))
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return (0.1 * harmonics + 0.005 * noise)[None]


def spectrum_of(net: FreeVGenerator, mel: torch.Tensor) -> torch.Tensor:
    """The complex spectrum before its inversion, `(B, bins, F)`."""
    real, imaginary = net.layers.spectrum(net.layers.magnitude(mel)).chunk(2, dim=-1)
    return torch.complex(real, imaginary).transpose(1, 2)


def parts(spectrum: torch.Tensor) -> torch.Tensor:
    """`(B, bins, F)` complex as the layers hand it on."""
    return torch.cat([spectrum.real, spectrum.imag], dim=1).transpose(1, 2)


def own_spectrum(audio: torch.Tensor, n_fft: int, hop_length: int) -> torch.Tensor:
    """The "same" framing by torch.stft: mirrored by (n_fft - hop) / 2, one frame a hop."""
    pad = (n_fft - hop_length) // 2
    padded = F.pad(audio.unsqueeze(1), (pad, pad), mode="reflect").squeeze(1)
    window = torch.hann_window(n_fft, dtype=audio.dtype)
    return torch.stft(padded, n_fft, hop_length, window=window, center=False, return_complex=True)


@pytest.mark.parametrize("n_fft, hop_length", [(1024, 256), (512, 256), (64, 8), (1200, 300), (2048, 512)])
@pytest.mark.parametrize("frames", [3, 17])
def test_a_real_signal_comes_back_from_its_own_spectrum(n_fft: int, hop_length: int, frames: int) -> None:
    samples = max(frames, math.ceil(n_fft / hop_length)) * hop_length
    audio = torch.randn(2, samples, generator=torch.Generator().manual_seed(n_fft + frames))
    spectrum = own_spectrum(audio, n_fft, hop_length)
    assert spectrum.shape[-1] == samples // hop_length
    back = ISTFT(n_fft, hop_length)(parts(spectrum))
    assert back.shape == audio.shape
    torch.testing.assert_close(back, audio, atol=3e-6, rtol=0)  # to the very ends


@pytest.mark.filterwarnings("ignore:NOLA condition failed")
@pytest.mark.parametrize("n_fft, hop_length", [(1024, 256), (512, 256), (96, 16)])
def test_any_spectrum_inverts_as_torch_and_scipy_do(n_fft: int, hop_length: int) -> None:
    frames, overlap = 24, n_fft // hop_length
    torch.manual_seed(n_fft)
    spectrum = torch.randn(2, n_fft // 2 + 1, frames, dtype=torch.complex64)
    ours = ISTFT(n_fft, hop_length)(parts(spectrum))
    assert ours.shape == (2, frames * hop_length)
    # torch's centred inverse starts n_fft / 2 after the first frame does, ours (n_fft - hop) / 2.
    theirs = torch.istft(spectrum, n_fft, hop_length, window=torch.hann_window(n_fft), center=True)
    shift = hop_length // 2
    torch.testing.assert_close(ours[:, shift : shift + theirs.shape[1]], theirs, atol=2e-5, rtol=1e-4)
    # scipy divides by the overlapped squared window as well, and begins where the first frame does, whose very first
    # samples it warns of: there the window is zero.
    window = scipy.signal.get_window("hann", n_fft)
    _, scipys = scipy.signal.istft(
        spectrum.numpy() / window.sum(),
        nperseg=n_fft,
        noverlap=n_fft - hop_length,
        window=window,
        boundary=False,
    )
    trim = (n_fft - hop_length) // 2
    edge = overlap * hop_length  # scipy leaves what one window covers weakly undivided
    np.testing.assert_allclose(
        ours.numpy()[:, edge - trim : -edge], scipys[:, edge : trim + ours.shape[1] - edge], atol=1e-4
    )


@pytest.mark.parametrize("n_fft, hop_length", [(1024, 256), (512, 256), (16, 4), (1200, 300)])
@pytest.mark.parametrize("frames", [2, 9])
def test_centred_frames_invert_as_torch_does_and_a_hop_further(
    n_fft: int, hop_length: int, frames: int
) -> None:
    window = torch.hann_window(n_fft, dtype=torch.float64)
    torch.manual_seed(n_fft + frames)
    spectrum = torch.randn(2, n_fft // 2 + 1, frames, dtype=torch.complex128)
    ours = ISTFT(n_fft, hop_length, "center").double()(parts(spectrum))
    assert ours.shape == (2, frames * hop_length)
    theirs = torch.istft(spectrum, n_fft, hop_length, window=window, center=True)
    assert theirs.shape[1] == (frames - 1) * hop_length
    torch.testing.assert_close(
        ours[:, : theirs.shape[1]], theirs, atol=1e-7, rtol=0
    )  # the window is of float32
    # A recording comes back from its own spectrum, to the end of the hop that the last frame's middle begins.
    audio = torch.randn(1, (frames + 3) * hop_length, dtype=torch.float64)
    own = torch.stft(audio, n_fft, hop_length, window=window, pad_mode="constant", return_complex=True)
    back = ISTFT(n_fft, hop_length, "center").double()(parts(own))
    torch.testing.assert_close(back[:, : audio.shape[1]], audio, atol=1e-5, rtol=0)
    assert back.shape[1] == audio.shape[1] + hop_length


@pytest.mark.parametrize("overlap", [2, 3, 4])
@pytest.mark.parametrize("framing", ["same", "center"])
def test_frames_that_contradict_each_other_end_without_a_bang(overlap: int, framing: Any) -> None:
    layer = ISTFT(overlap * 240, 240, framing)
    sound = layer(torch.randn(1, 20, 2 * layer.bins, generator=torch.Generator().manual_seed(0)))[0]
    assert sound[-240:].abs().max() < 4 * sound[:-240].abs().max()
    power = layer._trimmed(layer.window.square().expand(1, 20, -1))
    assert (power.min() > LEAST_POWER) == (overlap > 2 or framing == "same")  # of those nothing is held back


def test_one_frame_gives_one_hop_of_its_middle() -> None:
    spectrum = torch.randn(1, 513, 1, dtype=torch.complex64)
    out = ISTFT(1024, 256)(parts(spectrum))
    frame = torch.fft.irfft(spectrum[0, :, 0], n=1024)
    window = torch.hann_window(1024)
    middle = slice(384, 640)
    torch.testing.assert_close(out[0], (frame * window)[middle] / window[middle].square())


@pytest.mark.parametrize("n_fft, hop_length", [(1024, 300), (256, 256), (1024, 1024), (1023, 256)])
def test_frames_that_do_not_tile_are_refused(n_fft: int, hop_length: int) -> None:
    with pytest.raises(ValueError, match=f"hop_length {hop_length}"):
        ISTFT(n_fft, hop_length)


@pytest.mark.parametrize("frames", [1, 2, 5, 33])
def test_samples_are_frames_times_hop(frames: int) -> None:
    net = generator()
    out = net(torch.randn(3, SPEC.n_mels, frames) - 5)
    assert out.shape == (3, frames * SPEC.hop_length)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("blocks, kernel_size", [(1, 3), (2, 7), (4, 5)])
def test_a_frame_is_seen_as_far_as_the_kernels_reach(blocks: int, kernel_size: int) -> None:
    net = generator(blocks=blocks, kernel_size=kernel_size)
    for weight in net.parameters():
        torch.nn.init.normal_(
            weight, std=0.5
        )  # the first weights are so small that far reaches drown in rounding
    mel = torch.randn(1, SPEC.n_mels, 61, generator=torch.Generator().manual_seed(1)) - 4
    changed = mel.clone()
    changed[..., 30] += 2
    with torch.no_grad():
        apart = (spectrum_of(net, mel) - spectrum_of(net, changed)).abs().amax(1)[0]
    reach = (blocks + 1) * (kernel_size // 2)
    touched = apart.nonzero().flatten()
    assert (touched.min().item(), touched.max().item()) == (30 - reach, 30 + reach)


def test_the_prior_alone_has_the_amplitudes_of_the_mel() -> None:
    audio = voice(64 * SPEC.hop_length)
    mel = SPEC.mel(audio)
    net = generator()
    torch.nn.init.zeros_(net.layers.spectrum.trunk.head.weight)
    bins = SPEC.n_fft // 2 + 1
    with torch.no_grad():
        net.layers.spectrum.trunk.head.bias[bins : 2 * bins] = 1.0  # no correction, every phase zero
        spectrum = spectrum_of(net, mel)
    torch.testing.assert_close(spectrum.imag, torch.zeros_like(spectrum.imag))
    magnitude = torch.exp(mel)
    again = SPEC.filter_bank() @ spectrum.abs()
    assert ((again - magnitude).abs().sum() / magnitude.sum()).item() < 0.02
    # With the phase of the recording those amplitudes are already close to it.
    true = own_spectrum(audio, SPEC.n_fft, SPEC.hop_length)
    sound = net.layers.istft(parts(spectrum.abs() * true / true.abs().clamp_min(1e-9)))
    assert (SPEC.mel(sound) - mel).abs().mean().item() < 0.3
    silence = SPEC.mel(torch.zeros_like(audio))
    assert (silence - mel).abs().mean().item() > 3


def test_the_correction_scales_and_the_two_maps_turn() -> None:
    net = generator()
    torch.nn.init.zeros_(net.layers.spectrum.trunk.head.weight)
    bins = SPEC.n_fft // 2 + 1
    mel = SPEC.mel(voice(20 * SPEC.hop_length))
    with torch.no_grad():
        net.layers.spectrum.trunk.head.bias[bins : 2 * bins] = 1.0
        plain = spectrum_of(net, mel)
        net.layers.spectrum.trunk.head.bias[:bins] = math.log(3.0)
        net.layers.spectrum.trunk.head.bias[2 * bins :] = 1.0
        turned = spectrum_of(net, mel)
    torch.testing.assert_close(turned, 3 * plain * complex(math.cos(math.pi / 4), math.sin(math.pi / 4)))


def test_the_loudest_correction_does_not_overflow() -> None:
    net = generator()
    torch.nn.init.constant_(net.layers.spectrum.trunk.head.bias, 1e6)
    out = net(torch.full((1, SPEC.n_mels, 4), 3.0))
    assert torch.isfinite(out).all()
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


def test_same_seed_same_net_and_a_batch_is_its_items() -> None:
    mel = torch.randn(3, SPEC.n_mels, 12, generator=torch.Generator().manual_seed(2)) - 5
    one, other = generator(3), generator(3)
    with torch.no_grad():
        assert torch.equal(one(mel), other(mel))
        assert not torch.equal(one(mel), generator(4)(mel))
        for item in range(3):
            torch.testing.assert_close(one(mel)[item], one(mel[item : item + 1])[0], atol=1e-5, rtol=1e-4)


def test_state_dict_holds_weights_only_and_round_trips(tmp_path) -> None:
    net = generator(5)
    keys = set(net.state_dict())
    assert keys == {name for name, _ in net.named_parameters()}
    trunk = "layers.spectrum.trunk."
    layers = {"embed.conv", "embed_norm", "final_norm", "head"} | {
        f"blocks.{i}.{layer}" for i in range(2) for layer in ("depthwise.conv", "norm", "expand", "contract")
    }
    # What trained models are stored under.
    assert keys == {f"{trunk}{layer}.{kind}" for layer in layers for kind in ("weight", "bias")} | {
        f"{trunk}blocks.{i}.scale" for i in range(2)
    }
    config = {"class_path": "gansound.generators.freev.FreeVGenerator", "init_args": SMALL}
    loaded = load_model_folder(save_model_folder(tmp_path / "model", net, SPEC, config=config)).generator
    mel = torch.randn(1, SPEC.n_mels, 9) - 5
    with torch.no_grad():
        assert torch.equal(loaded(mel), net(mel))


def test_parameters_are_as_many_as_the_layers_say() -> None:
    # By hand: embed, norm; per block depthwise, norm, MLP, scale; norm, head.
    c, h, k, bins = 256, 768, 7, 513
    block = (k + 1) * c + 2 * c + (c + 1) * h + (h + 1) * c + c
    expected = (80 * k + 1) * c + 2 * c + 6 * block + 2 * c + (c + 1) * 3 * bins
    net = generator(channels=c, hidden_channels=h, blocks=6)
    assert sum(p.numel() for p in net.parameters()) == expected


def test_the_depthwise_image_equals_conv1d() -> None:
    torch.manual_seed(0)
    layer = FrameConv(6, 6, 5, groups=6)
    x = torch.randn(2, 9, 6)
    plain = F.conv1d(x.transpose(1, 2), layer.conv.weight.squeeze(2), layer.conv.bias, padding=2, groups=6)
    torch.testing.assert_close(layer(x), plain.transpose(1, 2))


def test_a_block_starts_as_its_scaled_branch() -> None:
    torch.manual_seed(0)
    block = ConvNeXtBlock(8, 16, 3, initial_scale=0.25)
    x = torch.randn(1, 5, 8)
    branch = block(x) - x
    with torch.no_grad():
        block.scale.fill_(1.0)
    torch.testing.assert_close(branch, 0.25 * (block(x) - x), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"mel": MelSpec.preset("tacotron2")}, "framing 'center'"),
        ({"mel": replace(SPEC, win_length=512)}, "win_length 512"),
        ({"mel": replace(SPEC, hop_length=300)}, "hop_length 300"),
        ({"kernel_size": 4}, "odd"),
        ({"kernel_size": -1}, "positive"),
        ({"blocks": 0}, "1 or more"),
        ({"channels": 0}, "1 or more"),
    ],
)
def test_what_cannot_be_inverted_is_refused(settings: dict, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        generator(**settings)


@pytest.mark.parametrize("shape", [(1, 100, 9), (80, 9), (1, 80, 0), (1, 9, 80)])
def test_a_mel_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="80 bands" if shape[-1] != 80 else "transposed"):
        generator()(torch.zeros(shape))
