"""Fixtures every test may use."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TQDM_DISABLE", "1")
# Measuring backends takes seconds for each model, and what it finds is another thing each time.
os.environ.setdefault("GANSOUND_BACKEND", "eager")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="gansound-tests-")


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
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
