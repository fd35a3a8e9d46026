"""Fixtures every test may use."""

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.setdefault("TQDM_DISABLE", "1")
# Measuring backends takes seconds for each model, and what it finds is another thing each time.
os.environ.setdefault("GANSOUND_BACKEND", "eager")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="gansound-tests-")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test that draws without a seed of its own draws the same each time."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (the one that libraries draw from)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The project's shared folder of real audio and checkpoint specs; absent for a user."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip(f"needs {path}, which only the project's own checkouts have")
    return path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For steps too small to share, of which there may be hundreds at once."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
