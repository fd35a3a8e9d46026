"""The command line: ``gansound COMMAND ...``.

A command is a module of this package with ``HELP: str``, ``add_arguments(parser)`` and ``run(args) -> int``,
named in ``COMMANDS``; it is imported only when it is used. Optional: ``EXAMPLES: str``, shown under its help,
and ``EXTRA = True``, with which the options that the command does not know, and the value after each, end up in
``args.extra`` (``--data.path DIR``: settings of a recipe).
"""

import argparse
import difflib
import os
import re
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, NoReturn

from gansound.cli.errors import explain
from gansound.cli.log import logging_to_stderr
from gansound.cli.signals import ended_by_signals
from gansound.cli.streams import abandon_if_gone, ready_streams
from gansound.visible import visible_lines

# name -> (module, the line that `gansound --help` shows without importing it)
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("gansound.cli.demo", "the shipped vocoder on a shipped clip: sound, picture, figures"),
    "data": ("gansound.cli.data", "look at a corpus, make a manifest of it"),
    "train": ("gansound.cli.train", "train a model from a recipe, or go on with a run"),
    "recipe": (
        "gansound.cli.recipe",
        "write a recipe that fits a family, a sample rate and a mel convention",
    ),
    "runs": ("gansound.cli.runs", "list runs of training, compare them, look at one"),
    "vocode": ("gansound.cli.vocode", "turn mel spectrograms or recordings into sound"),
    "mel": ("gansound.cli.mel", "which convention a mel is in, and the way to what a model wants"),
    "stream": ("gansound.cli.stream", "mel frames in, sound out, as they come"),
    "generate": (
        "gansound.cli.generate",
        "new sounds from a trained generator of clips, with a page to hear them on",
    ),
    "latent": (
        "gansound.cli.latent",
        "interpolate, find directions, attribute, invert: what lies between and behind sounds",
    ),
    "classifier": (
        "gansound.cli.classifier",
        "train a classifier on labelled sounds, to judge sets of sounds by",
    ),
    "evaluate": ("gansound.cli.evaluate", "measure a model, or a folder of sounds, against the ground truth"),
    "compare": (
        "gansound.cli.compare",
        "models or folders of sounds in pairs, and a page for blind listening",
    ),
    "bench": ("gansound.cli.bench", "how fast a vocoder is on this machine, on every backend"),
    "import": ("gansound.cli.importing", "another project's checkpoint as a model folder"),
    "export": ("gansound.cli.export", "a vocoder as one file for other runtimes: ONNX, torch.export"),
}
_EXAMPLES = """examples:
  gansound demo
  gansound data check recordings/
  gansound train tiny_cpu --data.path recordings/ --run runs/first
  gansound vocode speech.wav --model default -o resynthesised.wav
  gansound train wavegan_tiny_cpu --data.path sounds/ --run runs/sounds
  gansound generate --model runs/sounds/model -n 16 -o generated/

`gansound COMMAND --help` teaches each command."""


_NUMBERS = {"int": "a whole number", "float": "a number"}
_NO_NUMBER = re.compile(r"invalid (int|float) value: ")  # as argparse says it


