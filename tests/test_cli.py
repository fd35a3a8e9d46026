"""The frame of the command line: exit codes, one message, no traceback, nothing imported before its time."""

import argparse
import errno
import logging
import os
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest

from gansound import cli
from gansound.cli.errors import UsageError
from gansound.cli.log import logging_to_stderr

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def command(monkeypatch):
    """Install ``gansound fake``, whose run is the given function; what it was called with ends up in .seen."""
    monkeypatch.delenv("GANSOUND_DEBUG", raising=False)

    def install(run=lambda args: 0, extra=False):
        module = types.ModuleType("fake_command")
        module.HELP = "a command made for a test"
        module.EXAMPLES = "examples:\n  gansound fake   once"
        module.EXTRA = extra
        module.seen = []

        def add_arguments(parser):
            parser.add_argument("recipe", nargs="?")
            parser.add_argument("--run", dest="run_folder")

        def noted_run(args):
            module.seen.append(args)
            return run(args)

        module.add_arguments, module.run = add_arguments, noted_run
        monkeypatch.setitem(sys.modules, "fake_command", module)
        monkeypatch.setitem(cli.COMMANDS, "fake", ("fake_command", "a fake"))
        return module

    return install


def raising(error):
    def run(args):
        raise error

    return run


def recipe_error():
    from gansound.recipe import RecipeError

    return RecipeError("generator.width: got 'x', expected int")


