"""Two machines on this one: a run of two processes in two network namespaces, and what becomes of it when things fail.

    sudo python -m tests.reference.two_machines DIR

makes two namespaces joined by a virtual cable, starts torchrun in both, each with one process, and

1. kills one process (SIGKILL), once each: torchrun starts both again, and the run ends bit-equal to one left alone;
2. stops one process (SIGSTOP): how long until the other names it;
3. unplugs the cable: how long until one names the other.

Needs root and `ip` (iproute2); tiny nets, minutes. Nothing of it stays.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gansound.recipe import to_yaml
from tests.corpus import write_corpus
from tests.test_distributed import vocoder
from tests.test_engine import assert_same_run

ROOT = Path(__file__).parents[2]
NODES = ("gansound-a", "gansound-b")
HEAD = "10.213.7.1"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextmanager
def cable() -> Iterator[None]:
    try:
        for node in NODES:
            ip("netns", "add", node)
            ip("-n", node, "link", "set", "lo", "up")
        ip(
            "link",
            "add",
            "gs-a",
            "netns",
            NODES[0],
            "type",
            "veth",
            "peer",
            "name",
            "gs-b",
            "netns",
            NODES[1],
        )
        for number, (node, end) in enumerate(zip(NODES, ("gs-a", "gs-b"), strict=True), start=1):
            ip("-n", node, "addr", "add", f"10.213.7.{number}/24", "dev", end)
            ip("-n", node, "link", "set", end, "up")
        yield
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "del", node], stderr=subprocess.DEVNULL)


@contextmanager
def nodes(recipe: Path, run: Path, port: int) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """torchrun on both, what they say in RUN.0.log and RUN.1.log; killed in the end."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1", "--max-restarts", "5",
        "--rdzv_id", run.name, "--rdzv_backend", "c10d", "--rdzv_endpoint", f"{HEAD}:{port}",
        "-m", "gansound", "train", str(recipe), "-o", str(run),
    ]  # fmt: skip
    started = []
    try:
        for number, (node, end) in enumerate(zip(NODES, ("gs-a", "gs-b"), strict=True)):
            environment = os.environ | {
                "GLOO_SOCKET_IFNAME": end,
                "CUDA_VISIBLE_DEVICES": "",
                "OMP_NUM_THREADS": "1",
            }
            # No name leads to these addresses, so torchrun can't tell which of them is its own.
            host = [
                "--local_addr",
                f"10.213.7.{number + 1}",
                "--rdzv_conf",
                f"timeout=300,is_host={1 - number}",
            ]
            with run.with_name(f"{run.name}.{number}.log").open("wb") as said:
                started.append(
                    subprocess.Popen(
                        ["ip", "netns", "exec", node, *command[:3], *host, *command[3:]],
                        cwd=ROOT, env=environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
                    )
                )  # fmt: skip
        yield started
    finally:
        for process in started:
            for child in trainers(process):
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()


def trainers(launcher: "subprocess.Popen[bytes]") -> list[int]:
    """Pids of the processes of `gansound train` that a torchrun has started."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(launcher.pid)], capture_output=True, text=True
    )
    return [int(line.split()[0]) for line in found.stdout.splitlines() if " -m gansound train " in line]


def steps(run: Path) -> int:
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def until(fact: object, seconds: float = 600) -> float:
    begun = time.monotonic()
    while not fact():  # type: ignore[operator]
        if time.monotonic() - begun > seconds:
            raise TimeoutError(f"not in {seconds:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where the runs go")
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    corpus = write_corpus(args.folder / "corpus")
    recipe, endless = args.folder / "recipe.yaml", args.folder / "endless.yaml"
    recipe.write_text(to_yaml(vocoder(corpus, args.steps, checkpoint_every=5)))
    endless.write_text(to_yaml(vocoder(corpus, 1_000_000, checkpoint_every=50)))
    with cable():
        with nodes(recipe, args.folder / "whole", 29601) as launchers:
            until(lambda: all(launcher.poll() is not None for launcher in launchers))
            assert [launcher.returncode for launcher in launchers] == [0, 0]
        killed = args.folder / "killed"
        with nodes(recipe, killed, 29602) as launchers:
            for kill, launcher in enumerate(launchers, start=1):
                until(lambda at=kill * args.steps // 3: steps(killed) >= at)
                (pid,) = trainers(launcher)
                os.kill(pid, signal.SIGKILL)
                print(f"killed process {kill - 1} at step {steps(killed)}", flush=True)
                until(lambda gone=pid, by=launcher: gone not in trainers(by) and trainers(by))
            until(lambda: all(launcher.poll() is not None for launcher in launchers))
            assert [launcher.returncode for launcher in launchers] == [0, 0]
        assert_same_run(args.folder / "whole", killed)
        print(f"both runs end bit-equal at step {args.steps}", flush=True)
        for what, port in (("stopped", 29603), ("unplugged", 29604)):
            run = args.folder / what
            logs = [run.with_name(f"{run.name}.{number}.log") for number in range(2)]
            with nodes(endless, run, port) as launchers:
                until(lambda its=run: steps(its) > 3)
                if what == "stopped":
                    os.kill(trainers(launchers[1])[0], signal.SIGSTOP)
                else:
                    ip("-n", NODES[1], "link", "set", "gs-b", "down")
                took = until(lambda its=logs: any(b"all wait for" in log.read_bytes() for log in its))
                said = [
                    line for log in logs for line in log.read_text().splitlines() if "all wait for" in line
                ]
                print(f"{what}: named after {took:.0f} s: {said[0]}", flush=True)


if __name__ == "__main__":
    main()
