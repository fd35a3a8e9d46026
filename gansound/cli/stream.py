"""`gansound stream`: mel frames in, sound out while they still come."""

import argparse
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gansound.cli.backend import add_allow_argument, add_backend_arguments, add_mel_argument, open_vocoder
from gansound.cli.errors import UsageError
from gansound.counts import counted

if TYPE_CHECKING:
    import numpy as np

    from gansound.frames import FrameSpec
    from gansound.inference.vocoder import Vocoder

log = logging.getLogger(__name__)

HELP = """Turn mel frames into sound while they still come.

Reads frames as float32, little-endian, the model's bands one after the other, frame after frame, and writes signed
16-bit little-endian mono samples as soon as they are final; nothing waits in a buffer. From a file to a file it
vocodes hours of sound in flat memory."""

EXAMPLES = """examples:
  your_tts --mels - | gansound stream --model M | aplay -f S16_LE -r 22050 -c 1
  your_tts --mels - | gansound stream --model M --wav | ffplay -nodisp -autoexit -
  gansound stream -i audiobook.npy -o audiobook.flac

-r is the model's sample rate (22050 Hz for the default), said on stderr at the start. The sound lags behind the
frames by the model's look-ahead, said there too. Any number of frames may come at a time, cut anywhere; when they
end, the rest of the sound follows."""

RAW, STDIO = ".f32", "-"
READ_FRAMES = 64
BLOCK_FRAMES = 4096  # of a .npy file between two mappings
UNKNOWN_SIZE = 2**32 - 1  # what a WAV header says while its end isn't known
_HEADER_BYTES = 44
# How files begin that are no frames, and might be sent all the same.
_MAGIC = {
    b"\x93NUMPY": "a .npy file", b"PK\x03\x04": "a .npz or .pt file", b"RIFF": "a WAV file", b"fLaC": "a FLAC file",
    b"OggS": "an Ogg file",
}  # fmt: skip


