"""What a file holds, whatever its header says; each file is spoilt here, and what it held is known."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gansound import audio
from gansound.audio import contents, mpeg

RATE = 16000


def noise(samples, seed=0, channels=None):
    shape = samples if channels is None else (samples, channels)
    return (0.1 * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32)


def written(path, samples, rate=RATE, **how):
    """A file of soundfile's; its bytes."""
    if path.suffix == ".opus":
        how |= {"format": "OGG", "subtype": "OPUS"}
    soundfile.write(path, samples, rate, **how)
    return path.read_bytes()


CONTAINERS = {
    "a.wav": {},
    "b.wav": {"subtype": "FLOAT", "endian": "BIG"},  # RIFX
    "c.wav": {"subtype": "ULAW"},
    "a.rf64": {"format": "RF64"},
    "a.w64": {},
    "a.aiff": {},
    "a.aifc": {"format": "AIFF", "subtype": "FLOAT"},
    "a.au": {},
    "b.au": {"endian": "LITTLE"},
    "a.caf": {},
    "a.sph": {"format": "NIST", "subtype": "PCM_16"},
}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("name", CONTAINERS)
def test_a_cut_file_says_what_is_lost(tmp_path, name, channels):
    path = tmp_path / name
    content = written(path, noise(2 * RATE, channels=channels), **CONTAINERS[name])
    assert audio.probe(path).seconds == 2
    path.write_bytes(content[: -len(content) // 4])
    for use in (audio.probe, audio.read, lambda path: list(audio.blocks(path))):
        with pytest.raises(
            audio.AudioError, match=r"cut: header says 2\.0\d s, file holds 1\.[45]\d s"
        ) as caught:
            use(path)
        assert "elete" not in str(caught.value)
    path.write_bytes(content[:-100])  # as many headers that count themselves are wrong
    assert audio.probe(path).frames < 2 * RATE


def sizes(content, name):
    """Where a file says how long it is: offset and format of the whole and of the samples."""
    if name.endswith(".wav"):
        order = ">" if content[:4] == b"RIFX" else "<"
        return [(4, f"{order}I"), (content.index(b"data") + 4, f"{order}I")]
    if name.endswith(".w64"):
        return [(16, "<Q"), (content.index(b"data") + 16, "<Q")]
    if name.endswith((".aiff", ".aifc")):
        return [(4, ">I"), (content.index(b"SSND") + 4, ">I")]
    if name.endswith(".caf"):
        return [(content.index(b"data") + 4, ">Q")]
    return [(8, ">I" if content[:4] == b".snd" else "<I")]


@pytest.mark.parametrize("unfilled", [0, -1, 0x7FFFFFFF, 0x80000000, 0x7FFFF024])
@pytest.mark.parametrize("name", [name for name in CONTAINERS if not name.endswith((".rf64", ".sph"))])
def test_a_size_that_was_never_filled_in_is_that_of_the_file(tmp_path, name, unfilled):
    samples = noise(RATE)
    content = bytearray(written(tmp_path / name, samples, **CONTAINERS[name]))
    whole = audio.read(tmp_path / name)[0]
    for offset, form in sizes(content, name):
        struct.pack_into(form, content, offset, unfilled & (256 ** struct.calcsize(form) - 1))
    (tmp_path / name).write_bytes(content)
    assert audio.probe(tmp_path / name).frames >= RATE  # behind AIFF's samples may stand a chunk
    assert audio.probe(tmp_path / name).frames < RATE + 40
    np.testing.assert_array_equal(audio.read(tmp_path / name)[0][:RATE], whole)
    np.testing.assert_array_equal(audio.read(tmp_path / name, start=999, frames=77)[0], whole[999:1076])


def test_a_file_without_samples_says_so_and_nothing_is_taken_for_them(tmp_path):
    content = written(tmp_path / "a.wav", noise(0))
    (tmp_path / "tags.wav").write_bytes(content + b"LIST" + struct.pack("<I", 8) + b"INFOabcd")
    for name in ("a.wav", "tags.wav"):
        with pytest.raises(audio.AudioError, match="a header and no samples") as caught:
            audio.probe(tmp_path / name)
        assert "elete" not in str(caught.value)


def test_more_than_four_gigabytes_in_a_stream(tmp_path):
    content = bytearray(written(tmp_path / "a.wav", noise(100)))
    struct.pack_into("<I", content, 40, 2**32 - 1)
    (tmp_path / "a.wav").write_bytes(content)
    os.truncate(tmp_path / "a.wav", 44 + 2 * (2**31 + 100_000))  # sparse
    assert audio.probe(tmp_path / "a.wav").frames == 2**31 + 100_000
    assert not audio.read(tmp_path / "a.wav", start=2**31, frames=100_000)[0].any()


@pytest.mark.parametrize("name", ["a.wav", "a.aiff", "a.au", "a.w64", "a.caf", "a.ogg", "a.opus", "a.mp3"])
def test_sounds_one_behind_the_other_are_one(tmp_path, name):
    first, second = tmp_path / f"1{name}", tmp_path / f"2{name}"
    content = written(first, noise(RATE, 1)) + written(second, noise(RATE // 2, 2))
    path = tmp_path / name
    path.write_bytes(content)
    whole = np.concatenate([audio.read(first)[0], audio.read(second)[0]])
    assert audio.probe(path).frames == len(whole) == RATE + RATE // 2
    np.testing.assert_array_equal(audio.read(path)[0], whole)
    np.testing.assert_array_equal(
        audio.read(path, start=RATE - 50, frames=100)[0], whole[RATE - 50 : RATE + 50]
    )
    np.testing.assert_array_equal(np.concatenate(list(audio.blocks(path, block_samples=7001))), whole)
    path.write_bytes(content + written(tmp_path / f"3{name}", noise(RATE, channels=2)))
    with pytest.raises(audio.AudioError, match="several sounds one behind the other"):
        audio.read(path)


def test_a_flac_behind_another_is_named(tmp_path):
    content = written(tmp_path / "a.flac", noise(RATE))
    (tmp_path / "a.flac").write_bytes(content + content)
    for use in (audio.read, lambda path: list(audio.blocks(path))):
        with pytest.raises(audio.AudioError, match=r"a second FLAC file lies behind the first 1\.00 s"):
            use(tmp_path / "a.flac")


def without_xing(content):
    return content[mpeg.frame_length(content[:4]) :]


def with_frames(content, factor):
    changed = bytearray(content)
    at = next(p for p in (content.find(b"Xing"), content.find(b"Info")) if p >= 0) + 8
    struct.pack_into(">I", changed, at, int(struct.unpack_from(">I", content, at)[0] * factor))
    return bytes(changed)


@pytest.fixture(scope="module")
def mp3(tmp_path_factory):
    """Two seconds whose bit rate changes: first noise, then silence."""
    path = tmp_path_factory.mktemp("mp3") / "a.mp3"
    sound = noise(2 * RATE)
    sound[RATE:] *= 1e-4
    content = written(path, sound, bitrate_mode="VARIABLE", compression_level=0.2)
    assert b"Xing" in content[:200]
    return content, audio.read(path)[0]


@pytest.mark.parametrize("factor", [0.39, 0.5, 2, 1000])
def test_an_mp3_is_as_long_as_its_frames(tmp_path, mp3, factor):
    content, whole = mp3
    (tmp_path / "a.mp3").write_bytes(with_frames(content, factor))
    np.testing.assert_array_equal(audio.read(tmp_path / "a.mp3")[0], whole)
    assert len(whole) == 2 * RATE


def test_an_mp3_without_a_header_for_all(tmp_path, mp3):
    content, whole = mp3
    bare = without_xing(content)
    frames, at = 0, 0
    while at < len(bare):  # MPEG-2: 576 samples each
        frames, at = frames + 1, at + mpeg.frame_length(bare[at : at + 4])
    assert at == len(bare)
    path = tmp_path / "a.mp3"
    path.write_bytes(bare)
    sound = audio.read(path)[0]
    assert frames * 576 - 529 <= len(sound) <= frames * 576  # a decoder is late by 529
    # The same sound, with what the encoder put before and behind it.
    late = int(np.argmax(np.correlate(sound[: RATE // 2], whole[1000:2000], "valid"))) - 1000
    assert 0 <= late < 2000
    np.testing.assert_allclose(sound[late : late + 2 * RATE], whole, atol=1e-6)
    tag = b"ID3\4\0\0\0\0\2\1" + bytes(257)  # 10 bytes and 257
    path.write_bytes(tag + bare + b"TAG" + bytes(125))
    np.testing.assert_array_equal(audio.read(path)[0], sound)


def test_a_cut_mp3_is_named(tmp_path, mp3):
    content, _ = mp3
    path = tmp_path / "a.mp3"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(audio.AudioError, match=r"cut: header says 2\.0\d s, file holds 0\.\d\d s"):
        audio.read(path)


def test_garbage_between_frames_is_passed_over(tmp_path, mp3):
    content, whole = mp3
    lengths, at = [], 0
    while at < len(content):
        at += mpeg.frame_length(content[at : at + 4])
        lengths.append(at)
    middle = lengths[-20]
    (tmp_path / "a.mp3").write_bytes(content[:middle] + b"\xff\xf3garbage\xff" * 100 + content[middle:])
    np.testing.assert_array_equal(audio.read(tmp_path / "a.mp3")[0], whole)


def test_a_constant_bit_rate_needs_no_mending(tmp_path):
    content = written(tmp_path / "a.mp3", noise(RATE), bitrate_mode="CONSTANT", compression_level=0.3)
    assert contents.contents(lambda at, count: content[at : at + count], len(content)) == contents.Contents()


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_an_ogg_without_its_last_page_is_cut(tmp_path, name):
    content = written(tmp_path / name, noise(4 * RATE))
    last = content.rindex(b"OggS")
    for stop in (last, last - 10, last + 30):
        (tmp_path / name).write_bytes(content[:stop])
        with pytest.raises(audio.AudioError, match=r"cut: it ends without its last page, file holds"):
            audio.probe(tmp_path / name)


SEEKS = {
    "a.ogg": {},
    "a.opus": {},
    "a.mp3": {},
    "gsm.wav": {"subtype": "GSM610"},
    "ima.wav": {"subtype": "IMA_ADPCM"},
    "ms.wav": {"subtype": "MS_ADPCM"},
    "g721.wav": {"subtype": "G721_32"},
    "g721.au": {"subtype": "G721_32"},
    "g723.au": {"subtype": "G723_24"},
    "dwvw.aiff": {"subtype": "DWVW_16"},
    "alac.caf": {"subtype": "ALAC_16"},
    "ulaw.wav": {"subtype": "ULAW"},
    "a.flac": {},
    "a.wav": {},
}


@pytest.mark.parametrize("name", SEEKS)
def test_a_segment_of_any_encoding_is_bit_for_bit_that_of_the_whole(tmp_path, name):
    sound = noise(3 * RATE)
    sound[:: RATE // 3] = 0.9  # libvorbis changes its blocks' lengths
    written(tmp_path / name, sound, **SEEKS[name])
    whole = audio.read(tmp_path / name)[0]
    assert len(whole) == audio.probe(tmp_path / name).frames
    rng = np.random.default_rng(1)
    for start in rng.integers(0, 2 * RATE, 12):
        length = int(rng.integers(1, RATE))
        piece = audio.read(tmp_path / name, start=int(start), frames=length)[0]
        np.testing.assert_array_equal(piece, whole[start : start + length])


@pytest.mark.parametrize("rate", [1, 999, 384_001, 1_152_122_880])
def test_a_rate_that_cannot_be_is_named_before_anything_is_decoded(tmp_path, rate):
    content = bytearray(written(tmp_path / "a.wav", noise(RATE)))
    struct.pack_into("<I", content, 24, rate)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(audio.AudioError, match=f"header says {rate:,} Hz, expected 1,000 to 384,000"):
        audio.probe(tmp_path / "a.wav")


def flac_of(content, samples):
    """A FLAC file whose header says another length, in 36 bits."""
    word = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    return content[:18] + word.to_bytes(8, "big") + content[26:]


def test_a_flac_of_unknown_length_is_counted(tmp_path):
    sound = noise(3 * RATE)
    content = written(tmp_path / "a.flac", sound)
    whole = audio.read(tmp_path / "a.flac")[0]
    (tmp_path / "a.flac").write_bytes(flac_of(content, 0))
    assert audio.probe(tmp_path / "a.flac").frames == 3 * RATE
    np.testing.assert_array_equal(audio.read(tmp_path / "a.flac")[0], whole)
    np.testing.assert_array_equal(
        audio.read(tmp_path / "a.flac", start=RATE, frames=9)[0], whole[RATE : RATE + 9]
    )


def test_a_header_of_2_to_the_36_samples_takes_no_memory(tmp_path):
    content = written(tmp_path / "a.flac", noise(3 * RATE))
    (tmp_path / "a.flac").write_bytes(flac_of(content, 2**36 - 1))
    with pytest.raises(audio.AudioError, match="header says 68,719,476,735 samples"):
        audio.probe(tmp_path / "a.flac")
    claimed = len(content) * 8000  # as much as could be
    (tmp_path / "a.flac").write_bytes(flac_of(content, claimed))
    assert audio.probe(tmp_path / "a.flac").frames == claimed
    with pytest.raises(audio.AudioError, match=f"decoding stopped at sample {3 * RATE} of {claimed}"):
        audio.read(tmp_path / "a.flac")


def test_a_pointer_of_git_lfs_is_named_as_such(tmp_path):
    (tmp_path / "a.wav").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 76580\n", encoding="ascii"
    )
    with pytest.raises(audio.AudioError, match=r"Git LFS pointer.*git lfs pull"):
        audio.probe(tmp_path / "a.wav")


def test_a_name_that_is_no_unicode(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system takes Unicode only")
    audio.write(path, noise(RATE), RATE)
    assert audio.probe(path).frames == RATE
    assert len(audio.read(path)[0]) == RATE
    assert len(audio.digest(path)) == 16


def test_channels_that_cancel_are_not_mixed(tmp_path):
    one = noise(RATE)
    rng = np.random.default_rng(2)
    cases = {
        "upside down": (np.stack([one, -one]), 0),
        "upside down and softer": (np.stack([0.95 * one, -one]), 1),
        "same": (np.stack([one, one]), None),
        "one silent": (np.stack([one, 0 * one]), None),
        "unrelated": (np.stack([one, noise(RATE, 3)]), None),
        "one of eight": (np.concatenate([one[None], np.zeros((7, RATE), np.float32)]), None),
        "silent": (np.zeros((2, RATE), np.float32), None),
    }
    for name, (sound, channel) in cases.items():
        path = tmp_path / f"{name}.wav"
        audio.write(path, sound, RATE, subtype="FLOAT")
        assert audio.cancelling(path) == channel, name
        expected = sound.mean(axis=0) if channel is None else sound[channel]
        np.testing.assert_allclose(audio.read(path)[0], expected, atol=1e-7)
        start = int(rng.integers(RATE - 100))
        np.testing.assert_allclose(
            audio.read(path, start=start, frames=100)[0], expected[start : start + 100], atol=1e-7
        )
        np.testing.assert_array_equal(audio.read(path, mono=False)[0], sound)


def test_a_digest_changes_with_the_sound_and_not_with_the_place(tmp_path):
    one = audio.digest(tmp_path / "a.wav") if written(tmp_path / "a.wav", noise(RATE)) else ""
    written(tmp_path / "b.wav", noise(RATE))
    assert audio.digest(tmp_path / "b.wav") == one
    written(tmp_path / "b.wav", noise(RATE, 1))
    assert audio.digest(tmp_path / "b.wav") != one
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "b.wav").write_bytes(content + b"\0")
    assert audio.digest(tmp_path / "b.wav") != one
    with pytest.raises(audio.AudioError, match="No such file"):
        audio.digest(tmp_path / "none.wav")


def test_a_name_of_the_longest_kind_is_written(tmp_path):
    path = tmp_path / ("é" * 120 + "x" * 11 + ".wav")  # 255 bytes
    audio.write(path, noise(100), RATE)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
