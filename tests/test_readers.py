"""Readers of public corpora, each on a tiny corpus in its exact layout, and on folders that merely look like it."""

import logging
import os
import shutil

import pytest

from gansound.data.corpus import LAYOUTS, entries, recognised, scan
from tests.layouts import (
    COLUMNS,
    common_voice,
    data_set,
    folder,
    libritts,
    ljspeech,
    rows_of,
    said,
    sound,
    speech_commands,
    table,
    text,
    vctk,
    write_parquet,
)

MAKERS = {f.__name__: f for f in (ljspeech, libritts, vctk, common_voice, speech_commands, folder)}


def test_every_layout_is_recognised_read_and_may_be_forced(tmp_path):
    makers = {**MAKERS, "hugging_face": lambda root: data_set(root, tmp_path)}
    assert set(makers) == set(LAYOUTS)
    for name, make in makers.items():
        root = make(tmp_path / name)
        assert recognised(root) == name
        if name == "hugging_face":
            continue
        found, missing = entries(root)
        assert found
        assert not missing
        assert entries(root, layout=name) == (found, missing)
        assert [e.name for e in found] == sorted(e.name for e in found)
        assert all(e.path == root / e.name for e in found)
        assert [r.path for r in scan(root, layout=name).records] == [e.path for e in found]
        for other in set(LAYOUTS) - {name, "folder"}:
            with pytest.raises(
                ValueError, match=f"not of the layout '{other}'. Expected .*; found .*'{name}'"
            ):
                entries(root, layout=other)
    whole, _ = entries(tmp_path / "vctk", layout="folder")
    assert len(whole) == 9  # both microphones: a forced folder is a folder
    with pytest.raises(ValueError, match="layout 'lj': expected one of ljspeech, "):
        entries(tmp_path, layout="lj")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="found nothing"):
        entries(tmp_path / "empty", layout="vctk")


def test_libritts(tmp_path):
    root = libritts(tmp_path / "up" / "LibriTTS")
    chapter = root / "dev-clean" / "84" / "198"
    (chapter / "84_198_000000_000000.normalized.txt").unlink()  # some of LibriTTS-R have the other alone
    for kind in ("normalized", "original"):
        (chapter / f"84_198_000010_000002.{kind}.txt").unlink()
    gone = root / "train-clean-100" / "19" / "198" / "19_198_000010_000002.wav"
    gone.unlink()
    found, missing = entries(root)
    assert said(found) == [
        ("dev-clean/84/198/84_198_000000_000000.wav", "84", "Mr. 000000_000000", None, "valid"),
        ("dev-clean/84/198/84_198_000010_000002.wav", "84", None, None, "valid"),
        ("train-clean-100/19/198/19_198_000000_000000.wav", "19", "mister 000000_000000", None, "train"),
        ("train-other-500/20/198/20_198_000000_000000.wav", "20", "mister 000000_000000", None, "train"),
        ("train-other-500/20/198/20_198_000010_000002.wav", "20", "mister 000010_000002", None, "train"),
    ]
    assert missing == [(gone, "19_198_000010_000002.normalized.txt is there, but not its sound")]
    above, _ = entries(root.parent)
    assert [(e.path, e.split) for e in above] == [(e.path, e.split) for e in found]
    root.rename(root.with_name("LibriTTS_R"))
    assert len(entries(tmp_path / "up")[0]) == 5
    one, _ = entries(tmp_path / "up" / "LibriTTS_R" / "dev-clean")
    assert [(e.name, e.split) for e in one] == [(e.name.partition("/")[2], None) for e in found[:2]]


def test_a_corpus_without_a_part_for_training_or_for_anything_else_has_no_splits(tmp_path):
    root = libritts(tmp_path / "LibriTTS")
    shutil.rmtree(root / "dev-clean")
    assert {e.split for e in entries(root)[0]} == {None}  # two subsets, both of training
    shutil.rmtree(root / "train-clean-100")
    (root / "train-other-500").rename(root / "dev-other")
    shutil.copytree(root / "dev-other", root / "test-clean")
    assert {e.split for e in entries(root)[0]} == {None}  # nothing to train on


