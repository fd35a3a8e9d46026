"""`gansound stream`: frames cut anywhere in, the samples of `vocode` out, while the frames still come."""

import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from gansound import cli
from gansound.cli import stream as command
from gansound.inference.vocoder import Vocoder
from gansound.mel import MelSpec
from gansound.model_folder import save_model_folder
from tests import warm
from tests.tiny import save_tiny_model

BANDS, HOP = 80, 256
STEP = 1 / 32768
LAUNCH = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); from gansound import cli; "
    "sys.exit(cli.main())"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def vocoder(folder: Path) -> Vocoder:
    return Vocoder.from_pretrained(folder, device="cpu", backend="eager")


def some_mel(frames: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((BANDS, frames)) - 3).astype(np.float32)


def as_bytes(mel: np.ndarray) -> bytes:
    return mel.T.astype("<f4").tobytes()


def whole(vocoder: Vocoder, mel: np.ndarray) -> np.ndarray:
    return vocoder(mel, warn=False)[0].numpy()


def samples(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<i2") * STEP


@contextmanager
def stdin_of(monkeypatch: pytest.MonkeyPatch, *pieces: bytes) -> Iterator[None]:
    """A real pipe as stdin, filled from another thread piece by piece."""
    reading, writing = os.pipe()

    def fill() -> None:
        with open(writing, "wb", buffering=0) as file:  # noqa: PTH123
            for piece in pieces:
                file.write(piece)

    thread = threading.Thread(target=fill)
    with open(reading, "rb") as stdin:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        thread.start()
        yield
        thread.join(240)
        assert not thread.is_alive()


@pytest.fixture
def stream(folder: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture) -> Callable:
    """Runs the command in this process: stdin's bytes, more arguments → code, stdout, stderr."""

    def run(*arguments: object, stdin: bytes | list[bytes] | None = None) -> tuple[int, bytes, str]:
        monkeypatch.setattr("torch.set_num_threads", lambda count: None)  # this process's own is the tests'
        line = ["stream", "--model", str(folder), "--backend", "eager", *map(str, arguments)]
        with stdin_of(monkeypatch, *([stdin] if isinstance(stdin, bytes) else stdin or [])):
            code = cli.main(line)
        out, err = capsysbinary.readouterr()
        return code, out, err.decode()

    return run


def test_the_samples_are_those_of_vocode(
    stream: Callable, folder: Path, tmp_path: Path, capsysbinary: Any
) -> None:
    mel = some_mel(150)
    np.save(tmp_path / "mel.npy", mel)
    assert cli.main(["vocode", f"{tmp_path}/mel.npy", "--model", str(folder), "-o", f"{tmp_path}/a.wav"]) == 0
    expected = soundfile.read(tmp_path / "a.wav", dtype="int16")[0]
    capsysbinary.readouterr()
    code, out, err = stream(stdin=as_bytes(mel))
    assert code == 0
    got = np.frombuffer(out, "<i2")
    assert got.shape == expected.shape == (150 * HOP,)
    assert expected.std() > 1000
    # The same but where rounding falls on the other side of a half.
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert (got != expected).mean() < 0.01
    assert "80 bands, 22050 Hz" in err


@pytest.mark.parametrize("seed", range(3))
def test_bytes_may_come_in_any_pieces(stream: Callable, vocoder: Vocoder, seed: int) -> None:
    mel, rng = some_mel(30, seed), np.random.default_rng(seed)
    data = as_bytes(mel)
    edges = [0, *sorted(rng.integers(0, len(data), 60)), len(data)]
    code, out, _ = stream(stdin=[data[a:b] for a, b in itertools.pairwise(edges)])
    assert code == 0
    assert np.abs(samples(out) - whole(vocoder, mel)).max() <= STEP


def launched(folder: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    line = [warm.python(), "-c", LAUNCH, "stream", "--model", str(folder), "--backend", "eager", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, bufsize=0)


def test_it_talks_before_the_frames_end(folder: Path, vocoder: Vocoder) -> None:
    """Single bytes in; every sample that is final is there while stdin is still open. Then the player is killed."""
    mel = some_mel(200)
    expected = whole(vocoder, mel)
    late = vocoder.runner("stream").lookahead_samples
    with launched(folder, "--wav") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        data = as_bytes(mel)
        frames, single = 20, 2 * 4 * BANDS  # two frames byte by byte: each is a turn of both processes
        for n in range(single):
            process.stdin.write(data[n : n + 1])
        process.stdin.write(data[single : frames * 4 * BANDS + 7])
        final = 44 + 2 * (frames * HOP - late)
        out = b""
        while len(out) < final:  # waits for ever where something is held back
            out += process.stdout.read(final - len(out))
        assert process.poll() is None
        assert out[:4] == b"RIFF"
        assert np.abs(samples(out[44:]) - expected[: frames * HOP - late]).max() <= STEP
        process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            for n in range(frames * 4 * BANDS + 7, len(data), 1000):
                process.stdin.write(data[n : n + 1000])
        process.stdin.close()
        error = process.stderr.read().decode()
        assert process.wait(240) == 1
    assert "Traceback" not in error
    assert "error" not in error.lower()


def test_wav_to_a_file_and_an_interruption(folder: Path, vocoder: Vocoder, tmp_path: Path) -> None:
    """A file gets its sizes at the end, after what is there already, also where Ctrl-C is the end."""
    mel = some_mel(12)
    late = vocoder.runner("stream").lookahead_samples
    path = tmp_path / "out.wav"
    with path.open("wb") as file:
        file.write(b"before")
        file.flush()
        line = [sys.executable, "-c", LAUNCH, "stream", "--model", str(folder), "--backend", "eager", "--wav"]
        process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=file, stderr=subprocess.PIPE)
    with process:
        assert process.stdin is not None
        process.stdin.write(as_bytes(mel))
        process.stdin.flush()
        while path.stat().st_size < 6 + 44 + 2 * (12 * HOP - late):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130, error
    assert error.endswith(b"error: interrupted\n")
    data = path.read_bytes()
    assert data.startswith(b"beforeRIFF")
    with wave.open(io.BytesIO(data[6:])) as file:
        assert file.getnframes() == 12 * HOP - late
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (22050, 1, 2)


def test_wav_on_a_pipe_is_read_by_others(stream: Callable, vocoder: Vocoder) -> None:
    mel = some_mel(30)
    code, out, _ = stream("--wav", stdin=as_bytes(mel))
    assert code == 0
    sound, rate = soundfile.read(io.BytesIO(out))
    assert rate == 22050
    assert np.abs(sound - whole(vocoder, mel)).max() <= STEP


@pytest.mark.parametrize("size", [0, 2, 70_000])
def test_a_complete_header_is_the_one_that_python_writes(size: int) -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setparams((1, 2, 44100, 0, "NONE", ""))
        writer.writeframes(bytes(size))
        assert command.wav_header(44100, size) == file.getvalue()[:44]


def test_more_than_a_header_can_say_stays_unknown() -> None:
    assert command.wav_header(8000, 2**32) == command.wav_header(8000)
    assert command.wav_header(8000)[-4:] == b"\xff" * 4


def test_frames_that_end_in_the_middle(stream: Callable, vocoder: Vocoder, tmp_path: Path) -> None:
    mel = some_mel(21)
    code, out, err = stream(stdin=as_bytes(mel)[:-5])
    assert code == 1
    assert np.abs(samples(out) - whole(vocoder, mel[:, :20])).max() <= STEP
    assert "315 bytes left over after 20 frames" in err
    assert "multiple of 320" in err
    # To a file: whole or not at all.
    code, _, err = stream("-o", tmp_path / "a.wav", stdin=as_bytes(mel)[:-5])
    assert code == 1
    assert "315 bytes left over" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", [0, 3, 63, 64, 129])
def test_a_frame_that_is_not_finite(stream: Callable, vocoder: Vocoder, bad: int) -> None:
    mel = some_mel(140)
    broken = mel.copy()
    broken[[3, 70], bad] = np.nan, np.inf
    code, out, err = stream(stdin=as_bytes(broken))
    assert code == 1
    assert f"stdin: frame {bad} (counted from 0) holds nan in band 3" in err
    assert len(out) == 2 * bad * HOP
    if bad:
        assert np.abs(samples(out) - whole(vocoder, mel[:, :bad])).max() <= STEP


@pytest.mark.parametrize("bad", [1.1e4, -3e19, np.inf])
def test_a_value_that_no_mel_has(stream: Callable, tmp_path: Path, bad: float) -> None:
    mel = some_mel(70)
    mel[7, 66] = bad
    (tmp_path / "frames.f32").write_bytes(as_bytes(mel))
    code, _, err = stream("-i", tmp_path / "frames.f32", "-o", tmp_path / "out.wav")
    assert code == 1
    assert f"frames.f32: frame 66 (counted from 0) holds {np.float32(bad):.4g} in band 7" in err
    assert "bytes look like" not in err
    assert not (tmp_path / "out.wav").exists()
    code, _, _ = stream(stdin=as_bytes(np.full((BANDS, 5), 24.0, np.float32)))
    assert code == 0


@pytest.mark.parametrize("kind, name", [("<f8", "float64"), (">f4", "big-endian float32")])
@pytest.mark.parametrize("rounded", [False, True])
def test_numbers_of_another_type_are_recognised(
    stream: Callable, tmp_path: Path, kind: str, name: str, rounded: bool
) -> None:
    mel = np.random.default_rng(0).standard_normal((BANDS, 40)) - 3
    mel = some_mel(40) if rounded else mel  # float32 values in float64: their low bits are zero
    code, out, err = stream("-o", tmp_path / "out.wav", stdin=mel.T.astype(kind).tobytes())
    assert (code, out) == (1, b"")
    assert "stdin: frame 0 (counted from 0) holds" in err
    assert f"the bytes look like {name}" in err
    assert "out.wav" not in err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_file_on_stdin_is_recognised(stream: Callable, tmp_path: Path) -> None:
    saved = io.BytesIO()
    np.save(saved, some_mel(20))
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(9000), 22050, format="WAV")
    (tmp_path / "frames.f32").write_bytes(saved.getvalue())
    pieces = [saved.getvalue()[:3], saved.getvalue()[3:]]
    for arguments, stdin, said in (
        ([], saved.getvalue(), "stdin: begins as a .npy file"),
        ([], pieces, "stdin: begins as a .npy file"),
        (["-i", tmp_path / "frames.f32"], b"", "frames.f32: begins as a .npy file"),
        ([], sound.getvalue(), "stdin: begins as a WAV file"),
    ):
        code, out, err = stream(*arguments, stdin=stdin)
        assert (code, out) == (1, b"")
        assert said in err
        assert "-i" in err


