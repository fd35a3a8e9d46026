"""What is written is true: the README's and the documentation's examples run, and so do the docstrings'."""

import doctest
import importlib
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests import warm

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
MARK = re.compile(r"<!--\s*(?:(?P<test>test)|no test:\s*(?P<reason>\S.*?))\s*-->")
FENCE = re.compile(r"(?P<fence>```+)(?P<language>[\w-]*)")
RUNNABLE = {"bash", "sh", "console", "python"}


@dataclass(frozen=True)
class Example:
    """A fenced block of a page: its language, its text, the line its fence is on, and its mark."""

    language: str
    text: str
    line: int
    tested: bool
    reason: str | None


def examples(page: str) -> list[Example]:
    """The fenced blocks of a markdown page; a mark counts if it is on the last line before the fence with text."""
    found: list[Example] = []
    lines = iter(enumerate(page.splitlines(), start=1))
    mark = None
    for number, line in lines:
        if opened := FENCE.match(line.strip()):
            body = []
            for _, inside in lines:
                if inside.strip() == opened["fence"]:
                    break
                body.append(inside)
            else:
                raise ValueError(f"line {number}: the block is never closed")
            found.append(
                Example(opened["language"], "\n".join(body) + "\n", number, bool(mark and mark["test"]),
                        mark["reason"] if mark else None)
            )  # fmt: skip
            mark = None
        elif line.strip():
            mark = MARK.fullmatch(line.strip())
    return found


@contextmanager
def port_for(text: str) -> Iterator[str]:
    """A page's text with a port that we hold in place of the one it names, which may be anyone's.

    Both nodes then find that the endpoint has its store, as the second does where the first began one.
    """
    named = re.search(r"localhost:(\d+)", text)
    if named is None:
        yield text
    else:
        store = torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
        yield text.replace(named[0], f"localhost:{store.port}")
        del store


def run_examples(page: str, folder: Path, name: str = "page") -> int:
    """Run the marked examples in order in ``folder``, ``gansound`` and ``python`` being those of this checkout.

    Each Python block is a script of its own; files stay from one example to the next. Returns how many ran.
    """
    programs = folder / ".programs"
    programs.mkdir()
    for program, what in (
        ("python", ""),
        ("python3", ""),
        ("gansound", " -m gansound"),
        ("torchrun", " -m torch.distributed.run"),
    ):
        shim = programs / program
        shim.write_text(f'#!/bin/sh\nexec "{warm.python()}"{what} "$@"\n')
        shim.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "Agg",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PYTHON_EXEC": warm.python(),  # what torchrun starts
    }
    marked = [example for example in examples(page) if example.tested]
    for example in marked:
        started = (
            [warm.python(), "-c", example.text]
            if example.language == "python"
            else ["bash", "-euo", "pipefail", "-c", example.text]
        )
        done = subprocess.run(
            started,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=1200,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, (
            f"{name}, line {example.line}: the example ended with {done.returncode}\n"
            f"{example.text}\n--- stdout\n{done.stdout[-3000:]}\n--- stderr\n{done.stderr[-3000:]}"
        )
    return len(marked)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_of_a_page_run(page, tmp_path):
    # The pages are read at the top of a checkout; what they name of it lies in its samples.
    (tmp_path / "samples" / "kathleen").mkdir(parents=True)
    for folder in ("samples", "samples/kathleen"):
        for recording in (ROOT / folder).glob("*.flac"):
            shutil.copy(recording, tmp_path / folder)
    with port_for(page.read_text()) as text:
        ran = run_examples(text, tmp_path, page.name)
    if ran == 0:
        pytest.skip(f"{page.name} has no example marked <!-- test -->")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_example_is_tested_or_says_why_not(page):
    silent = [
        f"line {example.line}"
        for example in examples(page.read_text())
        if example.language in RUNNABLE and not example.tested and not example.reason
    ]
    assert silent == [], f"{page.name}: put <!-- test --> or <!-- no test: why --> before {', '.join(silent)}"


def page_of(*blocks):
    return "\n\nProse.\n\n".join(blocks)


def test_marked_examples_run_in_order_in_one_folder(tmp_path):
    page = page_of(
        "<!-- test -->\n```bash\necho one > a.txt\n```",
        "```bash\nexit 7\n```",
        "<!-- no test: it fails -->\n```bash\nexit 8\n```",
        "<!-- test -->\n\n```python\nimport gansound\nopen('b.txt', 'w').write(open('a.txt').read() + 'two')\n```",
        "<!-- test -->\n```bash\ngansound --version | tee version.txt\n```",
    )
    assert run_examples(page, tmp_path) == 3
    assert (tmp_path / "b.txt").read_text() == "one\ntwo"
    assert (tmp_path / "version.txt").read_text().startswith("gansound ")
    assert [example.reason for example in examples(page)] == [None, None, "it fails", None, None]


@pytest.mark.parametrize(
    "block",
    [
        "```bash\nfalse\necho went on\n```",
        "```bash\nfalse | cat\n```",
        "```bash\ngansound no-such-command\n```",
        "```python\nraise ValueError\n```",
    ],
)
def test_a_failing_example_fails(tmp_path, block):
    with pytest.raises(AssertionError, match="line 2"):
        run_examples(f"<!-- test -->\n{block}\n", tmp_path)


def test_a_mark_holds_for_the_next_block_only():
    page = "<!-- test -->\nProse between.\n```bash\nx\n```\n<!-- test -->\n```bash\ny\n```\n```bash\nz\n```\n"
    assert [example.tested for example in examples(page)] == [False, True, False]


def modules_with_examples():
    for path in sorted((ROOT / "gansound").rglob("*.py")):
        if ">>> " in path.read_text():
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("name", list(modules_with_examples()))
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(
        importlib.import_module(name),
        optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS,
        report=True,
    )
    assert result.attempted > 0
    assert result.failed == 0


def test_public_names_are_there_and_others_are_not():
    import gansound

    assert set(gansound.__all__) <= set(dir(gansound))
    for name in gansound.__all__:
        assert getattr(gansound, name) is not None
    with pytest.raises(AttributeError, match="Vocoder"):
        gansound.Vokoder  # noqa: B018


def test_every_room_has_a_contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    bound = {module for contract in contracts for module in contract["source_modules"]}
    rooms = {
        f"gansound.{path.stem}"
        for path in (ROOT / "gansound").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and not path.stem.startswith("__")
    }
    assert rooms - bound == {"gansound.cli"}
