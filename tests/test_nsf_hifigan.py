"""Vocoders that take a pitch: NSF-HiFiGAN against a plain-torch reference, their files imported, the pitch at work.

The reference's weights have the names that openvpi's, RVC's and so-vits-svc's checkpoints have.
"""

import importlib.util
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import weight_norm

import gansound
from gansound import audio
from gansound.cli import main
from gansound.extras import missing
from gansound.frames import SPECS, LatentSpec, PitchedSpec
from gansound.frames.pitch import pitch_of
from gansound.generators.nsf_hifigan import NSFHiFiGANGenerator, nsf_hifigan_keys
from gansound.importers import ImportFailed, import_checkpoint
from gansound.inference.export import export_onnx
from gansound.mel import MelSpec
from gansound.model_folder import LoadedModel, ModelFolderError, load_model_folder
from gansound.nn import streaming
from gansound.nn.fold import fold_parametrizations
from gansound.nn.harmonic_source import NOISE_FRAMES, GlidingSine, HarmonicSource
from gansound.nn.inference_form import InferenceForm
from tests.families import FAMILIES
from tests.reference import nsf_hifigan as reference
from tests.streams import Streams, chunk_by_chunk, error, serve
from tests.test_importers import write
from tests.test_streaming_models import awake
from tests.tiny import save_tiny_model

BANDS = 20
# Rates, taps and Hz of the published ones: openvpi's, RVC's of 40 and 32 kHz.
OPENVPI = {"rates": (8, 8, 2, 2, 2), "taps": (16, 16, 4, 4, 4), "rate": 44100}
NETS = {
    "full": OPENVPI,
    "mini": OPENVPI | {"mini": True},
    "rvc 40k": {"rates": (10, 10, 2, 2), "taps": (16, 16, 4, 4), "rate": 40000, "harmonics": 0},
    "rvc 32k": {"rates": (10, 4, 2, 2, 2), "taps": (16, 16, 4, 4, 4), "rate": 32000, "harmonics": 0},
}
CONFIG = {
    "resblock": "1", "upsample_rates": [8, 8, 2, 2, 2], "upsample_kernel_sizes": [16, 16, 4, 4, 4],
    "upsample_initial_channel": 32, "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]], "sampling_rate": 44100, "num_mels": BANDS,
    "hop_size": 512, "n_fft": 2048, "win_size": 2048, "fmin": 40, "fmax": 16000,
}  # fmt: skip
SPEC = replace(MelSpec.preset("diffsinger_44khz"), n_mels=BANDS)


@torch.no_grad()
def theirs_of(name, dtype=torch.float64, speaker=0):
    """Heard, and its source through each of its ways."""
    torch.manual_seed(1)
    net = reference.Generator(bands=BANDS, channels=32, speaker=speaker, **NETS[name]).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d):
            layer.weight *= 1.3 if layer.in_channels > 1 else 10
    draws = ()
    if not net.mini:
        net.m_source.l_linear.weight.fill_(0.4)
        count = net.m_source.l_linear.in_features
        draws = torch.randn(20 * net.hop, count), torch.zeros(count)
    loud = []
    hook = net.conv_post.register_forward_hook(lambda layer, given, sound: loud.append(float(sound.std())))
    net(*pitched(20, torch.float32), *draws)
    hook.remove()
    for parameter in net.conv_post.parameters():
        parameter /= 3 * loud[0]
    return net.to(dtype)


