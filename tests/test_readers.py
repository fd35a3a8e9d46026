"""Readers of public corpora, each on a tiny corpus in its exact layout, and on folders that merely look like it."""

import json
import logging
import os
import shutil

import numpy as np
import pytest

from gansound import audio
from gansound.data.corpus import LAYOUTS, entries, recognised, scan
from gansound.data.readers import hugging_face, tables

RATE = 8000


def sound(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    audio.write(path, 0.1 * np.random.default_rng(seed).standard_normal(400), RATE)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def libritts(root):
    for subset, speaker in (("train-clean-100", "19"), ("train-other-500", "20"), ("dev-clean", "84")):
        chapter = root / subset / speaker / "198"
        for number in ("000000_000000", "000010_000002"):
            stem = f"{speaker}_198_{number}"
            sound(chapter / f"{stem}.wav")
            text(chapter / f"{stem}.normalized.txt", f"mister {number}\n")
            text(chapter / f"{stem}.original.txt", f"Mr. {number}\n")
        text(chapter / f"{speaker}_198.trans.tsv", "x\ty\tz\n")
        text(chapter / f"{speaker}_198.book.tsv", "x\n")
    text(root / "speakers.tsv", "READER\n")
    return root


def vctk(root):
    for speaker, numbers in (("p225", "12"), ("p280", "1"), ("p315", "1"), ("s5", "1")):
        for number in numbers:
            folder = root / "wav48_silence_trimmed" / speaker
            sound(folder / f"{speaker}_00{number}_mic1.flac")
            if speaker != "p280":
                sound(folder / f"{speaker}_00{number}_mic2.flac")
            if speaker != "p315":
                text(root / "txt" / speaker / f"{speaker}_00{number}.txt", f"Please call {speaker}.\n")
    text(root / "wav48_silence_trimmed" / "log.txt", "trimmed")
    text(root / "speaker-info.txt", "ID  AGE  GENDER\np225  23  F\n")
    return root


COLUMNS = ("client_id", "path", "sentence", "up_votes", "down_votes", "locale")
CLIPS = {  # clip: client, sentence, table of the release beside validated.tsv
    "1": ("anna", '"Quoted at its start', "train"),
    "2": ("anna", 'He said "no", l\u2019été\u2028fini', "train"),
    "3": ("bob", "dev", "dev"),
    "4": ("cleo", '"" both ""', "test"),
    "5": ("dan", "of nobody held out", None),
    "6": ("cleo", "of a speaker held out", None),
}


def common_voice(root, columns=COLUMNS, suffix=".mp3", validated=True):
    rows = {}
    for clip, (client, sentence, table) in CLIPS.items():
        sound(root / "clips" / f"common_voice_en_{clip}.mp3")
        cells = dict(
            zip(COLUMNS, (client, f"common_voice_en_{clip}{suffix}", sentence, "2", "0", "en"), strict=True)
        )
        line = "\t".join(cells.get(column, "") for column in columns)
        for name in ("validated", table):
            if name:
                rows.setdefault(name, []).append(line)
    sound(root / "clips" / "common_voice_en_9.mp3")
    rows["invalidated"] = [
        "\t".join({"client_id": "eve", "path": "common_voice_en_9.mp3"}.get(c, "") for c in columns)
    ]
    for name, lines in rows.items():
        if validated or name != "validated":
            text(root / f"{name}.tsv", "\n".join(["\t".join(columns), *lines]) + "\n")
    return root


def speech_commands(root):
    for word in ("yes", "no"):
        for speaker in ("0a7c2a8d", "1b4c9b89", "22aa3665"):
            sound(root / word / f"{speaker}_nohash_0.wav")
    sound(root / "_background_noise_" / "white_noise.wav")
    text(root / "validation_list.txt", "yes/1b4c9b89_nohash_0.wav\nno/1b4c9b89_nohash_0.wav\n")
    text(root / "testing_list.txt", "yes/22aa3665_nohash_0.wav\nno/22aa3665_nohash_0.wav\n")
    return root


def ljspeech(root):
    sound(root / "wavs" / "LJ001-0001.wav")
    text(root / "metadata.csv", "LJ001-0001|Mr. A|Mister A\n")
    return root


def folder(root):
    sound(root / "kick" / "a.wav")
    sound(root / "snare" / "a.wav")
    return root


FEATURES = {
    "audio": {"sampling_rate": RATE, "_type": "Audio"},
    "label": {"names": ["no", "yes"], "_type": "ClassLabel"},
}


def rows_of(tmp_path, count=4):
    for i in range(count):
        content = sound(
            tmp_path / "source" / f"{i}.{('wav', 'flac', 'mp3', 'ogg')[i % 4]}", seed=i
        ).read_bytes()
        cell = {"bytes": content, "path": f"/somewhere/clip {i}.bin"}
        yield {"audio": cell, "sentence": f"satz é {i}", "speaker_id": 10 + i, "label": i % 2}


def table(rows, features=FEATURES, sound_column="audio"):
    pa = pytest.importorskip("pyarrow")
    cell = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [(sound_column, cell), ("sentence", pa.string()), ("speaker_id", pa.int64()), ("label", pa.int64())],
        metadata={"huggingface": json.dumps({"info": {"features": features}})} if features else None,
    )
    return pa.Table.from_pylist([{sound_column: row["audio"], **row} for row in rows], schema=schema)