def test_vctk(tmp_path, caplog):
    caplog.set_level(logging.INFO, "gansound")
    root = vctk(tmp_path / "VCTK-Corpus-0.92")
    text(root / "txt" / "p225" / "p225_009.txt", "Lost.")
    found, missing = entries(root)
    sounds = "wav48_silence_trimmed"
    assert said(found) == [
        (f"{sounds}/p225/p225_001_mic1.flac", "p225", "Please call p225.", None, None),
        (f"{sounds}/p225/p225_002_mic1.flac", "p225", "Please call p225.", None, None),
        (f"{sounds}/p280/p280_001_mic1.flac", "p280", "Please call p280.", None, None),
        (f"{sounds}/p315/p315_001_mic1.flac", "p315", None, None, None),
        (f"{sounds}/s5/s5_001_mic1.flac", "s5", "Please call s5.", None, None),
    ]
    assert [path for path, _ in missing] == [root / sounds / "p225" / "p225_009"]
    assert "4 files of the second microphone (mic2) are left out" in caplog.text
    assert recognised(tmp_path) == "vctk"
    assert [e.path for e in entries(tmp_path)[0]] == [e.path for e in found]


def test_vctk_080(tmp_path):
    sound(tmp_path / "wav48" / "p225" / "p225_001.wav")
    text(tmp_path / "txt" / "p225" / "p225_001.txt", "Please call Stella.")
    found, _ = entries(tmp_path)
    assert said(found) == [("wav48/p225/p225_001.wav", "p225", "Please call Stella.", None, None)]


COMMON_VOICE = [  # whoever reads these tables with quotes loses rows
    ("1", "anna", '"Quoted at its start', "train"),
    ("2", "anna", 'He said "no", l\u2019été\u2028fini', "train"),
    ("3", "bob", "dev", "valid"),
    ("4", "cleo", '"" both ""', "test"),
    ("5", "dan", "of nobody held out", "train"),
]


@pytest.mark.parametrize(
    "columns, suffix",
    [
        (COLUMNS, ".mp3"),
        (("locale", "sentence", "sentence_id", "client_id", "up_votes", "path"), ".mp3"),
        (COLUMNS, ""),
    ],
)
def test_common_voice(tmp_path, caplog, columns, suffix):
    caplog.set_level(logging.INFO, "gansound")
    root = common_voice(tmp_path / "cv-corpus-17.0-2024-03-15" / "en", columns, suffix)
    found, missing = entries(root)
    expected = [
        (f"clips/common_voice_en_{c}.mp3", who, what, None, part) for c, who, what, part in COMMON_VOICE
    ]
    assert said(found) == expected
    assert not missing
    assert "1 validated clip of speakers held out" in caplog.text
    above, _ = entries(root.parent)
    assert said(above) == [(f"en/{name}", *rest) for name, *rest in expected]
    (root / "clips" / "common_voice_en_3.mp3").unlink()
    _, missing = entries(root)
    assert [(path.stem, reason) for path, reason in missing] == [
        ("common_voice_en_3", "validated.tsv:4 names it, but clips/ lacks it")
    ]


def test_common_voice_of_other_tables(tmp_path):
    root = common_voice(tmp_path / "a", validated=False)
    expected = [(who, what, part) for _, who, what, part in COMMON_VOICE[:4]]
    assert [(e.speaker, e.text, e.split) for e in entries(root)[0]] == expected
    root = common_voice(tmp_path / "b")
    for name in ("train", "dev", "test"):
        (root / f"{name}.tsv").unlink()
    assert [e.split for e in entries(root)[0]] == [None] * 6


