"""Of a large state each process writes a share; a checkpoint is there when all shares are, and any number reads it."""

import shutil
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import gansound.engine.state as module
from gansound.engine.beside import Beside
from gansound.engine.checkpoint import checkpoints, newest_whole, torn, write
from gansound.engine.state import RunState
from tests.corpus import write_corpus
from tests.test_distributed import assert_close, ended, train, train_by_two, two, vocoder
from tests.test_engine import assert_same_run


class Count:
    """A part that is no network: of each process its own."""

    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def trained(seed: int, count: int = 0) -> RunState:
    torch.manual_seed(seed)
    layers = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(6)])
    optimizer = torch.optim.Adam(layers.parameters())
    layers(torch.randn(3, 16)).square().sum().backward()
    optimizer.step()
    state = RunState("a run")
    state.register("layers", layers)
    state.register("optimizer", optimizer)
    state.register("count", Count(count))
    return state


def everything(state: RunState) -> dict[str, Any]:
    return {name: module.split_tensors(part.state_dict()) for name, part in state._parts.items()}


def assert_equal(one: RunState, other: RunState) -> None:
    for (tensors, rest), (expected, same) in zip(
        everything(one).values(), everything(other).values(), strict=True
    ):
        assert rest == same
        assert tensors.keys() == expected.keys()
        assert all(torch.equal(tensors[path], expected[path]) for path in tensors)


def together(states: list[RunState], folder: Path, step: int) -> list[Path | BaseException]:
    """Each state's share written by a thread of its own, as by the processes of a run; what came of it."""
    ranks = len(states)
    met, said = threading.Barrier(ranks, timeout=60), [dict[str, Any]() for _ in range(ranks)]

    def gatherer(rank: int) -> Callable[[dict[str, Any]], list[dict[str, Any]]]:
        def gather(mine: dict[str, Any]) -> list[dict[str, Any]]:
            said[rank] = mine
            met.wait()
            return list(said)

        return gather

    def one(rank: int) -> Path | BaseException:
        try:
            return write(states[rank].stage(step, rank, ranks), folder, gatherer(rank))
        except (OSError, ValueError) as error:
            return error

    with ThreadPoolExecutor(ranks) as pool:
        return list(pool.map(one, range(ranks)))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEAST_SHARE_BYTES", 1000)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ranks", [2, 3])
def test_shares_of_about_the_same_size_are_one_checkpoint(ranks: int, tmp_path: Path) -> None:
    states = [trained(1, count=7 + rank) for rank in range(ranks)]
    assert together(states, tmp_path, 4) == [tmp_path / "step_00000004"] * ranks
    (path,) = checkpoints(tmp_path)
    assert torn(path) is None
    shares = [
        sum(file.stat().st_size for file in path.glob(f"*.{rank}.safetensors")) for rank in range(ranks)
    ]
    assert max(shares) < 1.3 * min(shares)
    found = [name for file in path.glob("*.safetensors") for name in load_file(file)]
    assert len(found) == len({*found}) == 6 * 2 * 4, "each once"
    fresh = trained(2)
    assert fresh.load(path) == 4
    assert_equal(fresh, states[0])  # of what each has of its own the first one's


def test_one_process_or_a_small_state_is_written_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = trained(1)
    assert [state.stage(1, rank, 4).writers for rank in range(4)] == [1] * 4
    assert not state.stage(1, 1, 4).files
    monkeypatch.setattr(module, "LEAST_SHARE_BYTES", 1000)
    assert state.stage(1, 0, 4).writers == 4
    path = write(state.stage(1), tmp_path)
    assert sorted(file.name for file in path.iterdir()) == [
        "count.safetensors", "layers.safetensors", "optimizer.safetensors", "state.json",
    ]  # fmt: skip


def test_a_share_is_of_the_moment_it_was_taken(tmp_path: Path) -> None:
    state, expected = trained(1), trained(1)
    share = state.stage(1)
    for tensor in everything(state)["layers"][0].values():
        tensor.zero_()  # training goes on
    fresh = trained(2)
    fresh.load(write(share, tmp_path))
    assert_equal(fresh, expected)
    again = state.stage(2)
    assert again.files["layers.safetensors"]["/0.weight"].data_ptr() == (
        share.files["layers.safetensors"]["/0.weight"].data_ptr()
    ), "the copies' memory is used again"


