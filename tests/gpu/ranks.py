"""One of some processes whose gradients are summed: `python -m tests.gpu.ranks BACKEND RANKS DEVICE FILE RANK`."""

import copy
import sys
from datetime import timedelta

import torch
from torch.nn.parallel import DistributedDataParallel

from gansound.generators.melgan import MelGANGenerator
from tests.gpu.checks import error_of, within

N_MELS = 10


def main(backend: str, ranks: int, device: torch.device, file: str, rank: int) -> None:
    """Print how far this process's gradients are from those of the whole batch."""
    torch.distributed.init_process_group(
        backend, init_method=f"file://{file}", rank=rank, world_size=ranks, timeout=timedelta(seconds=30)
    )
    torch.manual_seed(0)
    alone = MelGANGenerator(N_MELS, 16, (8, 3), (1, 3)).double().to(device)
    together = DistributedDataParallel(copy.deepcopy(alone), broadcast_buffers=False)
    mel = torch.randn(4, N_MELS, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(
        device
    )
    alone(mel).square().mean().backward()
    together(mel.chunk(ranks)[rank]).square().mean().backward()
    mine = torch.cat([p.grad.flatten() for p in together.parameters()])
    its = torch.cat([p.grad.flatten() for p in alone.parameters()])
    error = error_of(mine, its)
    within("summed gradients", error, 1e-9)
    torch.distributed.barrier()
    # Before the group that it holds. DDP would take that apart under the interpreter's lock, and wait for a thread of
    # gloo's that may wait for the lock: for ever, once in a hundred times where torch._dynamo came before the group.
    del together
    torch.distributed.destroy_process_group()
    print(error)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), torch.device(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