@pytest.mark.parametrize(
    "error, code, message",
    [
        (UsageError("no input"), 2, "error: no input\n"),
        (ValueError("80 bands, got 100"), 1, "error: 80 bands, got 100\n"),
        (RuntimeError("plain"), 1, "error: plain\n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a.wav"), 1,
         "error: a.wav: No such file or directory\n"),
        (OSError(errno.EIO, "Input/output error"), 1, "error: Input/output error\n"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)  # fmt: skip
def test_an_error_is_one_message_and_a_code(command, capsys, error, code, message):
    command(raising(error))
    assert cli.main(["fake"]) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", message)


def test_a_recipe_error_is_a_usage_error(command, capsys):
    pytest.importorskip("gansound.recipe")
    command(raising(recipe_error()))
    assert cli.main(["fake"]) == 2
    assert capsys.readouterr().err == "error: generator.width: got 'x', expected int\n"


def chained(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--seed", "a"], "expected a whole number, got 'a'"),
        (["--truncation", "a"], "expected a number, got 'a'"),
    ],
)
def test_what_is_no_number_is_said_in_words(capsys, arguments, words):
    assert cli.main(["generate", "-o", "x", *arguments]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, words",
    [
        (OSError(errno.ENOSPC, "No space left on device", "out.wav"), ["out.wav", "disk is full"]),
        (OSError(errno.EFBIG, "File too large", "out.wav"), ["out.wav", "file-size limit"]),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), ["disk is full"]),
        (type("SafetensorError", (Exception,), {})("IoError(Os { code: 27, kind: FileTooLarge })"), ["file-size"]),
        (chained(RuntimeError("could not save"), OSError(errno.ENOSPC, "No space", "m.pt")), ["m.pt", "full"]),
    ],
)  # fmt: skip
def test_a_full_disk_is_said_in_one_line(command, capsys, error, words):
    command(raising(error))
    assert cli.main(["fake"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(word in err for word in [*words, "Free some space"])


def test_memory_running_out_says_what_to_do(command, capsys):
    torch = pytest.importorskip("torch")

    def run(args):
        torch.empty(1 << 60)

    for body in (
        run,
        raising(torch.OutOfMemoryError("CUDA out of memory. Tried 3 GiB")),
        raising(MemoryError()),
    ):
        command(body)
        assert cli.main(["fake"]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "out of memory" in err
        assert "smaller" in err


@pytest.mark.parametrize(
    "error", [KeyError("mel"), TypeError("no"), AssertionError(), NotImplementedError("later")]
)
def test_a_bug_is_called_one(command, capsys, error):
    command(raising(error))
    assert cli.main(["fake"]) == 1
    err = capsys.readouterr().err
    assert f"internal error, {type(error).__name__}" in err
    assert "Traceback" not in err
    assert "--debug" in err


@pytest.mark.parametrize("where", [["--debug", "fake"], ["fake", "--debug"], ["fake"]])
def test_debug_shows_the_traceback(command, capsys, monkeypatch, where):
    if "--debug" not in where:
        monkeypatch.setenv("GANSOUND_DEBUG", "1")
    command(raising(ValueError("why")))
    assert cli.main(where) == 1
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "in run" in err
    assert err.endswith("error: why\n")


def test_debug_environment_zero_is_off(command, capsys, monkeypatch):
    command(raising(ValueError("why")))
    monkeypatch.setenv("GANSOUND_DEBUG", "0")
    cli.main(["fake"])
    assert "Traceback" not in capsys.readouterr().err


def test_the_code_that_run_returns_is_the_exit_code(command):
    command(lambda args: 1)
    assert cli.main(["fake"]) == 1
    command(lambda args: 0)
    assert cli.main(["fake"]) == 0


@pytest.mark.parametrize(
    "argv", [["fake", "--bogus"], ["--bogus", "fake"], ["fake", "a", "b"], ["nothing"], []]
)
def test_a_wrong_command_line_is_2_and_runs_nothing(command, capsys, argv):
    module = command()
    assert cli.main(argv) == 2
    assert module.seen == []
    said = capsys.readouterr().err
    assert "Traceback" not in said
    if argv == ["fake", "a", "b"]:
        assert said == "error: unrecognized arguments: b. See `gansound fake --help`\n"


def test_a_mistyped_command_is_guessed(capsys):
    assert cli.main(["evalute"]) == 2
    assert "did you mean 'evaluate'" in capsys.readouterr().err


def test_an_abbreviated_option_is_refused(command):
    module = command()
    assert cli.main(["fake", "--ru", "x"]) == 2
    assert module.seen == []


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["fake", "-v"], (False, False, True)),
        (["-v", "fake"], (False, False, True)),
        (["-q", "fake", "--debug"], (True, True, False)),
        (["--debug", "fake", "r"], (True, False, False)),
        (["fake"], (False, False, False)),
    ],
)
def test_global_options_stand_before_or_after(command, argv, expected):
    module = command()
    assert cli.main(argv) == 0
    args = module.seen[0]
    assert (args.debug, args.quiet, args.verbose) == expected


@pytest.mark.parametrize(
    "argv, recipe, run_folder, extra",
    [
        (["tiny", "--data.path", "d", "--steps", "20"], "tiny", None, ["--data.path", "d", "--steps", "20"]),
        (["--data.path", "d", "tiny"], "tiny", None, ["--data.path", "d"]),
        (["--run", "r", "--seed=3", "tiny"], "tiny", "r", ["--seed=3"]),
        (["tiny", "--lr", "-1e-3", "--run=r"], "tiny", "r", ["--lr", "-1e-3"]),
        (["tiny", "--runs", "x", "-v", "--ema", "--steps", "2"], "tiny", None,
         ["--runs", "x", "--ema", "--steps", "2"]),
        (["--data.path", "fake", "tiny"], "tiny", None, ["--data.path", "fake"]),
    ],
)  # fmt: skip
def test_settings_of_a_recipe_pass_through(command, argv, recipe, run_folder, extra):
    module = command(extra=True)
    assert cli.main(["fake", *argv]) == 0
    args = module.seen[0]
    assert (args.recipe, args.run_folder, args.extra) == (recipe, run_folder, extra)


def test_help_of_a_command_keeps_its_examples_as_written(command, capsys):
    command()
    assert cli.main(["fake", "--help"]) == 0
    out = capsys.readouterr().out
    assert "a command made for a test" in out
    assert "  gansound fake   once" in out


