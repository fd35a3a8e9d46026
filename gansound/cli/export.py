"""`gansound export`: a vocoder as one file for other runtimes."""

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansound.cli.backend import add_allow_argument, add_mel_argument, given_mel
from gansound.cli.errors import UsageError
from gansound.cli.streams import tell
from gansound.counts import counted
from gansound.extras import EXTRAS, require

if TYPE_CHECKING:
    from gansound.inference.vocoder import Vocoder
    from gansound.metrics.evaluation import Evaluation

log = logging.getLogger(__name__)

MAX_PESQ_LOSS = 0.1  # on a scale from 1 to 4.6; differences below it are hard to hear
MAX_MEL_GROWTH = (
    0.05  # of the distance to the recording's mel, relative: what PESQ is deaf to, such as quiet bands
)

HELP = """Write a vocoder as one file that runs without gansound, ONNX or a program of torch.export (.pt2), for phones
and boards ExecuTorch (.pte) or LiteRT (.tflite); or as the checkpoint of another project.

The plain graph turns whole mels (batch, bands, frames) into audio; with --streaming it is one step of a stream, mel
frames and states in, samples and states out, and gives the same samples however the frames come. What a reader must
know (mel convention, look-ahead, states, licence) lies in the file's metadata.

executorch and litert hold that step only, of --frames frames, and what a reader must know beside them, in NAME.json.

sherpa is the plain ONNX graph as sherpa-onnx takes it for Matcha's vocoder. hifigan and transformers are folders that
jik876/hifi-gan's code and transformers' SpeechT5HifiGan load; they hold HiFi-GANs only."""

EXAMPLES = f"""examples:
  gansound export --model default --format onnx -o vocoder.onnx
  gansound export --model default --format onnx --streaming -o stream.onnx
  gansound export --model default --format onnx --precision int8 --evaluate-on recordings/ -o small.onnx
  gansound export --model runs/universal/model --mel tacotron2 --format onnx -o vocoder_for_tacotron2.onnx
  gansound export --model runs/melgan/model --format torch_export -o vocoder.pt2
  gansound export --model default --format executorch --streaming --frames 8 -o stream.pte
  gansound export --model hifigan/ --format transformers -o speecht5_hifigan/
  gansound export --model default --format sherpa -o matcha_vocoder.onnx

samples/onnx_reader.py of gansound's repository plays the streaming graph with numpy and onnxruntime alone.

int8 is measured beside fp32 by copy synthesis, and refused where it costs audible quality: wide-band PESQ down by more
than {MAX_PESQ_LOSS:g}, or the mel distance up by more than {MAX_MEL_GROWTH:.0%}. --force writes it \
all the same."""
_SYSTEMS = ("fp32", "int8")
_SUFFIXES = {
    "onnx": ".onnx", "sherpa": ".onnx", "torch_export": ".pt2", "executorch": ".pte", "litert": ".tflite",
}  # fmt: skip
_DEVICES = ("executorch", "litert")  # each an extra
_FOLDERS = ("hifigan", "transformers")
_SHERPA_MEL = "hifigan"  # what the Matcha acoustic models of sherpa-onnx make


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        default="default",
        help="shipped name, model folder, or Hugging Face repository (default: default)",
    )
    add_allow_argument(parser)
    add_mel_argument(parser)
    parser.add_argument("--format", required=True, choices=[*_SUFFIXES, *_FOLDERS], help="of the file")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="file to write, in place of one that is there; for another project a folder, which must be new or "
        "empty",
    )
    parser.add_argument("--streaming", action="store_true", help="the graph of a step, with its states")
    parser.add_argument(
        "--frames", type=int, metavar="N", help="of a step of executorch or litert (default: 8)"
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of the weights: fp16 halves the file; int8 is of matrix products (default: fp32)",
    )
    parser.add_argument("--opset", type=int, metavar="N", help="of ONNX (default: 18, the least)")
    parser.add_argument(
        "--evaluate-on",
        type=Path,
        metavar="DIR",
        help="recordings to measure int8 on (default: a shipped clip)",
    )
    parser.add_argument("--force", action="store_true", help="write int8 whatever it costs")


