"""The suite in two processes: who starts them, and what stays together."""

from types import SimpleNamespace

import pytest

from tests.conftest import pytest_cmdline_main, pytest_xdist_make_scheduler

SOURCES = pytest.Config.ArgsSource


def processes(source, numprocesses=None, usepdb=False):
    option = SimpleNamespace(numprocesses=numprocesses, usepdb=usepdb)
    pytest_cmdline_main(SimpleNamespace(args_source=source, option=option))
    return option.numprocesses


def test_the_whole_suite_takes_two_and_what_they_start_none(monkeypatch):
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    assert processes(SOURCES.TESTPATHS) == 2
    assert processes(SOURCES.TESTPATHS, numprocesses=0) == 0
    assert processes(SOURCES.TESTPATHS, usepdb=True) is None
    assert processes(SOURCES.ARGS) is None
    monkeypatch.setenv("PYTEST_XDIST_WORKER", "gw0")  # else each of the two starts two, and those two each
    assert processes(SOURCES.TESTPATHS) is None


def test_a_file_stays_together_pages_do_not_and_what_kills_is_one_task(pytestconfig):
    xdist = pytest.importorskip("xdist.remote")
    config = SimpleNamespace(
        option=SimpleNamespace(dist="load", loadscopereorder=True), getvalue=lambda _: ["popen"]
    )
    scheduler = pytest_xdist_make_scheduler(config, xdist.Producer("test"))
    tasks = [
        scheduler._split_scope(f"tests/{test}")
        for test in (
            "test_a.py::test_b",
            "test_a.py::test_c[x::y/z]",
            "test_kills.py::test_k",
            "test_bench.py::test_b",
        )
    ]
    assert tasks == ["test_a.py", "test_a.py", "apart", "apart"]
    pages = [
        scheduler._split_scope(f"tests/test_house.py::test_examples_of_a_page_run[{p}.md]") for p in "ab"
    ]
    assert pages[0] != pages[1]
    assert config.option.loadscopereorder is False
    config.option.dist = "worksteal"
    assert pytest_xdist_make_scheduler(config, None) is None