@pytest.mark.usefixtures("small")
def test_a_full_disk_of_one_is_told_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gansound.engine.checkpoint as files

    states = [trained(1), trained(1)]
    together(states, tmp_path, 1)
    real = files.save_file

    def full(tensors: dict[str, torch.Tensor], path: Path) -> None:
        if path.name == "optimizer.1.safetensors":
            raise OSError(28, "No space left on device")
        real(tensors, path)

    monkeypatch.setattr(files, "save_file", full)
    for error in together(states, tmp_path, 2):
        assert isinstance(error, OSError)
        assert (error.errno, error.filename) == (28, str(tmp_path / "step_00000002"))
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]
    assert torn(tmp_path / "step_00000001") is None


@pytest.mark.usefixtures("small")
def test_processes_of_other_networks_write_nothing_together(tmp_path: Path) -> None:
    other = RunState("a run")
    other.register("layers", torch.nn.Linear(40, 40))
    for error in together([trained(1), other], tmp_path, 1):
        assert "trains other networks" in str(error)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("small")
def test_a_share_that_is_lost_tears_the_checkpoint(tmp_path: Path) -> None:
    states = [trained(1), trained(1)]
    for step in (1, 2):
        together(states, tmp_path, step)
    (tmp_path / "step_00000002" / "optimizer.1.safetensors").unlink()
    assert newest_whole(tmp_path) == tmp_path / "step_00000001"
    (tmp_path / "step_00000001" / "optimizer.1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"optimizer\.1\.safetensors is missing or cut"):
        trained(2).load(tmp_path / "step_00000001")


def test_work_beside_is_one_at_a_time_and_its_error_is_told_once() -> None:
    beside, go, done = Beside(), threading.Event(), []
    beside.start("the first", lambda: go.wait(60) and done.append(1))
    beside.check()
    assert not done
    threading.Timer(0.05, go.set).start()
    beside.take_turn()
    assert done == [1]

    def fails() -> None:
        raise OSError(28, "No space left on device")

    beside.start("the second", fails)
    with pytest.raises(OSError, match="No space left"):
        beside.wait()
    beside.wait()


# What stands in for `python -m gansound` where shares are written of nets of any size, and a process may be killed in
# the middle of its own at one step.
SHARING = """
import os, sys
import gansound.engine.checkpoint as files
import gansound.engine.state as state
from gansound.cli import main
state.LEAST_SHARE_BYTES = 1000
real = files.save_file
def save_file(tensors, path):
    at = os.environ.get("KILLED_AT", "none")
    if at in str(path) and os.environ["RANK"] == os.environ["KILLED_RANK"] and "discriminator" in path.name:
        os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 500)
        open(os.environ["WITNESS"], "w").write(str(path))
        os.kill(os.getpid(), 9)
    real(tensors, path)
files.save_file = save_file
sys.exit(main())
"""


@pytest.mark.slow  # two processes, most of it imports
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_killed_while_it_writes_leaves_the_checkpoint_before(rank: int, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus")
    recipe, run, witness = vocoder(corpus, 20, checkpoint_every=5), tmp_path / "run", tmp_path / "witness"
    killed = {"KILLED_AT": "step_00000010", "KILLED_RANK": str(rank), "WITNESS": str(witness)}
    with two(recipe, run, ("-c", SHARING), **killed) as processes:
        done = ended(processes)
    assert f"discriminator.{rank}.safetensors" in witness.read_text()
    assert done[rank][0] == -signal.SIGKILL
    assert done[1 - rank][0] == 1
    assert "Traceback" not in done[1 - rank][1]
    (before,) = checkpoints(run / "checkpoints")
    assert before.name == "step_00000005"
    assert torn(before) is None
    assert all(list(before.glob(f"*.{number}.safetensors")) for number in range(2))
    fewer = tmp_path / "fewer"
    shutil.copytree(run, fewer)
    one = train(vocoder(corpus, 20), tmp_path / "one")
    # Both go on from the shares: as many processes, here writing one file, and one alone.
    train_by_two(recipe, run)
    assert not list((run / "checkpoints").glob(".step_*"))
    train(vocoder(corpus, 20), fewer)
    for each in (run, fewer):
        assert_close(each, one, 1e-5, ("generator", "discriminator", "generator_average"))
    left_alone = tmp_path / "left_alone"
    with two(recipe, left_alone, ("-c", SHARING)) as processes:
        assert [code for code, _ in ended(processes)] == [0, 0]
    train(vocoder(corpus, 21), left_alone)  # whose last checkpoint is then one of whole files
    train(vocoder(corpus, 21), run)
    assert_same_run(left_alone, run)