class BadFramesError(ValueError):
    """The frames end, or hold what is none, in the middle of an utterance; those before were fine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i", "--input", default=STDIO, metavar="FILE",
        help="a mel, bands x frames (.npy), or frames as on stdin (.f32) (default: -, stdin)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", default=STDIO, metavar="FILE",
        help="an audio file, whole or not at all (default: -, stdout)",
    )  # fmt: skip
    parser.add_argument("--wav", action="store_true", help="a WAV header before the samples on stdout")
    parser.add_argument(
        "--model",
        default="default",
        help="shipped name, model folder, or Hugging Face repository (default: default)",
    )
    add_allow_argument(parser)
    parser.add_argument("--device", help="such as cpu or cuda (default: CUDA where there is one)")
    add_mel_argument(parser)
    add_backend_arguments(parser)
    parser.add_argument(
        "--measure",
        action="store_true",
        help="find the fastest backend first, unless it is remembered of this model and machine: a minute or more",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        metavar="N",
        help="of the CPU (default: 1: a few frames at a time are too little work to share)",
    )


def run(args: argparse.Namespace) -> int:
    check(args)
    import torch

    torch.set_num_threads(args.threads)
    vocoder = open_vocoder(args)
    spec = vocoder.frame_spec
    mels, total = source(args.input, vocoder)
    to_file = args.output != STDIO
    if args.measure:
        vocoder.measure("stream")
    stream = vocoder.stream("float32" if to_file else "int16")
    log.info(
        "%s: frames of %d bands, %d Hz mono, the sound %.0f ms after its frame",
        args.model, spec.n_mels, spec.sample_rate, 1000 * stream.latency_seconds,
    )  # fmt: skip
    with sink(args.output, spec.sample_rate, wav=args.wav) as write, stream:
        failure: BadFramesError | None = None
        try:
            for mel in _shown(sound_only(mels, args.input, spec), total, shown=to_file and not args.quiet):
                write(stream.push(mel))
        except BadFramesError as error:
            failure = error  # what came before it is sound
        write(stream.flush())
        if stream.clipped_samples:
            log.warning(
                "clipped %s of %d beyond ±1", counted(stream.clipped_samples, "sample"), stream.samples_out
            )
        if stream.frames_pushed == 0 and failure is None:
            log.warning("no frames came: no sound")
        if failure is not None:
            raise failure
    return 0


def check(args: argparse.Namespace) -> None:
    """Refuse what can't work before anything is loaded.

    Raises:
        UsageError: a terminal where frames or samples pass, files that can't be what they must, no threads.
    """
    if args.threads < 1:
        raise UsageError(f"--threads: got {args.threads}, expected 1 or more")
    if args.input == STDIO:
        if sys.stdin is None or sys.stdin.isatty():
            raise UsageError(
                f"stdin is {'closed' if sys.stdin is None else 'a terminal'}, expected mel frames: "
                "your_tts --mels - | gansound stream --model M | aplay -f S16_LE -r 22050 -c 1"
            )
    else:
        path = Path(args.input)
        if not path.exists() or path.is_dir():
            raise UsageError(f"-i {path}: {'is a folder' if path.is_dir() else 'no such file'}")
        if path.is_file() and path.suffix.lower() not in (".npy", RAW):
            raise UsageError(
                f"-i {path}: expected a mel as .npy (bands x frames) or frames as {RAW} (float32, frame after frame); "
                "recordings and other files of mels are for `gansound vocode`"
            )
    if args.output == STDIO:
        if sys.stdout.isatty():
            raise UsageError("stdout is a terminal: pipe the samples into a player, or name a file with -o")
        return
    from gansound import audio

    if args.wav:
        raise UsageError(f"--wav is for stdout; the suffix of -o {args.output} says what is written")
    if Path(args.output) == Path(args.input):
        raise UsageError(f"-o {args.output}: is the input")
    try:
        audio.Writer(args.output, 48000)  # knows what can be written, and touches nothing yet
    except audio.AudioError as error:
        raise UsageError(f"-o {error}") from None


def source(name: str, vocoder: "Vocoder") -> "tuple[Iterator[np.ndarray], int | None]":
    """The mel in pieces `(n_mels, n)` as they come, and how many frames there are where that is known.

    Raises:
        ValueError: a .npy file that holds no mel of this model.
        BadFramesError: (while it runs) bytes are left that make no frame.
    """
    n_mels, kind = vocoder.frame_spec.n_mels, vocoder.frame_spec.kind
    if name == STDIO:
        return frames_as_they_come(sys.stdin.fileno(), n_mels, "stdin"), None
    path = Path(name)
    if path.suffix.lower() == ".npy" and path.is_file():
        return mapped_mel(path, n_mels, whole=kind == "code")
    descriptor = os.open(path, os.O_RDONLY)  # for as long as the process lasts
    size = path.stat().st_size // (4 * n_mels) if path.is_file() else None
    return frames_as_they_come(descriptor, n_mels, name), size


def frames_as_they_come(descriptor: int, n_mels: int, name: str) -> "Iterator[np.ndarray]":
    """Whatever whole frames a read gives, `(n_mels, n)`, at once; a frame may come in pieces.

    Raises:
        BadFramesError: the bytes end in the middle of a frame.
    """
    import numpy as np

    frame_bytes = 4 * n_mels
    have = bytearray()
    frames = 0
    while data := os.read(descriptor, READ_FRAMES * frame_bytes - len(have)):
        have += data
        if not frames and (
            kind := next((kind for magic, kind in _MAGIC.items() if have.startswith(magic)), None)
        ):
            raise BadFramesError(
                f"{name}: begins as {kind}, expected nothing but frames of {n_mels} float32 numbers. Give -i the name "
                "of a .npy file, or write mel.T.astype('<f4').tobytes()"
            )
        if count := len(have) // frame_bytes:
            whole = np.frombuffer(bytes(have[: count * frame_bytes]), dtype="<f4")
            del have[: count * frame_bytes]
            frames += count
            yield whole.reshape(count, n_mels).T
    if have:
        raise BadFramesError(
            f"{name}: ended in the middle of a frame: {counted(len(have), 'byte')} left over after "
            f"{counted(frames, 'frame')}, expected a multiple of {frame_bytes} (float32 x {n_mels} bands)"
        )


def mapped_mel(path: Path, n_mels: int, *, whole: bool = False) -> "tuple[Iterator[np.ndarray], int]":
    """A .npy file's mel in pieces, and its frames; never all of it in memory.

    Args:
        path: of the file.
        n_mels: the height of a frame.
        whole: whole numbers will do, as codes are.

    Raises:
        ValueError: not one array of numbers, or not of this shape.
    """
    import numpy as np

    from gansound.mel.files import check_npy
    from gansound.mel.frames import check_not_whole, check_numbers

    def opened() -> Any:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    try:
        with path.open("rb") as file:
            check_npy(file, path.stat().st_size)
        mel = opened()
    except (ValueError, EOFError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(
            f"{path}: can't be read as a mel: {reason}. Save one array of numbers, bands x frames"
        ) from None
    shape = mel.shape
    check_numbers(mel, str(path))
    if not whole:
        check_not_whole(mel, str(path))
    if len(shape) not in (2, 3) or shape[-2] != n_mels or shape[:-2] not in ((), (1,)):
        turned = "; it looks transposed: save mel.T" if len(shape) > 1 and shape[-1] == n_mels else ""
        raise ValueError(f"{path}: holds shape {shape}, expected ({n_mels} bands, frames){turned}")
    frames = shape[-1]
    del mel

    def pieces() -> "Iterator[np.ndarray]":
        for start in range(0, frames, BLOCK_FRAMES):
            # Mapped anew for each block: pages once read count as ours for as long as they are mapped.
            block = np.array(opened().reshape(n_mels, frames)[:, start : start + BLOCK_FRAMES], np.float32)
            for first in range(0, block.shape[1], READ_FRAMES):
                yield block[:, first : first + READ_FRAMES]

    return pieces(), frames


def sound_only(mels: "Iterable[np.ndarray]", name: str, spec: "FrameSpec") -> "Iterator[np.ndarray]":
    """The pieces as they are, up to the first frame that no mel of sound holds.

    Raises:
        BadFramesError: such a frame, by its number and value, and what the input may be instead.
    """
    import numpy as np
    import torch

    before = 0
    for mel in mels:
        good = np.isfinite(mel) & ~spec.beyond_sound(torch.tensor(mel)).numpy()
        if not good.all():
            first = int(np.argmin(good.all(axis=0)))
            band = int(np.argmin(good[:, first]))
            yield mel[:, :first]
            raise BadFramesError(
                f"{'stdin' if name == STDIO else name}: frame {before + first} (counted from 0) holds "
                f"{mel[band, first]:.4g} in band {band}, as no sound does in this convention{_other_reading(mel)}; "
                "the sound ends before it"
            )
        before += mel.shape[1]
        yield mel


def _other_reading(mel: "np.ndarray") -> str:
    """What the bytes of frames are, where they make numbers of another type that would do."""
    import numpy as np

    data = np.ascontiguousarray(mel.T).tobytes()
    for kind, name in (("<f8", "float64"), (">f4", "big-endian float32")):
        size = np.dtype(kind).itemsize
        other = np.frombuffer(data[: len(data) // size * size], kind)
        if other.size and np.median(np.abs(other)) > 1e-3 and np.all(np.abs(other) < 1e3):
            return f" (the bytes look like {name}; expected float32, little-endian)"
    return ""


@contextmanager
def sink(name: str, sample_rate: int, *, wav: bool) -> "Iterator[Callable[[np.ndarray], object]]":
    """Where the samples go: a function that writes them at once."""
    if name != STDIO:
        from gansound import audio

        with audio.Writer(name, sample_rate) as writer:
            yield writer.append
        return
    out = sys.stdout.buffer
    start = _place(out) if wav else None
    written = 0

    def write(samples: "np.ndarray") -> None:
        nonlocal written
        written += out.write(samples.astype("<i2").tobytes())
        out.flush()

    if wav:
        out.write(wav_header(sample_rate))
        out.flush()
    try:
        yield write
    except OSError:
        raise
    except BaseException:  # bad frames and Ctrl-C leave sound that can be listened to
        _complete(out, start, sample_rate, written)
        raise
    _complete(out, start, sample_rate, written)


def wav_header(sample_rate: int, data_bytes: int | None = None) -> bytes:
    """The 44 bytes before 16-bit mono samples; None where it isn't known how many there will be."""
    unknown = data_bytes is None or data_bytes + _HEADER_BYTES > UNKNOWN_SIZE
    size = UNKNOWN_SIZE if unknown else int(data_bytes or 0)
    riff = UNKNOWN_SIZE if unknown else size + _HEADER_BYTES - 8

    def number(value: int, length: int) -> bytes:
        return value.to_bytes(length, "little")

    shape = number(1, 2) + number(1, 2) + number(sample_rate, 4) + number(2 * sample_rate, 4) + number(2, 2)
    return (
        b"RIFF" + number(riff, 4) + b"WAVEfmt " + number(16, 4) + shape + number(16, 2) + b"data" + number(size, 4)
    )  # fmt: skip