def pitched(frames, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    mel = torch.randn(1, BANDS, frames, generator=draw).to(dtype)
    f0 = 220 * torch.exp2(torch.rand(1, frames, generator=draw) - 0.5)
    f0[:, 4:7] = 0
    f0[:, 8:9] = 6  # Hz: voiced here, and not in HiFT
    return mel, f0.to(dtype)


def drawn(generator, frames):
    """What our source has in place of draws, as each harmonic's own noise: its weighted sum is ours."""
    source = next((layer for layer in generator.modules() if isinstance(layer, HarmonicSource)), None)
    if source is None:
        return ()
    rows = source.noise[torch.arange(frames) % NOISE_FRAMES].flatten()
    return rows[:, None] * (source.weight / source.weight.norm()).detach(), source.begins


def ours_of(name, theirs):
    net = NETS[name]
    ours = NSFHiFiGANGenerator(
        BANDS + 1, net["rate"], 32, net["rates"], net["taps"], harmonics=net.get("harmonics", 8), mini=theirs.mini
    )  # fmt: skip
    ours = fold_parametrizations(ours).to(theirs.conv_pre.weight.dtype).eval()
    keys, weights = nsf_hifigan_keys(ours), theirs.state_dict()
    assert sorted(keys.values()) == sorted(weights)
    ours.load_state_dict({k: weights[keys[k]].reshape(v.shape) for k, v in ours.state_dict().items()})
    return ours


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_it_equals_the_reference(name):
    theirs = theirs_of(name)
    ours = ours_of(name, theirs)
    for frames in (1, 2, 23):
        mel, f0 = pitched(frames, seed=frames)
        expected = theirs(mel, f0, *drawn(ours, frames))
        got = ours(torch.cat([mel, f0[:, None]], 1))
        assert got.shape == expected.shape == (1, frames * ours.hop_length)
        # Phases lie on a grid of 2^-23 turns, and so do their overtones'; summed over 23 frames.
        assert error([got], [expected]) < 1e-4
    assert 0.05 < float(expected.square().mean().sqrt()) < 0.9
    other = theirs(mel, f0 * 1.01, *drawn(ours, 23))
    assert error([other], [expected]) > 1e-2  # the pitch is heard
    if draws := drawn(ours, 23):
        quiet = theirs(mel, f0, *(0 * draw for draw in draws))
        assert error([quiet], [expected]) > 1e-3  # and the noise


def test_published_parameter_count():
    """Of openvpi's own code, `sum(p.numel() for p in generator.parameters())` without weight norm."""
    counts = []
    for mini in (False, True):
        with torch.device("meta"):
            net = NSFHiFiGANGenerator(mini=mini)
        counts.append(sum(p.numel() for p in fold_parametrizations(net).parameters()))
    assert counts == [14_168_523, 14_132_801]


def test_a_stream_of_glides_equals_the_whole():
    """Utterances of any length in lanes of one batch, and chunks of one."""
    sine = GlidingSine(5512.5, 6).double()
    streams = Streams(
        lambda batch: streaming.init_state(sine, torch.zeros(batch, 1, 1, dtype=torch.float64)),
        lambda x, state, interior=False: streaming.step(sine, x, state, interior=interior),
        streaming.finish,
        streaming.reset,
        6,
        6,
    )
    pitches = [torch.rand(1, frames, dtype=torch.float64) * 900 for frames in (1, 2, 9, 40, 3, 17)]
    expected = [sine(f0[None])[0] for f0 in pitches]
    assert error(serve(streams, pitches, [y.shape[1] for y in expected], 1), expected) <= 1e-12
    long = torch.rand(2, 1, 300, dtype=torch.float64) * 900
    for interior in (None, 3):
        assert (
            error([chunk_by_chunk(streams, long, [1] * 30 + [7] * 30 + [60], interior)], [sine(long)])
            <= 1e-12
        )


def test_a_pitch_stays_exact_in_half_precision():
    form = InferenceForm(ours_of("full", theirs_of("full", torch.float32)), dtype=torch.bfloat16)
    mel, f0 = pitched(12, torch.float32)
    source = form.layers[1].source
    whole = source(form.layers[0](torch.cat([mel, f0[:, None]], 1)))
    assert whole.dtype == torch.float32
    assert torch.equal(
        whole[:, 0], ours_of("full", theirs_of("full", torch.float32)).layers[0].source[1](f0[:, None])
    )
    assert any(p.dtype == torch.bfloat16 for p in form.parameters())


def normed(net):
    """Its state as they save it: weight norm of most, by torch's old names."""
    for name, layer in list(net.named_modules()):
        if isinstance(layer, nn.Conv1d | nn.ConvTranspose1d) and name.startswith(("ups", "resblocks")):
            weight_norm(layer)
    return net.state_dict()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Imported from the command line, files as openvpi's, and the nets they are of."""
    where, made = tmp_path_factory.mktemp("nsf"), {}
    for name in ("full", "mini"):
        net = theirs_of(name, torch.float32)
        more = {"mini_nsf": True, "noise_sigma": 0.0, "pc_aug": True} if name == "mini" else {}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)  # of torch's old weight norm
            file = write(where / name, "model.ckpt", {"generator": normed(net)}, CONFIG | more)
        assert main(["--quiet", "import", str(file), "-o", str(where / f"{name}_model")]) == 0
        made[name] = where / f"{name}_model", theirs_of(name, torch.float32)
    return made