def test_bad_tables_of_common_voice_are_named_with_their_line(tmp_path):
    root = common_voice(tmp_path)
    with (root / "validated.tsv").open("a") as lines:
        lines.write("anna\tcommon_voice_en_1.mp3\n")
    with pytest.raises(ValueError, match=r"validated\.tsv:8: got 2 columns, expected 6"):
        entries(root)
    (root / "validated.tsv").write_text("client_id\tpath\n")
    with pytest.raises(ValueError, match="first line lacks sentence; got client_id, path"):
        entries(root)
    (root / "validated.tsv").write_bytes("client_id\tpath\tsentence\na\tb\té\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"validated\.tsv:.*Expected UTF-8"):
        entries(root)


def test_speech_commands(tmp_path, caplog):
    root = speech_commands(tmp_path / "speech_commands_v0.02")
    sound(root / "yes" / "unnamed.wav")
    text(
        root / "testing_list.txt",
        "yes/22aa3665_nohash_0.wav\nno/22aa3665_nohash_0.wav\nno/lost_nohash_1.wav\n",
    )
    found, missing = entries(root)
    parts = {"0a7c2a8d": "train", "1b4c9b89": "valid", "22aa3665": "test"}
    assert said(found) == [
        (f"{word}/{speaker}_nohash_0.wav", speaker, None, word, part)
        for word in ("no", "yes")
        for speaker, part in parts.items()
    ]
    assert missing == [(root / "no" / "lost_nohash_1.wav", "testing_list.txt names it, but it isn't there")]
    assert "1 file isn't named SPEAKER_nohash_N and is left out" in caplog.text
    assert [e.path for e in entries(tmp_path)[0]] == [e.path for e in found]


def test_words_without_the_lists_are_a_folder(tmp_path):
    root = speech_commands(tmp_path)
    shutil.rmtree(root / "_background_noise_")
    (root / "testing_list.txt").unlink()
    assert recognised(root) == "folder"
    found, _ = entries(root, speaker_pattern=r"/([^_]+)_nohash")
    assert [(e.label, e.speaker, e.split) for e in found][:2] == [
        ("no", "0a7c2a8d", None),
        ("no", "1b4c9b89", None),
    ]


def test_folders_that_merely_look_like_a_corpus_are_folders(tmp_path):
    near = tmp_path
    sound(near / "librispeech" / "train-clean-100" / "19" / "198" / "19-198-0000.flac")
    text(near / "librispeech" / "train-clean-100" / "19" / "198" / "19-198.trans.txt", "19-198-0000 A\n")
    sound(near / "subset" / "test-clean" / "a.wav")
    sound(near / "swapped" / "train-clean-100" / "19" / "198" / "20_198_000000_000000.wav")
    sound(near / "wav48" / "wav48" / "p225" / "take1.wav")
    sound(near / "mics" / "wav48_silence_trimmed" / "p225" / "p225_001.wav")  # of neither version
    sound(near / "clips" / "clips" / "a.mp3")
    text(near / "clips" / "train.tsv", "path\tsentence\na.mp3\tA\n")
    sound(near / "lists" / "yes" / "a.wav")
    text(near / "lists" / "validation_list.txt", "yes/a.wav\n")
    text(near / "lists" / "testing_list.txt", "")
    sound(near / "csv" / "metadata.csv" / "a.wav")
    sound(near / "table" / "wavs" / "a.wav")
    text(near / "table" / "metadata.txt", "a|A\n")
    sound(near / "states" / "a.wav")
    text(near / "states" / "state.json", "[1]")
    text(near / "states" / "dataset_dict.json", "no JSON")
    sound(near / "features" / "a.wav")
    write_parquet(near / "features" / "features.parquet", table(rows_of(tmp_path)).select(["sentence"]))
    sound(near / "images" / "a.wav")
    images = table(rows_of(tmp_path), {"picture": {"_type": "Image"}}, "picture")
    write_parquet(near / "images" / "data" / "train-00000-of-00001.parquet", images)
    sound(near / "beside" / "a.wav")
    write_parquet(near / "beside" / "metadata.parquet", table(rows_of(tmp_path)))
    sound(near / "broken" / "a.wav")
    text(near / "broken" / "x.parquet", "no parquet")
    for place in sorted(set(near.iterdir()) - {near / "source"}):
        assert recognised(place) == "folder", place
        assert len(entries(place)[0]) == 1, place


def test_a_folder_is_recognised_by_a_few_names(tmp_path, monkeypatch):
    # A corpus of a million files in one folder must not be listed seven times before it is read.
    for i in range(3000):
        (tmp_path / f"{i}.wav").touch()
    listed = 0

    class Counted:
        def __init__(self, path):
            self.inner = scandir(path)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.inner.close()

        def __iter__(self):
            return self

        def __next__(self):
            nonlocal listed
            item = next(self.inner)
            listed += 1
            return item

    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", Counted)
    assert recognised(tmp_path) == "folder"
    assert 0 < listed < 3000


def test_ljspeech_holds_other_separators_of_lines_than_newline(tmp_path):
    root = ljspeech(tmp_path)
    text(root / "metadata.csv", "\ufeffLJ001-0001|a\u2028b\x85c|a\u2028b\r\n")
    found, missing = entries(root)
    assert [e.text for e in found] == ["a\u2028b"]
    assert not missing


def test_a_text_that_is_not_utf8_is_named(tmp_path):
    root = vctk(tmp_path)
    (root / "txt" / "s5" / "s5_001.txt").write_bytes("été".encode("latin-1"))
    with pytest.raises(ValueError, match=r"s5_001\.txt: not UTF-8"):
        entries(root)