def test_nothing_in_is_nothing_out(stream: Callable) -> None:
    code, out, err = stream(stdin=b"")
    assert (code, out) == (0, b"")
    assert "no frames" in err


@pytest.mark.parametrize(
    "name, save",
    [
        ("mel.npy", np.save),
        ("bf.npy", lambda path, mel: np.save(path, np.asfortranarray(mel.astype(">f8"))[None])),
        ("mel.f32", lambda path, mel: path.write_bytes(as_bytes(mel))),
    ],
)
def test_file_to_file(stream: Callable, vocoder: Vocoder, tmp_path: Path, name: str, save: Any) -> None:
    mel = some_mel(4096 + 70)  # more than a block
    save(tmp_path / name, mel)
    code, out, _ = stream("-i", tmp_path / name, "-o", tmp_path / "a.flac")
    assert (code, out) == (0, b"")
    sound, rate = soundfile.read(tmp_path / "a.flac")
    assert rate == 22050
    assert np.abs(sound - whole(vocoder, mel)).max() <= STEP
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.flac", name])


def test_a_long_file_is_never_in_memory_whole(tmp_path: Path) -> None:
    """A quarter of an hour of mel, 25 MB, in pieces of at most a block."""
    frames = 78_000
    path = tmp_path / "long.npy"
    mel = np.lib.format.open_memmap(path, "w+", np.float32, (BANDS, frames))
    mel[0] = np.arange(frames) / -10
    del mel
    pieces, total = command.mapped_mel(path, BANDS)
    assert total == frames
    seen = 0
    tracemalloc.start()
    try:
        for piece in command.sound_only(pieces, "long.npy", MelSpec.preset("hifigan")):
            assert piece[0, 0] == np.float32(seen / -10)
            seen += piece.shape[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert seen == frames
    assert peak < 3 * 4 * BANDS * command.BLOCK_FRAMES


@pytest.mark.parametrize(
    "array, words",
    [
        (
            np.zeros((10, BANDS), np.float32),
            "shape (10, 80), expected (80 bands, frames); it looks transposed",
        ),
        (np.zeros((2, BANDS, 9), np.float32), "shape (2, 80, 9)"),
        (np.zeros(BANDS, np.float32), "shape (80,)"),
        (np.zeros((BANDS, 3), complex), "complex"),
        (np.array([[{}]], object), "Python objects"),
        (b"nothing", "can't be read as a mel"),
        (b"", "can't be read as a mel"),
    ],
)
def test_a_file_that_holds_no_mel(stream: Callable, tmp_path: Path, array: Any, words: str) -> None:
    path = tmp_path / "mel.npy"
    if isinstance(array, bytes):
        path.write_bytes(array)
    else:
        np.save(path, array, allow_pickle=True)
    code, out, err = stream("-i", path, "-o", tmp_path / "a.wav")
    assert (code, out) == (1, b"")
    assert words in err
    assert str(path) in err
    assert err.count("\n") == 1
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-i", "missing.npy"], "missing.npy: no such file"),
        (["-i", "."], "is a folder"),
        (["-i", "speech.wav"], "gansound vocode"),
        (
            ["my mel.npy", "-o", "a.wav"],
            "arguments: my mel.npy; the input stands behind -i: -i 'my mel.npy'. See",
        ),
        (["--threads", "0"], "--threads: got 0"),
        (["-o", "a.wav", "--wav"], "--wav is for stdout"),
        (["-o", "a.xyz"], "suffix '.xyz'"),
        (["--backend", "fast"], "--backend"),
        (["--device", "tpu9"], "--device"),
        (["--speed", "2"], "arguments: --speed 2. See"),
    ],
)
def test_what_can_be_known_before(
    stream: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "speech.wav").write_bytes(b"RIFF")
    code, out, err = stream(*arguments, stdin=b"")
    assert (code, out) == (2, b"")
    assert words in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["speech.wav"]