@pytest.mark.parametrize("name", ["full", "mini"])
def test_a_file_of_openvpi_is_imported_and_takes_a_pitch_beside_its_mel(folders, name):
    folder, theirs = folders[name]
    loaded = load_model_folder(folder)
    assert loaded.takes == PitchedSpec(SPEC)
    mel, f0 = pitched(19, torch.float32)
    with torch.no_grad():
        expected = theirs(mel, f0, *drawn(loaded.generator, 19))
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    assert vocoder.mel_spec == SPEC
    got = vocoder(mel, f0=f0, warn=False)
    assert error([got], [expected]) < 3e-3  # of theirs in single precision, whose sums of phases aren't exact
    frames = torch.cat([mel, f0[:, None]], 1)
    for same in (
        vocoder(frames, warn=False),
        vocoder(mel.numpy(), f0=f0[0].numpy(), warn=False),
        vocoder(mel[0], f0=f0[0], warn=False),
        torch.from_numpy(np.concatenate(list(vocoder.pieces(mel, f0=f0, warn=False))))[None],
    ):
        assert torch.equal(same, got)
    two = vocoder(torch.cat([mel, mel]), f0=f0[0], lengths=[19, 7], warn=False)
    assert error([two[:1]], [got]) < 1e-5
    assert error([two[1:, : 7 * 512]], [vocoder(mel[..., :7], f0=f0[:, :7], warn=False)]) < 1e-5
    with vocoder.stream() as stream:
        parts = [
            stream.push(m[0].numpy(), f0=f[0]) for m, f in zip(mel.split(2, -1), f0.split(2, -1), strict=True)
        ]
        streamed = torch.from_numpy(np.concatenate([*parts, stream.flush()]))[None]
    assert error([streamed], [got]) < 1e-5


def test_a_logarithm_of_base_ten_is_converted(folders, tmp_path):
    """DiffSinger's older acoustic models."""
    folder, _ = folders["full"]
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    mel, f0 = pitched(9, torch.float32)
    mel = mel.clamp(min=-11)
    decimal = replace(SPEC, log="log10")
    other = gansound.Vocoder.from_pretrained(folder, "cpu", mel=decimal, backend="eager")
    assert other.mel_spec == decimal
    assert error([other(mel / math.log(10), f0=f0, warn=False)], [vocoder(mel, f0=f0, warn=False)]) < 1e-4
    again = gansound.Vocoder.from_pretrained(
        other.save_pretrained(tmp_path / "again"), "cpu", backend="eager"
    )
    assert again.frame_spec == vocoder.frame_spec
    assert pickle.loads(pickle.dumps(other)).frame_spec == other.frame_spec


def test_a_pitch_on_the_command_line(folders, tmp_path, capsys):
    folder, _ = folders["full"]
    mel, f0 = pitched(9, torch.float32)
    np.save(tmp_path / "mel.npy", mel[0].numpy())
    np.save(tmp_path / "f0.npy", f0[0].numpy())
    np.save(tmp_path / "frames.npy", torch.cat([mel, f0[:, None]], 1)[0].numpy())
    how = ["--model", str(folder), "--backend", "eager"]
    beside = ["vocode", str(tmp_path / "mel.npy"), "--f0", str(tmp_path / "f0.npy"), *how]
    assert main([*beside, "-o", str(tmp_path / "beside.wav"), "--bits", "32"]) == 0
    below = ["vocode", str(tmp_path / "frames.npy"), *how, "-o", str(tmp_path / "below.wav"), "--bits", "32"]
    assert main(below) == 0
    streamed = ["stream", "-i", str(tmp_path / "frames.npy"), *how, "-o", str(tmp_path / "streamed.wav")]
    assert main(streamed) == 0
    sounds = [audio.read(tmp_path / f"{name}.wav")[0] for name in ("beside", "below", "streamed")]
    np.testing.assert_array_equal(sounds[0], sounds[1])
    np.testing.assert_allclose(sounds[2], sounds[0].clip(-1, 1), atol=2 / 32768)
    capsys.readouterr()
    assert main(["vocode", str(tmp_path / "mel.npy"), *how, "-o", str(tmp_path / "none.wav")]) == 1
    assert "without its pitch, expected 21: give f0= beside it (--f0)" in capsys.readouterr().err
    assert main([*beside[:3], str(tmp_path / "no.npy"), *how, "-o", str(tmp_path / "none.wav")]) == 2
    assert "no such file" in capsys.readouterr().err
    several = ["vocode", str(tmp_path / "mel.npy"), str(tmp_path / "frames.npy"), *beside[2:4], *how]
    assert main([*several, "-o", str(tmp_path / "out")]) == 2
    assert "is the pitch of one mel, got 2 inputs" in capsys.readouterr().err