class _Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and answers a mistake with one message instead of the usage."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        # An abbreviation breaks with each new option, and would swallow settings of a recipe.
        kwargs |= {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:  # argparse's own hides that the disk is full
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        message = _NO_NUMBER.sub(lambda found: f"expected {_NUMBERS[found[1]]}, got ", message)
        self.exit(2, visible_lines(f"error: {message}. See `{self.prog} --help`") + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; never raises.

    Args:
        argv: the arguments after the program's name; those of the process when None.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments or os.environ.get("GANSOUND_DEBUG", "") not in ("", "0")
    try:
        ready_streams()
        try:
            with ended_by_signals():
                code = _run(arguments)
        except SystemExit as stop:  # argparse: help, version, usage
            code = stop.code if isinstance(stop.code, int) else 0
        sys.stdout.flush()  # a full disk or a closed pipe behind stdout shows here, not at exit
    except BaseException as error:
        code, message = explain(error)
        if debug and not isinstance(error, BrokenPipeError):
            traceback.print_exc()
        if message:
            _say(message)
    for stream in (sys.stdout, sys.stderr):
        abandon_if_gone(stream)
    return code


def _run(arguments: list[str]) -> int:
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    known = name if name in COMMANDS else None
    if name is not None and known is None:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        _parser(None, None).error(
            f"unknown command {name!r}, expected one of {', '.join(COMMANDS)}"
            + (f"; did you mean {near[0]!r}?" if near else "")
        )
    module = import_module(COMMANDS[known][0]) if known else None
    parser = _parser(known, module)
    extra: list[str] = []
    if known and getattr(module, "EXTRA", False):
        at = arguments.index(known) + 1
        rest, extra = _split_extra(arguments[at:], parser.known_options)
        arguments = arguments[:at] + rest
    args, unknown = parser.parse_known_args(arguments)
    if unknown:  # argparse's own message names the help of no command
        helped = f"{parser.prog} {known}" if known else parser.prog
        behind = not unknown[0].startswith("-") and "-i" in parser.known_options
        hint = f"; the input stands behind -i: -i {shlex.quote(unknown[0])}" if behind else ""
        said = f"error: unrecognized arguments: {' '.join(unknown)}{hint}. See `{helped} --help`"
        parser.exit(2, visible_lines(said) + "\n")
    if module is None:
        parser.print_help(sys.stderr)
        return 2
    for flag in ("debug", "quiet", "verbose"):
        setattr(args, flag, getattr(args, flag, False))
    args.extra = extra
    with logging_to_stderr(1 if args.verbose else -1 if args.quiet else 0):
        return int(module.run(args))


class _MainParser(_Parser):
    """The parser of the whole command line, which knows the option strings of the command in use."""

    known_options: frozenset[str] = frozenset()


def _parser(command: str | None, module: ModuleType | None) -> _MainParser:
    """The whole parser; only ``command`` has its arguments, the others their line in the overview."""
    parser = _MainParser(
        prog="gansound",
        description="Audio GAN synthesis: train vocoders and sound generators, and turn mels into sound.",
        epilog=_EXAMPLES,
    )
    add_global_options(parser)
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", parser_class=_Parser
    )
    for name, (_, line) in COMMANDS.items():
        sub = commands.add_parser(name, help=line)
        add_global_options(sub)
        sub.add_argument("--version", action=_Version, nargs=0, help=argparse.SUPPRESS)
        if name == command and module is not None:
            sub.description = module.HELP
            sub.epilog = getattr(module, "EXAMPLES", None)
            module.add_arguments(sub)
            parser.known_options = frozenset(sub._option_string_actions)
    return parser


def add_global_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command, for a parser of its sub-commands too."""
    # SUPPRESS: after the command's name they must not undo what was given before it.
    group = parser.add_argument_group("in every command")
    for flags, text in (
        (("--debug",), "show the traceback of an error (also GANSOUND_DEBUG=1)"),
        (("-q", "--quiet"), "show warnings and errors only"),
        (("-v", "--verbose"), "show details"),
    ):
        group.add_argument(*flags, action="store_true", default=argparse.SUPPRESS, help=text)


class _Version(argparse.Action):
    """``--version``, looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        import gansound

        sys.stdout.write(f"gansound {gansound.__version__}\n")
        parser.exit()


def _split_extra(arguments: list[str], known: frozenset[str]) -> tuple[list[str], list[str]]:
    """Part a command's arguments from the options it doesn't know, each with the value that follows it.

    argparse.parse_known_args won't do: it takes the value of an unknown option for a positional argument.
    """
    rest: list[str] = []
    extra: list[str] = []
    waiting = False
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name, has_value, _ = argument.partition("=")
            unknown = name not in known
            (extra if unknown else rest).append(argument)
            waiting = unknown and not has_value
        else:
            (extra if waiting else rest).append(argument)
            waiting = False
    return rest, extra


def _say(message: str) -> None:
    message = visible_lines(message)
    try:
        if sys.stderr.isatty():
            from rich.text import Text

            from gansound.cli.console import Console

            Console(stderr=True).print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)
        else:
            sys.stderr.write(f"error: {message}\n")
            sys.stderr.flush()
    except OSError:
        pass  # stderr is gone too: nobody is left to tell