def test_a_terminal_is_taught_the_line(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert cli.main(["stream"]) == 2
    assert (
        "your_tts --mels - | gansound stream --model M | aplay -f S16_LE -r 22050 -c 1"
        in capsys.readouterr().err
    )
    monkeypatch.setattr(sys, "stdin", None)
    assert cli.main(["stream"]) == 2
    assert "stdin is closed" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert cli.main(["stream"]) == 2
    assert "stdout is a terminal" in capsys.readouterr().err


OWN = """
from torch import nn
from gansound.nn.conv import TransposedConv1d
from gansound.nn.generator import StreamingGenerator

class Mine(StreamingGenerator):
    def __init__(self, last="PReLU"):
        super().__init__()
        self.n_mels, self.hop_length = 80, 256
        self.layers = nn.Sequential(TransposedConv1d(80, 1, rate=256, kernel_size=300), getattr(nn, last)(1))
"""


def test_a_generator_of_ones_own(
    stream: Callable, vocoder: Vocoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_net.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    from own_net import Mine  # type: ignore[import-not-found]

    def saved(**init_args: str) -> Path:
        config = {"class_path": "own_net.Mine", "init_args": init_args}
        return save_model_folder(tmp_path / "mine", Mine(**init_args), vocoder.mel_spec, config=config)

    mel = some_mel(20)
    folder = saved()
    code, _, err = stream("--model", folder, stdin=as_bytes(mel))
    assert code == 1
    assert "--allow own_net" in err
    code, out, err = stream("--model", folder, "--allow", "own_net", stdin=as_bytes(mel))
    assert code == 0, err
    expected = whole(Vocoder.from_pretrained(folder, "cpu", backend="eager", allow=["own_net"]), mel)
    assert np.abs(samples(out) - expected.clip(-1, 1)).max() <= STEP
    code, out, err = stream("--model", saved(last="BatchNorm1d"), "--allow", "own_net", stdin=as_bytes(mel))
    assert (code, out) == (1, b"")
    assert err.startswith("error: BatchNorm1d doesn't stream. Build from")
    np.save(tmp_path / "one.npy", mel)
    assert cli.main(["mel", str(tmp_path / "one.npy"), "--model", str(folder), "--allow", "own_net"]) == 0


def test_help_teaches_the_line(capsys: Any) -> None:
    assert cli.main(["stream", "--help"]) == 0
    assert (
        "your_tts --mels - | gansound stream --model M | aplay -f S16_LE -r 22050 -c 1"
        in capsys.readouterr().out
    )