def write_arrow(path, content):
    """As Dataset.save_to_disk of datasets 5.2 does: an Arrow stream a shard, and the JSON beside."""
    import pyarrow as pa

    path.mkdir(parents=True, exist_ok=True)
    half = (len(content) + 1) // 2
    parts = [content.slice(0, half), content.slice(half)]
    for i, part in enumerate(parts):
        with pa.ipc.new_stream(path / f"data-0000{i}-of-00002.arrow", content.schema) as writer:
            writer.write_table(part, max_chunksize=1)
    names = [{"filename": f"data-0000{i}-of-00002.arrow"} for i in range(2)]
    text(path / "state.json", json.dumps({"_data_files": names, "_split": None}))
    text(path / "dataset_info.json", json.dumps({"features": FEATURES}))
    return path


def write_parquet(path, content):
    pq = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path, row_group_size=2)


def data_set(root, tmp_path):
    write_parquet(root / "data" / "train-00000-of-00001.parquet", table(rows_of(tmp_path)))
    return root


def said(found):
    return [(e.name, e.speaker, e.text, e.label, e.split) for e in found]


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
    assert "1 validated clips of speakers held out" in caplog.text
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
    assert "1 files aren't named SPEAKER_nohash_N" in caplog.text
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


def contents(rows):
    return [row["audio"]["bytes"] for row in rows]


@pytest.mark.parametrize("features", [FEATURES, None])
def test_hugging_face_parquet(tmp_path, features):
    rows = list(rows_of(tmp_path, 5))
    root, out = tmp_path / "set", tmp_path / "out"
    data = root / "data"
    write_parquet(data / "train-00000-of-00002.parquet", table(rows[:2], features, "sound"))
    write_parquet(data / "train-00001-of-00002.parquet", table(rows[2:4], features, "sound"))
    write_parquet(data / "validation-00000-of-00001.parquet", table(rows[4:], features, "sound"))
    if features:
        assert "audio" in features  # the column "sound" isn't among them: its type alone says what it is
    with pytest.raises(ValueError, match=r"gansound data prepare .*set -o OUT"):
        entries(root)
    steps = []
    found, missing = hugging_face.extract(root, out, lambda *step: steps.append(step))
    classes = ["no", "yes"] if features else ["0", "1"]
    names = [f"train/{i:08d}_clip_{i}.{s}" for i, s in enumerate(("wav", "flac", "mp3", "ogg"))]
    assert said(found) == [
        (name, str(10 + i), f"satz é {i}", classes[i % 2], "train" if i < 4 else "valid")
        for i, name in enumerate([*names, "validation/00000000_clip_4.wav"])
    ]
    assert [e.path.read_bytes() for e in found] == contents(rows)
    assert [e.path for e in found] == [out / e.name for e in found]
    assert not missing
    assert steps == [(i, 5) for i in range(1, 6)]
    assert all(audio.probe(e.path).frames for e in found)


def test_hugging_face_saved_to_disk(tmp_path):
    rows = list(rows_of(tmp_path))
    write_arrow(tmp_path / "one", table(rows))
    found, _ = hugging_face.extract(tmp_path / "one", tmp_path / "out1")
    assert [e.path.read_bytes() for e in found] == contents(rows)
    assert [e.name for e in found][:2] == ["00000000_clip_0.wav", "00000001_clip_1.flac"]
    assert [(e.label, e.split) for e in found] == [("no", None), ("yes", None)] * 2
    root = tmp_path / "several"
    for i, split in enumerate(("train", "validation", "test.clean", "invalidated")):
        write_arrow(root / split, table([rows[i]]))
    text(
        root / "dataset_dict.json",
        json.dumps({"splits": ["train", "validation", "test.clean", "invalidated"]}),
    )
    assert recognised(tmp_path / "one") == recognised(root) == "hugging_face"
    found, _ = hugging_face.extract(root, tmp_path / "out2")
    assert [(e.path.read_bytes(), e.split) for e in found] == [
        (rows[2]["audio"]["bytes"], "test"),
        (rows[0]["audio"]["bytes"], "train"),
        (rows[1]["audio"]["bytes"], "valid"),
    ]
    shutil.rmtree(root / "validation")
    with pytest.raises(ValueError, match="names validation, but"):
        hugging_face.extract(root, tmp_path / "out2")


