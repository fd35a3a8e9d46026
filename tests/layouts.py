"""Public corpora on a small scale, each in its exact layout."""

import json

import numpy as np
import pytest

from gansound import audio

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