@pytest.mark.parametrize("argv", [["--version"], ["fake", "--version"]])
def test_version(command, capsys, argv):
    import gansound

    command()
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == f"gansound {gansound.__version__}\n"


def test_log_levels(command, capsys):
    def run(args):
        log = logging.getLogger("gansound.somewhere")
        log.debug("detail")
        log.info("told")
        log.warning("careful")
        warnings.simplefilter("always")  # or it would be shown once only
        warnings.warn("somebody else's", FutureWarning, stacklevel=1)
        return 0

    command(run)
    seen = {}
    for flag in ("-q", "", "-v"):
        assert cli.main(["fake", flag] if flag else ["fake"]) == 0
        out, seen[flag] = capsys.readouterr()
        assert out == ""
    assert seen["-q"] == "warning: careful\n"
    assert seen[""] == "told\nwarning: careful\n"
    assert "debug: detail\n" in seen["-v"]
    assert "somebody else's" in seen["-v"]


def test_logging_leaves_nothing_behind():
    logger = logging.getLogger("gansound")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with logging_to_stderr(0):
        assert len(logger.handlers) == len(before[2]) + 1
    with pytest.raises(KeyError), logging_to_stderr(0):
        raise KeyError
    assert (logger.level, logger.propagate, logger.handlers) == before


def loaded_by(code):
    """The modules that a fresh interpreter holds after running ``code``."""
    script = f"import sys\n{code}\nsys.stderr.write('\\n'.join(['', *sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


HEAVY = {"torch", "numpy", "yaml", "rich", "matplotlib", "librosa", "soundfile", "torchaudio", "accelerate"}


@pytest.mark.parametrize(
    "code",
    [
        "import gansound; dir(gansound)",
        "from gansound.cli import main; assert main(['--help']) == 0",
        "from gansound.cli import main; assert main(['--version']) == 0",
        "from gansound.cli import main; assert main(['evalute']) == 2",
    ],
)
def test_help_and_import_load_nothing_heavy(code):
    modules = loaded_by(code)
    assert "gansound" in modules
    assert {module.partition(".")[0] for module in modules} & HEAVY == set()


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command_loads_its_own_module_and_no_torch(name):
    if not (ROOT / "gansound" / "cli" / f"{name}.py").exists():
        pytest.skip(f"gansound {name} isn't written yet")
    modules = loaded_by(f"from gansound.cli import main; assert main([{name!r}, '--help']) == 0")
    assert "torch" not in modules
    commands = {f"gansound.cli.{other}" for other in cli.COMMANDS}
    assert modules & commands == {f"gansound.cli.{name}"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_commands_fit_the_frame(name):
    if not (ROOT / "gansound" / "cli" / f"{name}.py").exists():
        pytest.skip(f"gansound {name} isn't written yet")
    module = __import__(f"gansound.cli.{name}", fromlist=["HELP"])
    assert module.HELP.strip()
    module.add_arguments(argparse.ArgumentParser())
    assert callable(module.run)


FAKE = """
import sys, types
from gansound import cli
fake = types.ModuleType("fake"); fake.HELP = "x"; fake.add_arguments = lambda p: None
def run(args):
    print("line\\n" * 100000 if "-v" in sys.argv else "line")
    return 0
fake.run = run; sys.modules["fake"] = fake
cli.COMMANDS["fake"] = ("fake", "x")
sys.exit(cli.main())
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device of Linux")
@pytest.mark.parametrize("argument", ["fake", "--help", "--version"])
def test_stdout_on_a_full_disk_is_noticed(argument):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", FAKE, argument],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=240,
        )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "disk is full" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
def test_a_closed_pipe_is_silent():
    with subprocess.Popen(
        [sys.executable, "-c", FAKE, "fake", "-v"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "line\n"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=240) == 1
