"""What both formats share: the table of facts inside a file, the check against PyTorch, and a safe place to write."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gansound.frames import FrameSpec
from gansound.inference.export.graphs import state_names
from gansound.mel import MelSpec
from gansound.nn.generator import StreamingGenerator
from gansound.nn.group_delay import GroupDelay
from gansound.nn.streaming import UNKNOWN_LENGTH

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder

FORMAT = 1
_MAX_ERROR = 1e-5  # of an exported graph's samples, at full scale 1
# Where amplitudes tell when a sound comes, rounding turns the highest phases: a 10^-7 of a frame is 3e-4 there.
_MAX_ERROR_TURNED = 5e-4
_CHUNKS = (1, 7, 2, 10)  # frames, of the check

Run = Callable[[list[Tensor]], list[Tensor]]  # a graph's inputs, in order, to its outputs


def largest_error(generator: StreamingGenerator) -> float:
    """How far a right graph's samples may lie from PyTorch's, on the mel of noise."""
    turned = any(isinstance(module, GroupDelay) for module in generator.modules())
    return _MAX_ERROR_TURNED if turned else _MAX_ERROR


def metadata(
    vocoder: "Vocoder", exported: StreamingGenerator, *, streaming: bool, precision: str
) -> dict[str, str]:
    """What a reader must know, as it is written into the file: text by name.

    `gansound_format` (of this table), `gansound_version`, `graph` (offline or streaming), `precision`, `mel` (the
    convention as JSON, see `MelSpec`) or what it takes in place of a mel (`latent`, `pitched` or `code`, as JSON, see
    `gansound.frames`), `sample_rate` (Hz), `hop_length` (samples), `n_mels`, `licence`; of a streaming graph also
    `lookahead_samples`, `interior` (0: the graph knows an utterance's start and end by itself), `unknown_length` and
    `states` (JSON: a list of name, dtype and shape without the batch, in order). `model_type` is what sherpa-onnx
    reads: `hifigan` is any offline net that takes HiFi-GAN's mel, and stands in every streaming graph, which it then
    refuses with an error.
    """
    from gansound import __version__

    spec = vocoder.frame_spec
    found = {
        "gansound_format": str(FORMAT),
        "gansound_version": __version__,
        "graph": "streaming" if streaming else "offline",
        "precision": precision,
        spec.kind: json.dumps(spec.to_dict()),
        "sample_rate": str(spec.sample_rate),
        "hop_length": str(spec.hop_length),
        "n_mels": str(spec.n_mels),
        "licence": str(vocoder.info.get("licence", "unknown")),
    }
    if streaming:
        state = zip(state_names(exported), exported.init_state(1), strict=True)
        shapes = [{"name": n, "dtype": str(t.dtype)[6:], "shape": list(t.shape[1:])} for n, t in state]
        found |= {
            "lookahead_samples": str(exported.receptive_field.lookahead),
            "interior": "0",
            "unknown_length": str(UNKNOWN_LENGTH),
            "states": json.dumps(shapes),
            # sherpa-onnx 2.0 dies of a segmentation fault where it finds no model_type that it knows; a graph of this
            # one that wants states as well ends in an error.
            "model_type": "hifigan",
        }
    elif isinstance(spec, MelSpec) and not spec.differences(MelSpec.preset("hifigan")):
        found["model_type"] = "hifigan"
    return found


def verify(
    run: Run,
    spec: FrameSpec,
    generator: StreamingGenerator,
    exported: StreamingGenerator,
    *,
    streaming: bool,
    max_error: float | None,
) -> None:
    """Hold a written graph against the generator, on the mel of noise.

    Args:
        run: the graph.
        spec: the mel convention, or that of latents.
        generator: what gives the right samples.
        exported: what the graph was made of, the generator or another form of it.
        streaming: which of the two graphs it is.
        max_error: of a sample; None asks for finite samples of the right number only.

    Raises:
        ValueError: it gives something else.
    """
    frames = sum(_CHUNKS)
    whole = torch.cat([spec.noise(frames, seed=item) for item in range(2)])
    for mel in (whole, whole[:1, :, :1]):
        with torch.no_grad():
            expected = generator(mel)
        audio = _streamed(run, mel, exported) if streaming else run([mel])[0]
        if audio.shape != expected.shape or not bool(torch.isfinite(audio).all()):
            raise ValueError(
                f"not written: the exported graph gave {tuple(audio.shape)} samples for {tuple(mel.shape)} frames "
                f"where finite {tuple(expected.shape)} were expected. Report it, with the versions of torch and onnx"
            )
        error = float((audio - expected).abs().max() / expected.abs().max().clamp_min(1.0))
        if max_error is not None and error > max_error:
            raise ValueError(
                f"not written: the exported graph differs from PyTorch by {error:.1e}, expected at most "
                f"{max_error:.0e}. Report it, with the versions of torch and onnx"
            )


def _streamed(run: Run, mel: Tensor, generator: StreamingGenerator) -> Tensor:
    late = generator.receptive_field.lookahead
    frames, hop = mel.shape[-1], generator.hop_length
    flush = mel.new_zeros(*mel.shape[:2], -(-late // hop))
    state = list(generator.init_state(mel.shape[0]))
    parts = []
    for chunk in (*mel.split(_CHUNKS[: 1 if frames == 1 else None], dim=-1), flush):
        if chunk is flush:
            state = list(generator.finish(tuple(state)))
        if chunk.shape[-1]:
            audio, *state = run([chunk, *state])
            parts.append(audio)
    return torch.cat(parts, dim=1)[:, late : late + frames * hop]


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the body ends, and is removed when it fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):  # that of a write names no file
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)
