"""What stands in the name of a file is shown, never obeyed; and the standard streams in any state."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table
from rich.text import Text

from gansound import cli
from gansound.cli.console import Console
from gansound.visible import ENCODING_ERRORS, visible, visible_html, visible_lines
from tests.tiny import save_tiny_model

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = "a\x1b[31m\x1b]0;owned\x07[red]b[bold]\u202egnp\nerror: x"
SHOWN = r"a\x1b[31m\x1b]0;owned\x07[red]b[bold]\u202egnp\nerror: x"


def test_every_character_that_is_none_is_written_out() -> None:
    for number in [
        *range(32),
        *range(127, 160),
        0x2028,
        0x2029,
        *range(0x202A, 0x202F),
        0x2066,
        0x2069,
        0xDC80,
    ]:
        assert visible(chr(number)).isprintable(), hex(number)
        assert visible(f"a{chr(number)}b").startswith("a\\")
    plain = "Grüße – 日本語 ☺ [x] 100 % C:\\a 'b'"
    assert visible(plain) == plain
    assert visible(HOSTILE) == SHOWN
    assert visible(os.fsdecode(b"caf\xe9")) == r"caf\xe9"


def test_a_message_keeps_its_lines_but_none_passes_for_another() -> None:
    assert (
        visible_lines("one\ttab\n\n two\nerror: three\x1b[0m")
        == "one\\ttab\n\n   two\n  error: three\\x1b[0m"
    )


def test_in_a_page_nothing_is_a_tag() -> None:
    assert visible_html("<b>\x1b\udce9&") == r"&lt;b&gt;\x1b\xe9&amp;"


def test_in_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    console = Console(width=200)
    console.file = out
    console._force_terminal = True
    console._color_system = console._detect_color_system()
    table = Table(title=Text(HOSTILE))
    table.add_column("name")
    table.add_row(Text(HOSTILE, "bold red"))
    console.print(table)
    text = out.getvalue()
    assert "\x1b[1;31m" in text or "\x1b[1;38" in text  # the style is ours
    for theirs in ("\x1b[31m\x1b]0", "\x1b]0", "\x07", "\u202e"):
        assert theirs not in text
    assert r"a\x1b[31m\x1b]0;owned" in text


def test_the_log_and_the_last_message(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from gansound.cli import errors, runs

    def run(args: object) -> int:
        logging.getLogger("gansound.x").warning("%s: careful", HOSTILE)
        try:
            raise KeyError(HOSTILE)
        except KeyError:
            logging.getLogger("gansound.x").error("failed", exc_info=True)
        raise errors.UsageError(f"{HOSTILE}: no such file")

    monkeypatch.setattr(runs, "run", run)
    assert cli.main(["runs"]) == 2
    assert cli.main(["runs", f"--{HOSTILE}"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert all(character.isprintable() or character == "\n" for character in err)
    assert err.count(r"a\x1b[31m\x1b]0;owned") >= 3
    assert "\nerror: x" not in err
    assert "Traceback (most recent call last):\n" in err


@pytest.mark.skipif(os.name != "posix", reason="such names are POSIX's")
def test_a_batch_of_hostile_names(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model, mels, out = save_tiny_model(tmp_path / "model"), tmp_path / "mels", tmp_path / "out"
    mels.mkdir()
    mel = np.full((80, 4), -3.0, np.float32)
    names = [HOSTILE.replace("/", ""), os.fsdecode(b"caf\xe9")]
    for name in names:
        with (mels / f"{name}.npy").open("wb") as file:
            np.save(file, mel)
    (mels / f"bad{HOSTILE}.npy").write_bytes(b"junk")
    assert cli.main(["vocode", str(mels), "-o", str(out), "--model", str(model), "--backend", "eager"]) == 1
    said, err = capsys.readouterr()
    assert sorted(said.splitlines()) == sorted(f"{out}/{visible(name)}.wav" for name in names)
    assert sorted(path.name for path in out.iterdir()) == sorted(f"{name}.wav" for name in names)
    assert "\nerror: x" not in err
    shown = SHOWN.replace(r"\n", "\n  ")  # a message may have lines
    assert f"bad{shown}.npy: can't be read as a mel" in err
    assert "\x1b" not in said + err


SAY = r"""
import sys, types
from gansound import cli
fake = types.ModuleType("fake"); fake.HELP = "x"; fake.add_arguments = lambda p: None
def run(args):
    import logging
    from gansound.cli.console import Console
    from gansound.cli.streams import tell
    logging.getLogger("gansound.x").warning("careful")
    tell("\u2022 4 \u2265 3 \u2026 \u65e5 caf\udce9")
    Console().print("\u2022 from a table")
    with open("written.txt", "w") as file:
        file.write("result")
    return 0
fake.run = run; sys.modules["fake"] = fake
cli.COMMANDS["fake"] = ("fake", "x")
sys.exit(cli.main())
"""


def said(tmp_path: Path, redirections: str = "", **environment: str) -> "subprocess.CompletedProcess[bytes]":
    (tmp_path / "say.py").write_text(SAY, encoding="utf-8")
    line = f'exec "{sys.executable}" say.py fake {redirections}'
    setting = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(["sh", "-c", line], cwd=tmp_path, env=setting, capture_output=True, timeout=240)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_a_stdout_of_any_encoding(tmp_path: Path, encoding: str) -> None:
    done = said(tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b"warning: careful\n"
    first, second = done.stdout.decode(encoding).splitlines()
    if encoding == "utf-8":
        assert first == r"• 4 ≥ 3 … 日 caf\xe9"
    elif encoding == "cp1252":
        assert first == r"• 4 >= 3 … \u65e5 caf\xe9"
    else:
        assert (first, second) == (r"* 4 >= 3 ... \u65e5 caf\xe9", "* from a table")


def test_a_closed_stdout_is_said_before_the_work(tmp_path: Path) -> None:
    done = said(tmp_path, ">&-")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: stdout is closed")
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "written.txt").exists()


def test_a_closed_stderr_changes_nothing(tmp_path: Path) -> None:
    done = said(tmp_path, "2>&-", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [r"• 4 ≥ 3 … 日 caf\xe9", "• from a table"]
    assert (tmp_path / "written.txt").read_text() == "result"  # and nothing else was written into it
    done = said(tmp_path, "2>&- >&-")
    assert done.returncode == 1


def test_an_error_handler_of_a_decoder_it_is_not() -> None:
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("utf-8", ENCODING_ERRORS)
