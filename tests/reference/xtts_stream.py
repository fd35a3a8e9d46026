"""XTTS's decoder here beside its own streaming: `python -m tests.reference.xtts_stream`, where coqui-tts is installed.

Coqui's own `HifiDecoder` at full size with random weights, and the same imported. An utterance is given in chunks of
`--chunk` latents: to `inference_stream`'s way, which for each decodes all latents so far and cross-fades, and to ours.
What makes the latents isn't counted, and the weight norm of their net is folded, which their `Xtts` leaves in.

They take turns in one process, one thread, and what is compared is the ratio within each round. Counted is the
process's own time. No test times.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from gansound.importers import import_checkpoint
from gansound.inference.backends import missing
from gansound.inference.vocoder import Vocoder
from gansound.nn.fold import fold_parametrizations

LATENTS_A_SECOND = 22050 / 1024
OVERLAP_SAMPLES = 1024  # of inference_stream
Made = Iterator[Tensor]


def theirs_saved(folder: Path) -> tuple[torch.nn.Module, Tensor]:
    """Their decoder, a voice, and both as files to import."""
    from TTS.tts.configs.xtts_config import XttsConfig
    from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

    torch.manual_seed(0)
    decoder, voice = HifiDecoder().eval(), torch.randn(1, 512, 1)
    rms = decoder(torch.randn(1, 20, 1024), g=voice).square().mean().sqrt()
    decoder.waveform_decoder.conv_post.weight.mul_(0.25 / rms)  # as drawn, hardly anything comes through
    state = {f"hifigan_decoder.{name}": value for name, value in decoder.state_dict().items()}
    torch.save({"model": state, "config": XttsConfig()}, folder / "model.pth")
    torch.save({"speaker_embedding": voice}, folder / "voice.pth")
    fold_parametrizations(decoder.waveform_decoder)
    return decoder, voice


def their_stream(decoder: torch.nn.Module, voice: Tensor, latents: Tensor, chunk: int) -> Made:
    """What `Xtts.inference_stream` does with the latents of its language model, (n, channels)."""
    from TTS.tts.models.xtts import Xtts

    before, overlap = None, None
    ends = [(end, False) for end in range(chunk, len(latents) + 1, chunk)]
    for end, last in (*ends, (len(latents), True)):
        sound = decoder(latents[None, :end], g=voice).squeeze()
        piece, before, overlap = Xtts.handle_chunks(
            None, sound, before, overlap, OVERLAP_SAMPLES, is_final=last
        )
        yield piece


def our_stream(vocoder: Vocoder, latents: Tensor, chunk: int) -> Made:
    """The same latents, each computed once."""
    interpolation = vocoder.frame_spec.interpolation()
    with vocoder.stream() as stream:
        for part in latents.split(chunk):
            yield torch.from_numpy(stream.push(interpolation.push(part.T)))
        yield torch.from_numpy(stream.push(interpolation.flush()))
        yield torch.from_numpy(stream.flush())


def timed(run: Callable[[], Made]) -> tuple[float, float, Tensor]:
    """Seconds to the first sound and to the last, and the sound."""
    began = time.process_time()
    first, pieces = None, []
    for piece in run():
        pieces.append(piece)
        if first is None and len(piece):
            first = time.process_time() - began
    assert first is not None
    return first, time.process_time() - began, torch.cat(pieces)


@torch.inference_mode()
def main() -> None:
    """Print medians of both, of the paired ratios, and how far each stream lies from the whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--chunk", type=int, default=20, help="latents, inference_stream's stream_chunk_size")
    parser.add_argument("--backends", nargs="+", default=["eager", "onnxruntime", "openvino"])
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        folder = Path(name)
        decoder, voice = theirs_saved(folder)
        import_checkpoint([folder / "model.pth"], folder / "ours", voice=folder / "voice.pth")
        latents = torch.randn(round(args.seconds * LATENTS_A_SECOND), 1024)
        runs: dict[str, Callable[[], Made]] = {
            "their stream": lambda: their_stream(decoder, voice, latents, args.chunk),
            "their whole": lambda: iter([decoder(latents[None], g=voice).flatten()]),
        }
        for backend in args.backends:
            if missing(backend):
                print(f"{backend}: not installed")
                continue
            vocoder = Vocoder.from_pretrained(str(folder / "ours"), "cpu", backend=backend)
            whole = vocoder.frame_spec.interpolate(latents.T[None])
            runs[f"{backend} stream"] = lambda vocoder=vocoder: our_stream(vocoder, latents, args.chunk)
            runs[f"{backend} whole"] = lambda vocoder=vocoder, whole=whole: iter([vocoder(whole)[0]])
        compare(runs, args.rounds)


def compare(runs: dict[str, Callable[[], Made]], rounds: int) -> None:
    expected = timed(runs["their whole"])[2]
    seconds = len(expected) / 24000
    print(f"{seconds:.2f} s of sound, RMS {expected.square().mean().sqrt():.2f}")
    apart = {name: float((timed(run)[2] - expected).abs().max()) for name, run in runs.items()}  # and warms
    took: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            took[name].append(timed(run)[:2])
    for name, found in took.items():
        beside = took["their " + name.split()[-1]]
        ratios = [
            statistics.median(b[i] / f[i] for b, f in zip(beside, found, strict=True)) for i in range(2)
        ]
        first, total = (statistics.median(column) for column in zip(*found, strict=True))
        print(
            f"{name}: first sound in {first:.3f} s ({ratios[0]:.2f} x), all in {total:.2f} s ({ratios[1]:.2f} x): "
            f"real-time factor {total / seconds:.2f}; at most {apart[name]:.0e} from their whole",
            flush=True,
        )


if __name__ == "__main__":
    main()
