"""Data sets of Hugging Face: their audio is written out as it is."""

import json
import os
import shutil
import sys

import pytest

from gansound import audio
from gansound.data.corpus import entries, recognised
from gansound.data.readers import hugging_face, tables
from tests.layouts import FEATURES, data_set, rows_of, said, sound, table, text, write_arrow, write_parquet


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
        monkeypatch.setitem(sys.modules, name, None)
    assert recognised(root) == "hugging_face"
    assert recognised(other) == "folder"
    with pytest.raises(
        ValueError, match=r"needs pyarrow, not installed here: pip install 'gansound\[datasets\]'"
    ):
        hugging_face.extract(root, tmp_path / "out")
    with pytest.raises(ValueError, match="needs pyarrow"):
        tables.count(root / "data" / "train-00000-of-00001.parquet")