def _place(out: BinaryIO) -> int | None:
    """Where in a file stdout stands, if it is one that can be written there again later."""
    try:
        import fcntl

        descriptor = out.fileno()
        # With `>> file` whatever is written goes to the end, wherever the position is.
        appends = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return os.lseek(descriptor, 0, os.SEEK_CUR) if is_file and not appends else None
    except (ImportError, OSError):  # Windows; io.UnsupportedOperation is an OSError
        return None


def _complete(out: BinaryIO, start: int | None, sample_rate: int, data_bytes: int) -> None:
    """Write the true sizes into the header, where there is one that can be reached again."""
    if start is None:
        return
    end = os.lseek(out.fileno(), 0, os.SEEK_CUR)
    os.lseek(out.fileno(), start, os.SEEK_SET)
    out.write(wav_header(sample_rate, data_bytes))
    out.flush()
    os.lseek(out.fileno(), end, os.SEEK_SET)


def _shown(mels: "Iterator[np.ndarray]", total: int | None, *, shown: bool) -> "Iterator[np.ndarray]":
    """The pieces, with a bar on a terminal."""
    if not (shown and total and sys.stderr.isatty()):
        yield from mels
        return
    from rich.progress import Progress

    from gansound.cli.console import Console

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("vocoding", total=total)
        for mel in mels:
            yield mel
            progress.advance(task, mel.shape[1])