def run(args: argparse.Namespace) -> int:
    _check(args)
    if args.format in _FOLDERS:
        return _as_checkpoint(args)
    from gansound.inference.export import OPSET, export_executorch, export_litert, export_onnx, export_torch
    from gansound.inference.vocoder import Vocoder

    vocoder = Vocoder.from_pretrained(
        args.model, device="cpu", mel=given_mel(args), backend="eager", allow=args.allow
    )
    log.info(
        "tracing the net, which for a large one takes minutes, and comparing what comes of it with the model"
    )
    if args.format == "torch_export":
        path = export_torch(vocoder, args.output, streaming=args.streaming)
    elif args.format in _DEVICES:
        export = export_executorch if args.format == "executorch" else export_litert
        path = export(vocoder, args.output, **({} if args.frames is None else {"frames": args.frames}))
    else:
        accept = partial(_judge, args, vocoder) if args.precision == "int8" else None
        path = export_onnx(
            vocoder,
            args.output,
            streaming=args.streaming,
            precision=args.precision,
            opset=args.opset or OPSET,
            more=_for_sherpa(vocoder) if args.format == "sherpa" else {},
            accept=accept,
        )
    if not args.quiet:
        kind = "one step of a stream" if args.streaming else "whole utterances"
        tell(f"{path}: {kind}, {args.precision}, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _as_checkpoint(args: argparse.Namespace) -> int:
    from gansound.importers.back import export_checkpoint
    from gansound.model_folder import load_model_folder

    path = export_checkpoint(load_model_folder(args.model, allow=args.allow), args.output, args.format)
    if not args.quiet:
        tell(f"{path}: {', '.join(sorted(file.name for file in path.iterdir()))}")
    return 0


def _for_sherpa(vocoder: "Vocoder") -> dict[str, str]:
    """The metadata by which sherpa-onnx takes a graph from mels to samples; a warning where its mels are others."""
    from gansound.mel import MelSpec

    if (spec := vocoder.frame_spec).kind != "mel":
        raise ValueError(f"sherpa-onnx gives a vocoder mels alone, and this one takes {spec.in_words()}")
    if different := vocoder.mel_spec.differences(MelSpec.preset(_SHERPA_MEL)):
        log.warning(
            "sherpa-onnx's Matcha models make hifi-gan's mels at 22,050 Hz, and this vocoder takes others: %s",
            "; ".join(different),
        )
    return {"model_type": "hifigan"}


def _check(args: argparse.Namespace) -> None:
    from gansound.inference.export import OPSET

    if args.format in _FOLDERS:
        _check_folder(args)
        return
    onnx = args.format in ("onnx", "sherpa")
    if args.format in _DEVICES and not args.streaming:
        raise UsageError(f"--format {args.format}: holds a step of a stream only, so add --streaming")
    if args.frames is not None and (args.format not in _DEVICES or args.frames < 1):
        raise UsageError(
            f"--frames {args.frames}: expected 1 or more, with --format executorch or litert; other graphs take any"
        )
    if args.format == "sherpa" and args.streaming:
        raise UsageError("--format sherpa: sherpa-onnx runs whole mels only, so leave out --streaming")
    if args.precision == "fp16" and not onnx:
        raise UsageError("--precision fp16: is for --format onnx and sherpa")
    if args.precision == "int8" and (not onnx or args.streaming):
        raise UsageError(
            "--precision int8: is for --format onnx without --streaming; a stream's int8 would depend on its chunks"
        )
    if args.opset is not None and (not onnx or args.opset < OPSET):
        raise UsageError(f"--opset {args.opset}: expected {OPSET} or more, with --format onnx")
    if args.precision != "int8" and (args.evaluate_on is not None or args.force):
        raise UsageError("--evaluate-on and --force belong to --precision int8")
    if args.evaluate_on is not None and not args.evaluate_on.exists():
        raise UsageError(f"--evaluate-on {args.evaluate_on}: no such folder or manifest")
    suffix = _SUFFIXES[args.format]
    if args.output.suffix.lower() != suffix:
        raise UsageError(
            f"-o {args.output}: expected a name that ends in {suffix}, for --format {args.format}"
        )
    if args.output.is_dir() or not args.output.absolute().parent.is_dir():
        raise UsageError(f"-o {args.output}: expected a file in a folder that exists")
    needed = ["onnx", "onnxscript", *(["onnxruntime"] if args.precision == "int8" else [])] if onnx else []
    require("exporting to ONNX", *needed, extra="export")
    if args.format in _DEVICES:
        require(f"--format {args.format}", *EXTRAS[args.format])
    if args.precision == "int8":
        require("judging what int8 costs", "pesq")


def _check_folder(args: argparse.Namespace) -> None:
    given = {
        "--streaming": args.streaming, "--frames": args.frames is not None, "--precision": args.precision != "fp32",
        "--opset": args.opset is not None, "--mel": args.mel is not None,
        "--evaluate-on": args.evaluate_on is not None, "--force": args.force,
    }  # fmt: skip
    if unfit := [name for name, found in given.items() if found]:
        raise UsageError(f"{unfit[0]}: isn't for --format {args.format}, which is a checkpoint of weights")
    if args.output.exists() and (not args.output.is_dir() or any(args.output.iterdir())):
        raise UsageError(f"-o {args.output}: something is there, expected a new folder")


def _judge(args: argparse.Namespace, vocoder: "Vocoder", path: Path) -> None:
    """Print how int8 measures beside fp32; ValueError where it costs audible quality, unless forced."""
    evaluation = _evaluate(args, vocoder, path)
    figures = "; ".join(_figures(evaluation, system) for system in _SYSTEMS)
    told = f"{figures}, on {counted(len(evaluation.utterances), 'recording')}"
    if not args.quiet:
        tell(told)
    if (problem := loss(evaluation)) and not args.force:
        raise ValueError(
            f"int8 isn't written: {problem} ({told}). Take fp32, measure on other recordings with --evaluate-on, or "
            "keep it with --force"
        )


def _figures(evaluation: "Evaluation", system: str) -> str:
    found = evaluation.summary(system)
    pesq = f"{found['pesq_wb'].mean:.2f}" if "pesq_wb" in found else "undefined"
    return f"{system}: PESQ {pesq}, mel distance {found['mel_distance_model'].mean:.3f}"


def _evaluate(args: argparse.Namespace, vocoder: "Vocoder", path: Path) -> "Evaluation":
    import numpy as np
    import torch

    from gansound.cli.demo import CLIP
    from gansound.cli.evaluate import choose, items_of
    from gansound.data.source import open_corpus
    from gansound.inference.export import load_onnx
    from gansound.metrics.evaluation import Item, evaluate
    from gansound.metrics.model_mel import mel_distance_model

    spec = vocoder.mel_spec
    quantized = load_onnx(path)

    def vocode(
        audio: Any, sample_rate: int
    ) -> Any:  # at the model's rate, to which `evaluate` brings everything
        frames = -(-len(audio) // spec.hop_length)
        padded = np.pad(audio, (0, frames * spec.hop_length - len(audio)))
        mel = vocoder.frames_of(torch.from_numpy(padded))[..., :frames]
        return quantized(mel)[0, : len(audio)].numpy()

    if args.evaluate_on is None:
        items = [Item.from_file(CLIP, id=CLIP.name)]
    else:
        records = choose(open_corpus(args.evaluate_on, seed=0), "all", None, args.evaluate_on)
        items = items_of(records, args.evaluate_on)
    evaluation = evaluate(
        items,
        dict(zip(_SYSTEMS, (vocoder.vocode_audio, vocode), strict=True)),
        spec.sample_rate,
        hop_length=spec.hop_length,
        measures=("pesq",),
        extra={"mel_distance_model": partial(mel_distance_model, spec)},
    )
    if evaluation.failures:
        raise ValueError(f"int8 can't be judged: {evaluation.failures[0].reason}")
    return evaluation


def loss(evaluation: "Evaluation") -> str:
    """What int8 loses of fp32's quality beyond what is allowed, in words; empty where it loses no more."""
    fp32, int8 = (evaluation.summary(system) for system in _SYSTEMS)
    worse = []
    if "pesq_wb" not in fp32 or "pesq_wb" not in int8:
        worse.append("PESQ is undefined on these recordings")
    elif fp32["pesq_wb"].mean - int8["pesq_wb"].mean > MAX_PESQ_LOSS:
        worse.append(f"wide-band PESQ falls from {fp32['pesq_wb'].mean:.2f} to {int8['pesq_wb'].mean:.2f}")
    before, after = fp32["mel_distance_model"].mean, int8["mel_distance_model"].mean
    if after > before * (1 + MAX_MEL_GROWTH):
        worse.append(f"the mel distance grows from {before:.3f} to {after:.3f} nepers")
    return ", and ".join(worse)