def test_hugging_face_extraction_goes_on_where_it_was(tmp_path):
    rows = list(rows_of(tmp_path))
    root, out = tmp_path / "set", tmp_path / "out"
    write_parquet(root / "train.parquet", table(rows))

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 2:
            raise Killed

    with pytest.raises(Killed):
        hugging_face.extract(root, out, kill)
    assert len([p for p in out.rglob("*") if p.is_file()]) == 2
    first, second = sorted((out / "train").iterdir())
    os.utime(first, ns=(1, 1))
    second.write_bytes(second.read_bytes()[:-7])  # cut by another program
    found, _ = hugging_face.extract(root, out)
    assert [e.path.read_bytes() for e in found] == contents(rows)
    assert first.stat().st_mtime_ns == 1  # not written again
    assert len([p for p in out.rglob("*") if p.is_file()]) == 4


def test_hugging_face_rows_without_usable_bytes(tmp_path):
    loose = sound(tmp_path / "elsewhere" / "loose.flac")
    root, out = tmp_path / "set", tmp_path / "out"
    sound(root / "wavs" / "inside.wav")
    cells = [
        {"bytes": None, "path": str(loose)},
        {"bytes": None, "path": "wavs/inside.wav"},
        {"bytes": None, "path": "wavs/lost.wav"},
        {"bytes": None, "path": None},
        None,
        {"bytes": b"\x1aE\xdf\xa3", "path": "a.webm"},
        {"bytes": loose.read_bytes(), "path": "../../../up.wav"},
        {"bytes": loose.read_bytes(), "path": "C:\\x\\" + "長" * 300 + ".flac"},
        {"bytes": loose.read_bytes(), "path": None},
    ]
    row = {"sentence": None, "speaker_id": None, "label": -1}
    write_parquet(root / "data" / "train-00000-of-00001.parquet", table([{"audio": c, **row} for c in cells]))
    found, missing = hugging_face.extract(root, out)
    assert [(e.path, e.name) for e in found][:2] == [
        (loose, "train/00000000_loose.flac"),
        (root / "wavs" / "inside.wav", "train/00000001_inside.wav"),
    ]
    assert [e.name for e in found][2:] == [
        "train/00000006_up.flac",  # FLAC, whatever its name said
        f"train/00000007_{'長' * 40}.flac",
        "train/00000008.flac",
    ]
    assert {(e.speaker, e.text, e.label) for e in found} == {(None, None, None)}
    assert [reason.partition(": ")[::2] for _, reason in missing] == [
        ("row 2 of train", f"no bytes, and no file {str(root / 'wavs' / 'lost.wav')!r}"),
        ("row 3 of train", "neither bytes nor a path"),
        ("row 4 of train", "neither bytes nor a path"),
        (
            "row 5 of train",
            "bytes of no format that can be read: they begin with b'\\x1aE\\xdf\\xa3', "
            "their path is 'a.webm'",
        ),
    ]
    assert {p.parent for p in tmp_path.rglob("*.flac")} == {
        loose.parent,
        out / "train",
        tmp_path / "source",
    } - {tmp_path / "source"}


def test_hugging_face_a_split_leads_out_of_no_folder(tmp_path):
    root = tmp_path / "a" / "set"
    write_arrow(tmp_path / "a" / "evil", table(rows_of(tmp_path)))
    text(root / "dataset_dict.json", json.dumps({"splits": ["../evil"]}))
    out = tmp_path / "a" / "b" / "out"
    found, _ = hugging_face.extract(root, out)
    assert len(found) == 4
    assert all(e.path.resolve().is_relative_to(out) for e in found)


def test_hugging_face_damage_is_named(tmp_path):
    root = data_set(tmp_path / "parquet", tmp_path)
    shard = root / "data" / "train-00000-of-00001.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    assert recognised(root) == "hugging_face"  # by the hub's name for it
    with pytest.raises(ValueError, match=r"train-00000-of-00001\.parquet: damaged, or not a parquet file"):
        hugging_face.extract(root, tmp_path / "out")
    root = write_arrow(tmp_path / "arrow", table(rows_of(tmp_path)))
    shard = root / "data-00001-of-00002.arrow"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"data-00001-of-00002\.arrow: damaged, or not an Arrow stream"):
        hugging_face.extract(root, tmp_path / "out")
    shard.unlink()
    with pytest.raises(ValueError, match=r"data-00001-of-00002\.arrow: "):
        hugging_face.extract(root, tmp_path / "out")
    with pytest.raises(ValueError, match=r"no Hugging Face data set\. Expected"):
        hugging_face.extract(tmp_path / "source", tmp_path / "out")


def test_hugging_face_without_pyarrow(tmp_path, monkeypatch):
    root = data_set(tmp_path / "set", tmp_path)
    other = sound(tmp_path / "other" / "a.wav").parent
    (other / "features.parquet").write_bytes((root / "data" / "train-00000-of-00001.parquet").read_bytes())
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    assert recognised(root) == "hugging_face"
    assert recognised(other) == "folder"
    with pytest.raises(ValueError, match=r"needs pyarrow: pip install 'gansound\[datasets\]'"):
        hugging_face.extract(root, tmp_path / "out")
    with pytest.raises(ValueError, match="needs pyarrow"):
        tables.count(root / "data" / "train-00000-of-00001.parquet")
