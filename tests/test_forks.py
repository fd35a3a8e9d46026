"""Vocoders and other processes: a fork is refused in a line instead of hanging, and spawned ones can be given one."""

import copy
import multiprocessing
import pickle
import threading
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gansound
from gansound.inference import forks
from gansound.inference.backends import available
from gansound.model_folder import save_model_folder
from tests.families import FAMILIES, N_MELS
from tests.test_streaming_models import awake

pytestmark = pytest.mark.usefixtures("traced_once")
BACKENDS = [backend for backend, precision in available() if precision == "fp32" and backend != "compile"]
MEL = np.full((N_MELS, 6), -3.0, np.float32)
SOUND = (1, 6 * FAMILIES["freev"].mel.hop_length)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the net whose graphs `test_backends` has traced."""
    family = FAMILIES["freev"]
    net = awake("freev", False, torch.float32)
    return save_model_folder(
        tmp_path_factory.mktemp("models") / "tiny", net, family.mel, config=family.config
    )


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process in which nothing has run."""
    monkeypatch.setattr(forks, "_ran_in", None)


def answer(connection: Connection, act: Any) -> None:
    try:
        connection.send(act())
    except Exception as error:
        connection.send(f"{type(error).__name__}: {error}")


def in_a_fork(act: Any) -> Any:
    here, there = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=answer, args=(there, act))
    child.start()
    try:
        assert here.poll(240), "it hangs"
        return here.recv()
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_fork_after_two_threads_vocoded_is_refused(fresh: None, folder: Path, backend: Any) -> None:
    vocoder = gansound.Vocoder.from_pretrained(folder, device="cpu", backend=backend)
    threads = [threading.Thread(target=vocoder, args=(MEL,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stream = vocoder.stream()
    for act in (
        lambda: vocoder(MEL),
        lambda: stream.push(MEL),
        vocoder.stream,
        lambda: gansound.Vocoder.from_pretrained(folder, device="cpu", backend=backend)(MEL),
    ):
        said = in_a_fork(act)
        assert "was forked from one in which a model had run" in str(said), said
        assert "spawn" in said
    assert vocoder(MEL).shape == SOUND  # the parent goes on


def test_a_lock_that_another_thread_holds_is_not_waited_for(fresh: None, folder: Path) -> None:
    vocoder = gansound.Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    vocoder(MEL)
    with vocoder._making:
        assert "was forked" in in_a_fork(lambda: vocoder(MEL))


def test_what_was_only_loaded_may_be_forked(fresh: None, folder: Path, one_thread: None) -> None:
    vocoder = gansound.Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    assert in_a_fork(lambda: tuple(vocoder(MEL).shape)) == SOUND


def test_a_vocoder_is_pickled_as_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    vocoder = gansound.Vocoder.from_pretrained("tiny", device="cpu", backend="eager", precision="bf16")
    vocoder(MEL)
    data = pickle.dumps(vocoder)
    assert len(data) < 2000
    monkeypatch.chdir("/")
    again = pickle.loads(data)
    assert type(again) is gansound.Vocoder
    assert (again.backend, again.precision, again.device) == ("eager", "bf16", torch.device("cpu"))
    assert torch.equal(again(MEL), vocoder(MEL))


def test_weights_that_have_changed_are_sent_along(folder: Path) -> None:
    vocoder = gansound.Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    before = vocoder(MEL)
    with torch.no_grad():
        next(vocoder.generator.parameters()).mul_(2)
    assert len(pickle.dumps(vocoder)) > 2000
    assert not torch.equal(vocoder(MEL), before)
    vocoder.to("cpu")
    for again in (pickle.loads(pickle.dumps(vocoder)), pickle.loads(pickle.dumps(copy.deepcopy(vocoder)))):
        assert torch.equal(again(MEL), vocoder(MEL))


def length(vocoder: Any) -> int:
    return vocoder(MEL).shape[-1]


def test_a_spawned_process_can_be_given_one(folder: Path) -> None:
    vocoder = gansound.Vocoder.from_pretrained(folder, device="cpu", backend="eager")
    vocoder(MEL)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(length, [vocoder]) == [SOUND[-1]]


def test_packages_that_were_allowed_are_allowed_there(folder: Path) -> None:
    vocoder = gansound.Vocoder.from_pretrained(folder, device="cpu", backend="eager", allow=["tests"])
    assert pickle.loads(pickle.dumps(vocoder))._allow == ("tests",)
