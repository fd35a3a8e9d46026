"""`gansound demo`: the first sound a newcomer hears."""

import argparse
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gansound.cli.backend import add_allow_argument
from gansound.cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from gansound.metrics.evaluation import Item

HELP = """Turn a recording into a mel spectrogram and the mel back into sound with the shipped vocoder.

Writes the recording, the vocoder's version, Griffin-Lim's version of the same mel and a picture of all three, and
prints how they measure. The speaker was never heard in training. Griffin-Lim, the picture, PESQ and STOI come with
pip install 'gansound[eval]'; without it the rest is done."""

EXAMPLES = """examples:
  gansound demo
  gansound demo --input my_voice.wav -o listen/"""

CLIP = Path(__file__).parents[1] / "models" / "demo.flac"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input", type=Path, default=CLIP, help="a recording of yours (default: a shipped clip)"
    )
    parser.add_argument("--model", default="default", help="shipped name or model folder (default: default)")
    add_allow_argument(parser)
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("gansound-demo"), help="folder (default: gansound-demo)"
    )


def run(args: argparse.Namespace) -> int:
    if not args.input.is_file():
        raise UsageError(f"--input {args.input}: {'not a file' if args.input.exists() else 'no such file'}")
    if args.output.exists() and not args.output.is_dir():
        raise UsageError(f"-o {args.output}: is there and not a folder")
    from gansound import audio
    from gansound.cli.console import Console
    from gansound.extras import install_line, missing
    from gansound.inference.vocoder import Vocoder
    from gansound.metrics.evaluation import Item, evaluate
    from gansound.metrics.griffin_lim import GriffinLim
    from gansound.metrics.judge import available_measures
    from gansound.metrics.model_mel import mel_distance_model
    from gansound.metrics.probes import Vocode
    from gansound.report.pictures import comparison, save
    from gansound.report.tables import summary_table

    recording = audio.read(args.input)
    vocoder = Vocoder.from_pretrained(args.model, device="cpu", allow=args.allow)
    systems: dict[str, Vocode] = {"gansound": vocoder.vocode_audio}
    left = []
    if missing("librosa"):
        left.append("Griffin-Lim")
    else:
        systems["Griffin-Lim"] = GriffinLim(vocoder.mel_spec)
    measures = [name for name in ("pesq", "stoi") if name in available_measures()]
    left += [name.upper() for name in ("pesq", "stoi") if name not in measures]
    sounds: dict[str, np.ndarray] = {}

    def keep(item: "Item", systems: "dict[str, np.ndarray]") -> None:
        sounds.update(systems)

    evaluation = evaluate(
        [Item(args.input.name, lambda: recording)],
        systems,
        vocoder.sample_rate,
        hop_length=vocoder.mel_spec.hop_length,
        measures=measures,
        # Not the distance up to Nyquist: the shipped clip holds nothing above 8 kHz, nor does its mel.
        extra={"mel_distance_model": partial(mel_distance_model, vocoder.mel_spec)},
        on_audio=keep,
    )
    if evaluation.failures:
        raise ValueError(f"{args.input}: {evaluation.failures[0].reason}")
    args.output.mkdir(parents=True, exist_ok=True)
    written = []
    for name, sound in sounds.items():
        written.append(args.output / f"{name.lower().replace(' ', '-')}.wav")
        audio.write(written[-1], sound, vocoder.sample_rate)
    if missing("matplotlib"):
        left.append("the picture")
    else:
        written.append(args.output / "spectrograms.png")
        save(comparison(sounds, vocoder.sample_rate), written[-1])
    console = Console()
    console.print(
        summary_table(evaluation, title=f"{args.input.name}, {evaluation.utterances[0].seconds:.1f} s")
    )
    seconds = evaluation.utterances[0].systems["gansound"]["real_time_factor"]
    assert seconds is not None
    console.print(f"{1 / seconds:.0f} times faster than real time, the mel included. Listen to and look at:")
    for path in written:
        console.print(f"  {path}", highlight=False, markup=False, soft_wrap=True)
    if left:
        brings = install_line("pesq")
        console.print(
            f"Left out: {', '.join(left)}. {brings} brings all of it.", markup=False, soft_wrap=True
        )
    return 0
