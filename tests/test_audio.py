"""Audio files and samples, against soundfile, scipy, torchaudio and librosa themselves."""

import errno
import resource
import signal

import numpy as np
import pytest
import soundfile
from scipy import signal as scipy_signal

from gansound import audio

RATE = 16000


def noise(samples: int, seed: int = 0, channels: int | None = None) -> np.ndarray:
    shape = samples if channels is None else (channels, samples)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def tone(samples: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(samples) / RATE)).astype(np.float32)


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3", "a.aiff", "a.caf"])
def test_write_and_probe_agree_with_soundfile(tmp_path, name):
    path = tmp_path / name
    assert audio.write(path, tone(RATE), RATE) == 0
    info, truth = audio.probe(path), soundfile.info(path)
    assert (info.frames, info.sample_rate, info.channels) == (truth.frames, RATE, 1)
    assert info.frames == RATE
    assert info.seconds == 1.0
    decoded, rate = audio.read(path)
    assert rate == RATE
    # libmpg123 differs from itself by a rounding error, by where its buffers lie.
    np.testing.assert_allclose(decoded, soundfile.read(path, dtype="float32")[0], rtol=0, atol=3e-7)
    # Lossy or not, it is the same tone in the same place.
    middle = slice(4000, 12000)
    assert np.corrcoef(decoded[middle], tone(RATE)[middle])[0, 1] > 0.98
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.opus", "a.mp3"])
def test_a_segment_is_a_cut_of_the_whole(tmp_path, name):
    path = tmp_path / name
    audio.write(path, noise(3 * RATE), RATE)
    whole = audio.read(path)[0]
    rng = np.random.default_rng(1)
    for _ in range(5):
        start = int(rng.integers(0, 2 * RATE))
        length = int(rng.integers(1, RATE))
        piece = audio.read(path, start=start, frames=length)[0]
        assert piece.shape == (length,)
        np.testing.assert_allclose(piece, whole[start : start + length], atol=1e-6)
    pieces = list(audio.blocks(path, block_samples=7001))
    np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "subtype, dtype, shift", [("PCM_16", np.int16, 0), ("PCM_24", np.int32, 8), ("PCM_U8", np.int16, 8)]
)
def test_integers_survive_a_round_trip(tmp_path, subtype, dtype, shift):
    bits = {"PCM_16": 16, "PCM_24": 24, "PCM_U8": 8}[subtype]
    steps = np.random.default_rng(0).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), 5000)
    steps[:2] = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    soundfile.write(tmp_path / "in.wav", (steps << shift).astype(dtype), RATE, subtype=subtype)
    samples, _ = audio.read(tmp_path / "in.wav")
    audio.write(tmp_path / "out.wav", samples, RATE, subtype=subtype)
    assert (tmp_path / "in.wav").read_bytes()[44:] == (tmp_path / "out.wav").read_bytes()[44:]


def test_clips_counts_says_and_never_wraps(tmp_path, caplog):
    samples = np.array([0.0, 1.0, -1.0, 1.01, -3.0, 100.0, 0.5], dtype=np.float32)
    assert audio.write(tmp_path / "a.wav", samples, RATE) == 3
    assert "clipped 3 samples of 7" in caplog.text
    assert audio.write(tmp_path / "one.wav", samples[:4], RATE) == 1
    assert "clipped 1 sample of 4" in caplog.text
    stored = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    np.testing.assert_array_equal(stored, [0, 32767, -32768, 32767, -32768, 32767, 16384])
    assert audio.write(tmp_path / "b.wav", samples, RATE, subtype="FLOAT") == 0
    np.testing.assert_array_equal(soundfile.read(tmp_path / "b.wav", dtype="float32")[0], samples)


def test_a_float_file_does_not_say_when_it_was_written(tmp_path):
    with audio.Writer(tmp_path / "a.wav", 44100, subtype="FLOAT", tags={"comment": "PEAK" * 200}) as writer:
        writer.append(np.linspace(-2, 2, 100, dtype=np.float32))
    written = (tmp_path / "a.wav").read_bytes()
    at = written.index(b"PEAK\x10")  # name, size, version, seconds since 1970
    assert written[at + 4 : at + 16] == bytes([16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / "a.wav")[0], np.linspace(-2, 2, 100, dtype=np.float32)
    )


def test_channels_are_averaged_or_kept(tmp_path):
    samples = noise(1000, channels=8)
    audio.write(tmp_path / "a.wav", samples, RATE, subtype="FLOAT")
    assert audio.probe(tmp_path / "a.wav").channels == 8
    np.testing.assert_array_equal(audio.read(tmp_path / "a.wav", mono=False)[0], samples)
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav")[0], samples.mean(axis=0), atol=1e-7)