@pytest.mark.skipif(bool(missing("librosa")), reason="needs librosa")
def test_the_pitch_of_a_recording_is_found_where_the_frames_are(folders, tmp_path):
    """A tone that rises by an octave in a second and half, after a pause; told to a quarter of a semitone."""
    rate = 44100
    seconds = np.arange(rate) / rate
    f0 = 200 * 2**seconds
    tone = sum(np.sin(2 * np.pi * k * np.cumsum(f0) / rate) / k for k in range(1, 6)) / 4
    sound = np.concatenate([np.zeros(rate // 2), tone, np.zeros(rate // 4)]).astype(np.float32)
    found = pitch_of(sound, rate, 512)
    assert found.shape == (-(-len(sound) // 512),)
    times = np.arange(len(found)) * 512 / rate - 0.5
    inside = (times > 0.1) & (times < 0.9)
    cents = 1200 * np.log2(found / (200 * 2**times))
    assert np.abs(cents[inside]).max() < 25
    assert found[0] > 150  # gone on with
    folder, _ = folders["mini"]
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    copied = vocoder.vocode_audio(sound[: rate // 2 * 2], rate)
    frames = vocoder.frames_of(torch.from_numpy(sound[: rate // 2 * 2]))
    assert frames.shape == (1, BANDS + 1, -(-rate // 512))
    np.testing.assert_array_equal(frames[0, -1], pitch_of(sound[: rate // 2 * 2], rate, 512))
    assert error([vocoder(frames, warn=False)[:, :rate]], [torch.from_numpy(copied)[None]]) < 1e-5
    assert pitch_of(np.zeros(700, np.float32), rate, 512).tolist() == [0, 0]


@pytest.mark.skipif(bool(missing("onnx", "onnxscript", "onnxruntime")), reason="needs gansound[export]")
@pytest.mark.usefixtures("traced_once")
def test_its_graph_has_a_pitch_and_the_reader_reads_it(tmp_path):
    """The one that `test_families.py` traces; `export_onnx` holds it against PyTorch on `PitchedSpec.noise`."""
    net = awake("nsf hifigan", False, torch.float32, traced=True)
    spec = PitchedSpec(replace(FAMILIES["nsf hifigan"].traced.mel, n_mels=net.n_mels - 1))
    vocoder = gansound.Vocoder(LoadedModel(net, spec, {}, Path(), {}), "cpu", backend="eager")
    frames = spec.noise(20)
    frames[:, -1, 12:15] = 0
    assert 0 < float((PitchedSpec(SPEC).noise(60)[:, -1] > 0).float().mean()) < 1
    where = Path(__file__).parents[1] / "samples" / "onnx_reader.py"
    module = importlib.util.module_from_spec(
        loaded := importlib.util.spec_from_file_location("onnx_reader", where)
    )
    loaded.loader.exec_module(module)
    reader = module.Vocoder(export_onnx(vocoder, tmp_path / "step.onnx", streaming=True))
    assert PitchedSpec.from_dict(reader.mel_convention) == spec
    parts = [reader.push(part[0].numpy()) for part in frames.split(6, -1)]
    got = torch.from_numpy(np.concatenate([*parts, reader.flush()]))[None]
    expected = vocoder(frames, warn=False)
    assert error([got], [expected]) < 1e-5
    frames[:, -1] *= 1.01
    assert error([vocoder(frames, warn=False)], [expected]) > 1e-4


LIST = [
    1025, 32, BANDS, 192, 768, 2, 6, 3, 0, "1", [3, 7, 11], [[1, 3, 5]] * 3, [10, 10, 2, 2], 32, [16, 16, 4, 4], 3, 6,
    40000,
]  # fmt: skip


def converter(table):
    """RVC's decoder, which has a speaker and no bias at its end, with what else lies in such a file."""
    net = theirs_of("rvc 40k", torch.float32, speaker=6)
    net.conv_post.bias.data.zero_()
    state = {f"dec.{k}": v for k, v in net.state_dict().items() if k != "conv_post.bias"}
    return net, state | {"emb_g.weight": table, "enc_p.emb_phone.weight": torch.randn(3, 4)}


def test_files_of_rvc_and_so_vits_svc_are_imported(tmp_path):
    table = torch.randn(3, 6)
    net, state = converter(table)
    half = {k: v.half() for k, v in state.items()}
    rvc = write(
        tmp_path / "rvc", "voice.pth", {"weight": half, "config": LIST, "f0": 1, "sr": "40k", "version": "v2"}
    )
    svc = write(
        tmp_path / "svc",
        "G_1.pth",
        {"model": state, "iteration": 3},
        {
            "data": {"sampling_rate": 40000, "hop_length": 400},
            "model": {"upsample_rates": [10, 10, 2, 2], "resblock_dilation_sizes": [[1, 3, 5]] * 3},
            "spk": {"ada": 0, "ben": 2},
        },
    )
    latent, f0 = pitched(9, torch.float32)
    for file, speaker, voice, bound in ((rvc, None, 0, 2e-2), (rvc, "1", 1, 2e-2), (svc, "ben", 2, 3e-3)):
        out = tmp_path / f"{file.stem}_{voice}"
        described = import_checkpoint([file], out, speaker=speaker)
        assert described.takes == PitchedSpec(LatentSpec(BANDS, 40000, 400))
        vocoder = gansound.Vocoder.from_pretrained(out, "cpu", backend="eager")
        with torch.no_grad():
            expected = net(latent, f0, *drawn(vocoder.generator, 9), speaker=table[voice][None, :, None])
        assert error([vocoder(latent, f0=f0)], [expected]) < bound  # RVC's weights are of half precision
        other = vocoder(latent, f0=1.01 * f0)
        assert error([other], [expected]) > 2 * bound
    with pytest.raises(
        ModelFolderError, match=r"latents of 20 channels, .* can't be had here from a recording or from a mel"
    ):
        _ = vocoder.mel_spec
    with pytest.raises(ImportFailed, match=r"has 3 voices, got none named, .*\(ada, ben\)"):
        import_checkpoint([svc], tmp_path / "out")


@pytest.mark.parametrize(
    "change, said",
    [
        ({"config": {"noise_sigma": 0.01}}, r"noise_sigma 0.01, expected 0"),
        (
            {"config": {"upsample_rates": [8, 4, 4, 2, 2]}},
            "noise_convs.1 has 16 taps, expected 32 taps by upsample_rates",
        ),
        ({"config": {"win_size": 1024}}, "n_fft is 2048 and win_size 1024, expected the same"),
        ({"without": "m_source.l_linear.weight"}, "has no m_source.l_linear.weight"),
        ({"without": "noise_convs.3.weight"}, "noise_convs.3 isn't there"),
        ({"with": "resblocks.0.activations.0.act.alpha"}, "with Snakes"),
        ({"with": "noise_res.0.convs1.0.weight"}, "the decoder of StyleTTS 2"),
    ],
)
def test_a_net_that_cannot_be_had_is_refused_by_name(tmp_path, change, said):
    state = theirs_of("full", torch.float32).state_dict()
    state.pop(change.get("without"), None)
    state |= {change["with"]: torch.ones(3)} if "with" in change else {}
    file = write(tmp_path / "in", "model.ckpt", {"generator": state}, CONFIG | change.get("config", {}))
    with pytest.raises(ImportFailed, match=said):
        import_checkpoint([file], tmp_path / "out")
    assert not (tmp_path / "out").exists()


MEL, HERTZ = torch.zeros(BANDS, 30), torch.full((30,), 200.0)


@pytest.mark.parametrize(
    "mel, f0, said",
    [
        (MEL, None, "without its pitch, expected 21: give f0="),
        (MEL, HERTZ[:29], r"f0: got shape \(29,\) beside a mel of \(20, 30\), expected \(30,\)"),
        (MEL, HERTZ[None, None], r"f0: got shape \(1, 1, 30\)"),
        (MEL, HERTZ.tolist(), "f0: got list"),
        (torch.zeros(BANDS + 1, 30), HERTZ, "has its pitch already, so give no f0"),
        (MEL.T, HERTZ, "looks transposed"),
        (MEL, HERTZ.log(), "f0: no value is above 5.3, .* may be a logarithm of Hz"),
        (MEL, -HERTZ, "f0: 30 of 30 values are no pitch, the least -200"),
        (MEL, 100 * HERTZ, "the greatest 2e.04, expected Hz up to 8000, and 0 where unvoiced"),
        (MEL, HERTZ * math.nan, "30 of 630 values are NaN or infinite"),
        (MEL + 100, HERTZ, "600 of 600 values are such as no sound has"),
    ],
)
def test_frames_that_are_none_are_refused(folders, mel, f0, said):
    vocoder = gansound.Vocoder.from_pretrained(folders["full"][0], "cpu", backend="eager")
    with pytest.raises(ValueError, match=said):
        vocoder(mel, f0=f0)
    with vocoder.stream() as stream:
        with pytest.raises(ValueError, match=said):
            stream.push(mel, f0=f0)
        assert stream.frames_pushed == 0


def test_semitones_are_suspected():
    spec = PitchedSpec(SPEC)
    mel = SPEC.noise(40)
    assert spec.suspicions(spec.join(mel, torch.full((40,), 110.0))) == spec.frames.suspicions(mel)
    (said,) = spec.suspicions(spec.join(mel, torch.full((40,), 69.0)))
    assert "are semitones, and mean 440 Hz" in said


def test_a_padded_mel_is_told_beside_its_pitch():
    spec, mel = PitchedSpec(SPEC), SPEC.noise(40)
    assert spec.padded(spec.join(mel, torch.full((40,), 110.0))) == ""
    mel[..., 30:] = 0
    assert "the last 10 of 40 frames are 0" in spec.padded(spec.join(mel, torch.full((40,), 110.0)))


def test_what_takes_no_pitch_is_given_none_and_the_other_way(folders, tmp_path):
    tiny = gansound.Vocoder.from_pretrained(save_tiny_model(tmp_path / "tiny"), "cpu", backend="eager")
    with pytest.raises(ValueError, match="got an f0, but this vocoder takes log-mels"):
        tiny(torch.zeros(1, 80, 9), f0=HERTZ[:9])
    folder, _ = folders["full"]
    with pytest.raises(ModelFolderError, match="expected a vocoder that takes mels alone"):
        _ = load_model_folder(folder).mel
    vocoder = gansound.Vocoder.from_pretrained(folder, "cpu", backend="eager")
    with pytest.raises(
        ValueError, match=r"takes log-mels .* its pitch in Hz, .* expected one that takes mels alone"
    ):
        vocoder.as_module("transformers")
    assert main(["export", "--model", str(folder), "--format", "sherpa", "-o", str(tmp_path / "x.onnx")]) == 1
    assert not (tmp_path / "x.onnx").exists()


def test_the_kind_is_told_as_json():
    for inner in (SPEC, LatentSpec(192, 40000, 400)):
        spec = PitchedSpec(inner)
        assert SPECS["pitched"].from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    for wrong in ({}, {"codes": {}}, {"mel": SPEC.to_dict(), "latent": {}}):
        with pytest.raises(ValueError, match="expected one of mel, latent"):
            PitchedSpec.from_dict(wrong)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"n_mels": 1}, "a row or more beside the pitch's"),
        (
            {"mini": True, "upsample_rates": (8,), "upsample_kernel_sizes": (16,)},
            "comes in at its second stage",
        ),
        ({"channels": 48}, "multiple of 32"),
    ],
)
def test_a_generator_that_cannot_be_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        NSFHiFiGANGenerator(**arguments)
