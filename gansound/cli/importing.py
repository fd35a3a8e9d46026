"""`gansound import`: another project's checkpoint as a model folder."""

import argparse
from pathlib import Path

from gansound.cli.errors import UsageError

HELP = """Make a model folder of another project's checkpoint.

The kind is found by the names of the weights. What describes them (config.json, config.yml, config.yaml, stats.h5) is
taken from beside the checkpoint, or given too. The model then vocodes, streams, exports, benches and fine-tunes like
any other. Nothing in a checkpoint is run: pickles are read as tensors only, and refused where they hold more."""

EXAMPLES = """examples:
  gansound import g_02500000 -o hifigan/                       # config.json beside it
  gansound import g_02500000 do_02500000 config.json -o hifigan/   # with its discriminators, to fine-tune
  gansound import bigvgan_generator.pt -o bigvgan/
  gansound import vocos-mel-24khz/ -o vocos/                   # config.yaml and pytorch_model.bin
  gansound import checkpoint-2500000steps.pkl config.yml stats.h5 -o multi_band/
  gansound import microsoft/speecht5_hifigan -o speecht5/      # from the Hugging Face Hub; a folder of it will do
  gansound import nvidia/bigvgan_v2_22khz_80band_256x/bigvgan_generator.pt -o bigvgan_v2/    # one file of a repository
  gansound import s3gen.safetensors -o chatterbox/             # Chatterbox's vocoder; of CosyVoice 1, 2 and 3 hift.pt
  gansound import nsf_hifigan_44.1k_hop512_128bin_2024.02/ -o nsf/   # of singing: takes a pitch too, vocode --f0
  gansound import my_voice.pth -o my_voice/                    # the decoder of RVC, or of so-vits-svc (G_….pth)
  gansound import en_US-joe-medium.onnx -o joe/                # a Piper voice's decoder, which takes its latents
  gansound import G_953000.pth config.json --speaker 12 -o vctk_12/   # one voice of a VITS
  gansound import XTTS-v2/model.pth --speaker "Ana Florence" -o ana/  # XTTS's decoder, speakers_xtts.pth beside it
  gansound import bigvgan_generator.pth config.yaml --voice ana.npy -o ana/   # IndexTTS 1's, with an embedding of yours
  gansound import hubertsiuzdak/snac_24khz -o snac/            # the decoder of a codec, which takes its codes
  gansound vocode recording.wav --model hifigan/ -o copy.wav"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from gansound.importers import KINDS

    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="checkpoint, and its configuration; or a folder, or a Hugging Face repository",
    )
    parser.add_argument(
        "--from", dest="kind", choices=KINDS, help="whose it is (default: found by its names)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="the model folder; one that is there is replaced",
    )
    parser.add_argument(
        "--speaker",
        metavar="NAME",
        help="whose voice, by name or number, of a VITS or an XTTS that has several",
    )
    parser.add_argument(
        "--voice",
        type=Path,
        metavar="FILE",
        help="the embedding to speak with, where the net takes any (XTTS, IndexTTS 1, GPT-SoVITS 1 and 2, OpenVoice): "
        ".npy, .pt, .pth, .safetensors, or XTTS's speakers_xtts.pth, found beside model.pth",
    )
    parser.add_argument("--licence", metavar="TEXT", help="of the weights, written into the model folder")


def run(args: argparse.Namespace) -> int:
    from gansound.importers import import_checkpoint, on_hub

    files = args.files if args.voice is None else [*args.files, args.voice]
    missing = [path for path in files if not path.exists() and not on_hub(path)]
    if missing:
        raise UsageError(f"{missing[0]}: no such file")
    described = import_checkpoint(args.files, args.output, args.kind, args.licence, args.speaker, args.voice)
    if not args.quiet:
        spec = described.takes
        print(f"{args.output}: {described.class_path.rpartition('.')[2]}, takes {spec.in_words()}")
        for note in described.notes:
            print(f"note: {note}")
    return 0