def test_every_bad_file_is_named_with_its_reason(tmp_path):
    good = tmp_path / "good.flac"
    audio.write(good, noise(RATE), RATE)
    content = good.read_bytes()
    (tmp_path / "text.wav").write_text("not a sound at all")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) // 2])
    soundfile.write(tmp_path / "no_samples.wav", np.zeros(0, np.float32), RATE)
    (tmp_path / "headerless.raw").write_bytes(b"\0" * 100)
    soundfile.write(tmp_path / "nan.wav", np.array([0, 0.1, np.nan, 0], np.float32), RATE, subtype="FLOAT")
    loud = 20000 * np.sin(np.arange(400, dtype=np.float32))
    soundfile.write(tmp_path / "whole_numbers.wav", loud, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "hot.wav", loud / 1000, RATE, subtype="FLOAT")
    (tmp_path / "folder.wav").mkdir()
    reasons = {
        "text.wav": "not audio that can be read",
        "empty.wav": "0 bytes",
        "cut.flac": "truncated|damaged",
        "no_samples.wav": "no samples",
        "headerless.raw": "not audio",
        "nan.wav": "NaN or infinite samples, the first at sample 2",
        "whole_numbers.wav": r"samples up to (19999|20000).*Divide them by 32768",
        "folder.wav": "not a regular file",
        "missing.wav": "No such file",
    }
    for name, reason in reasons.items():
        with pytest.raises(audio.AudioError, match=reason) as caught:
            audio.read(tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
    np.testing.assert_array_equal(audio.read(tmp_path / "hot.wav")[0], loud / 1000)
    with pytest.raises(audio.AudioError, match="it holds 16000"):
        audio.read(good, start=15000, frames=1001)


@pytest.mark.parametrize(
    "name, samples, rate, subtype, reason",
    [
        ("a.txt", np.zeros(5), RATE, None, "suffix '.txt'"),
        ("a.wav", np.array([0.0, np.nan]), RATE, None, "NaN"),
        ("a.wav", np.zeros(5, np.int16), RATE, None, "int16"),
        ("a.wav", np.zeros((2, 3, 4)), RATE, None, "shape"),
        ("a.wav", np.zeros(0), RATE, None, "shape"),
        ("a.wav", np.zeros(5), RATE, "VORBIS", "can't hold VORBIS"),
        ("a.flac", np.zeros(5), 700000, None, "700000"),
        ("a.wav", np.zeros(5), 0, None, "0 Hz"),
        ("a.wav", np.zeros((70000, 1)), RATE, None, r"give audio as \(C, T\)"),
    ],
)
def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path, name, samples, rate, subtype, reason):
    with pytest.raises(audio.AudioError, match=reason):
        audio.write(tmp_path / name, samples, rate, subtype=subtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg"])
def test_a_full_disk_leaves_the_old_file(tmp_path, name):
    old = noise(500)
    audio.write(tmp_path / name, old, RATE)
    before = (tmp_path / name).read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
        with pytest.raises(OSError, match=name) as caught:
            audio.write(tmp_path / name, noise(200000), RATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.errno == errno.EFBIG
    assert (tmp_path / name).read_bytes() == before
    assert leftovers(tmp_path) == []


def test_a_device_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "a.wav").symlink_to("/dev/full")
    with pytest.raises(audio.AudioError, match="not a regular file"):
        audio.write(tmp_path / "a.wav", noise(10), RATE)
    assert (tmp_path / "a.wav").is_symlink()


@pytest.mark.parametrize("rates", [(48000, 22050), (16000, 22050), (44100, 48000), (8000, 24000)])
def test_resampling_keeps_a_tone_and_its_phase(rates):
    before, after = rates
    hertz, seconds = 997.0, 0.51
    samples = np.sin(2 * np.pi * hertz * np.arange(int(before * seconds)) / before)
    got = audio.resample(np.stack([samples, -samples]), before, after)
    assert got.shape == (2, audio.resampled_frames(len(samples), before, after))
    assert abs(got.shape[1] - len(samples) * after / before) <= 0.5
    expected = np.sin(2 * np.pi * hertz * np.arange(got.shape[1]) / after)
    inner = slice(got.shape[1] // 5, -got.shape[1] // 5)
    np.testing.assert_allclose(got[0][inner], expected[inner], atol=1e-4)
    np.testing.assert_array_equal(got[0], -got[1])


def test_resampling_removes_what_would_alias():
    samples = np.sin(2 * np.pi * 9000 * np.arange(48000) / 48000)
    assert audio.rms_db(audio.resample(samples, 48000, 16000)[2000:-2000]) < -100


def test_levels_of_known_signals():
    full = np.sin(2 * np.pi * 997 * np.arange(48000) / 48000)
    assert audio.rms_db(full) == pytest.approx(-3.0103, abs=1e-3)
    assert audio.peak_db(0.5 * full) == pytest.approx(-6.0206, abs=1e-3)
    assert audio.rms_db(np.zeros(5)) == audio.peak_db(np.zeros(5)) == -np.inf
    # BS.1770-4, annex 1: a full-scale 997 Hz sine in one channel is -3.01 LKFS.
    assert audio.loudness_lufs(full, 48000) == pytest.approx(-3.01, abs=0.005)
    assert audio.loudness_lufs(np.stack([full, full]), 48000) == pytest.approx(0.0, abs=0.005)
    assert audio.loudness_lufs(np.zeros(48000), 48000) == -np.inf


def test_loudness_equals_the_standards_filters_and_gates():
    # The two biquads tabulated in BS.1770-4 for 48 kHz, run by scipy; gating written out.
    rng = np.random.default_rng(3)
    envelope = np.repeat(
        [0.3, 0.002, 0.1, 0.0, 0.5, 0.02, 0.2], 5 * 48000
    )  # more than one block of the filter
    samples = envelope * rng.standard_normal(len(envelope))
    first = (
        [1.53512485958697, -2.69169618940638, 1.19839281085285],
        [1.0, -1.69065929318241, 0.73248077421585],
    )
    second = [1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]
    weighted = scipy_signal.lfilter(*second, scipy_signal.lfilter(*first, samples))
    power = np.array(
        [np.mean(weighted[i : i + 19200] ** 2) for i in range(0, len(weighted) - 19200 + 1, 4800)]
    )
    kept = power[-0.691 + 10 * np.log10(power + 1e-30) > -70]
    kept = kept[10 * np.log10(kept) > 10 * np.log10(kept.mean()) - 10]
    expected = -0.691 + 10 * np.log10(kept.mean())
    assert audio.loudness_lufs(samples, 48000) == pytest.approx(expected, abs=1e-4)
    # At other rates the same sound has the same loudness.
    other = audio.resample(samples[: 6 * 48000], 48000, 22050)
    band = audio.resample(other, 22050, 48000)
    assert audio.loudness_lufs(other, 22050) == pytest.approx(audio.loudness_lufs(band, 48000), abs=0.1)


def test_trim_equals_librosa():
    librosa = pytest.importorskip("librosa")
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(3000, 20000, 3)
        samples = np.concatenate(
            [s * rng.standard_normal(n) for s, n in zip((1e-4, 0.3, 2e-4), lengths, strict=True)]
        ).astype(np.float32)
        got, (start, end) = audio.trim(samples, 22050)
        _, expected = librosa.effects.trim(samples, top_db=40, frame_length=2048, hop_length=512)
        assert (start, end) == tuple(expected)
        np.testing.assert_array_equal(got, samples[start:end])
    assert audio.trim(np.zeros(100, np.float32), 22050)[1] == (0, 0)


@pytest.mark.parametrize(
    "name, given, written",
    [
        ("a.opus", 22050, 24000),
        ("a.opus", 44100, 48000),
        ("a.opus", 16000, 16000),
        ("a.opus", 96000, 48000),
        ("a.mp3", 20000, 22050),
        ("a.mp3", 22050, 22050),
        ("a.wav", 20001, 20001),
    ],
)
def test_a_rate_that_an_encoding_lacks_is_resampled_and_said(tmp_path, caplog, name, given, written):
    caplog.set_level("INFO")
    sound = (0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * given) / given)).astype(np.float32)
    audio.write(tmp_path / name, np.stack([sound, -sound]), given)
    found, rate = soundfile.read(tmp_path / name)
    assert (rate, len(found)) == (written, 2 * written)
    assert ((f"from {given} Hz to {written} Hz" in caplog.text) and name in caplog.text) == (given != written)
    middle = slice(written // 2, 3 * written // 2)
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(found)) / written)
    assert np.corrcoef(found[middle, 0], expected[middle])[0, 1] > 0.99
    assert np.corrcoef(found[middle, 1], -expected[middle])[0, 1] > 0.99
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "rates", [(22050, 24000), (48000, 22050), (44100, 22050), (16000, 16000), (96000, 8000)]
)
def test_resampled_in_pieces_is_resampled_whole(rates):
    rng = np.random.default_rng(3)
    for length in (1, 5, 4001, 50_000):
        whole = noise(length, channels=2)
        resampler, pieces, at = audio.Resampler(*rates, channels=2), [], 0
        while at < length:
            step = int(rng.integers(1, 9000))
            pieces.append(resampler.push(whole[:, at : at + step]))
            at += step
        found = np.concatenate([*pieces, resampler.flush()], axis=1)
        np.testing.assert_array_equal(found, audio.resample(whole, *rates))


def test_a_name_as_long_as_they_get_is_written(tmp_path):
    audio.write(tmp_path / f"{'n' * 251}.wav", noise(100), RATE)
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


def test_an_interruption_inside_the_encoder_is_raised_and_leaves_nothing(tmp_path, capfd, monkeypatch):
    def interrupted(data):
        raise KeyboardInterrupt

    def write():
        with audio.Writer(tmp_path / "a.wav", RATE) as writer:
            monkeypatch.setattr(writer._sink.file, "write", interrupted, raising=False)
            writer.append(noise(1000))

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""
