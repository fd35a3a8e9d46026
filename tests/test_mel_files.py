"""Mels from files that anyone may have made: no more memory than the file holds, and one line for each that is none."""

import io
import os
import re
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from gansound import cli
from gansound.mel import MelSpec, presets
from gansound.mel.files import read_mel
from tests.tiny import save_tiny_model

MEL = np.random.default_rng(0).standard_normal((80, 7)).astype(np.float32)


def test_each_kind_gives_what_was_saved(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", MEL)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(MEL))
    np.save(tmp_path / "wide.NPY.npy", MEL.astype(np.float64))
    with (tmp_path / "v2.npy").open("wb") as file:
        np.lib.format.write_array(file, MEL, version=(2, 0))
    torch.save(torch.from_numpy(MEL), tmp_path / "a.pt")
    torch.save({"mel": torch.from_numpy(MEL)}, tmp_path / "dict.pt")
    torch.save(torch.from_numpy(MEL.T.copy()).T, tmp_path / "turned.pt")  # no copy: a view in other strides
    torch.save(torch.from_numpy(MEL), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file({"mel": torch.from_numpy(MEL)}, tmp_path / "a.safetensors")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(np.asarray(read_mel(path)), MEL, err_msg=path.name)


def npy_header(path: Path, shape: tuple[int, ...], data: bytes = b"") -> None:
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.write(data)


def cut(path: Path) -> None:
    npy_header(path, (80, 7), MEL.tobytes()[:-1])


def huge(path: Path) -> None:
    npy_header(path, (80, 2**36), b"\0" * 1000)


def beyond_all_counting(path: Path) -> None:
    npy_header(path, (80, 2**70), b"\0" * 1000)


def negative(path: Path) -> None:
    npy_header(path, (80, -7), MEL.tobytes())


def expanded(path: Path) -> None:
    torch.save(torch.zeros(80, 1).expand(80, 20_000_000), path)


def one_number(path: Path) -> None:
    torch.save(torch.zeros(1).expand(80, 20_000_000), path)


def overlapping(path: Path) -> None:
    torch.save(torch.as_strided(torch.zeros(20_000), (10_000, 10_000), (1, 1)), path)


def bomb(path: Path) -> None:
    stored = io.BytesIO()
    torch.save(torch.zeros(80, 100_000), stored)
    with zipfile.ZipFile(stored) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))


def sparse(path: Path) -> None:
    torch.save(torch.sparse_coo_tensor(torch.zeros(2, 1), torch.ones(1), (80, 10_000_000)), path)


def on_no_device(path: Path) -> None:
    torch.save(torch.zeros(80, 10_000_000, device="meta"), path)


def claiming(path: Path) -> None:
    data = safetensors.torch.save({"mel": torch.from_numpy(MEL)})
    path.write_bytes(data.replace(b"[80,7]", b"[80,9]"))


def beyond_the_end(path: Path) -> None:
    header = b'{"mel":{"dtype":"F32","shape":[80,1000000],"data_offsets":[0,320000000]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 1000)


def pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 25000\n")


def two(path: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(3), "b": torch.zeros(3)}, path)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize(
    "make, suffix, words",
    [
        (cut, ".npy", "2,240 bytes, but 2,239 bytes follow it"),
        (huge, ".npy", "but 1,000 bytes follow it"),
        (beyond_all_counting, ".npy", "but 1,000 bytes follow it"),
        (negative, ".npy", "shape (80, -7)"),
        (expanded, ".pt", "repeats its values"),
        (one_number, ".pt", "6,400,000,000 bytes, in a file of"),
        (overlapping, ".pt", "repeats its values"),
        (bomb, ".pt", "would unpack to"),
        (sparse, ".pt", "expected a plain one"),
        (on_no_device, ".pt", "expected a plain one"),
        (claiming, ".safetensors", ""),
        (beyond_the_end, ".safetensors", ""),
        (pointer, ".npy", "git lfs pull"),
        (pointer, ".pt", "git lfs pull"),
        (pointer, ".safetensors", "git lfs pull"),
        (two, ".safetensors", "expected one array, got 2: a, b"),
    ],
)
def test_what_claims_more_than_it_holds_is_refused(
    tmp_path: Path, make: Callable[[Path], None], suffix: str, words: str
) -> None:
    path = tmp_path / f"x{suffix}"
    make(path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="can't be read as a mel") as caught:
        read_mel(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)
    assert ("Save one array" in str(caught.value)) == (
        make is not pointer
    )  # there is nothing wrong with the array
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 40_000  # KiB


@pytest.mark.parametrize(
    "array, words",
    [
        ((MEL * 100).astype(np.int16), "got whole numbers (int16), expected real ones"),
        (MEL.astype(np.uint8), "got whole numbers (uint8)"),
        (MEL > 0, "got values of bool, expected numbers"),
        (MEL.astype(np.complex64), "got values of complex64"),
        (np.array(3.0), "got shape (), expected"),
        (
            np.zeros(22050, np.int16),
            "got shape (22050,), expected (B, 80, F) or (80, F); of samples make the mel",
        ),
        (MEL[None, None], "got shape (1, 1, 80, 7)"),
        (MEL[:, :0], "holds no frames"),
        (np.zeros((513, 7)), "a spectrum of n_fft 1024"),
        (np.where(MEL > 2, np.nan, MEL), "are NaN or infinite"),
        (MEL.astype(np.float64) * 1e300, "are NaN or infinite, as float32"),
        (MEL * 100, "such as no sound has in this convention"),
        (np.full_like(MEL, -5e4), "such as no sound has"),
    ],
    ids=lambda value: f"{value.dtype}{list(value.shape)}" if isinstance(value, np.ndarray) else "",
)
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors"])
def test_arrays_that_are_no_mel_are_refused_before_any_sound(
    tmp_path: Path, capsys: pytest.CaptureFixture, array: np.ndarray, words: str, suffix: str
) -> None:
    path = tmp_path / f"x{suffix}"
    tensor = torch.from_numpy(array)
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez(path, array)
    elif suffix == ".pt":
        torch.save(tensor, path)
    else:
        safetensors.torch.save_file({"mel": tensor.contiguous()}, path)
    model = save_tiny_model(tmp_path / "model")
    there = path.read_bytes()
    assert cli.main(["vocode", str(path), "-o", str(tmp_path / "a.wav"), "--model", str(model)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}: mel: ")
    assert words in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "a.wav").exists()
    assert path.read_bytes() == there
    if suffix == ".npy":
        assert cli.main(
            ["stream", "-i", str(path), "-o", str(tmp_path / "a.wav"), "--model", str(model)]
        ) in (0, 1)
        assert "refusing to write" not in capsys.readouterr().err


def test_no_sound_is_beyond_sound() -> None:
    """A square wave as 16 bits that nobody divided, the loudest that a mistake makes, isn't refused but warned of."""
    for name in presets():
        spec = MelSpec.preset(name)
        square = torch.sign(torch.sin(torch.arange(20_000) * 0.05)) * 32768
        assert not spec.beyond_sound(spec.mel(square[None])).any(), name
        assert spec.beyond_sound(
            spec.mel(square[None]) * 0 + spec.from_magnitude(torch.tensor(1e12))
        ).any() == (spec.clip is None)


def test_the_commands_take_no_more_either(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = save_tiny_model(tmp_path / "model")
    one_number(tmp_path / "x.pt")
    huge(tmp_path / "x.npy")
    with_model = ["--model", str(model), "--backend", "eager"]
    assert cli.main(["vocode", str(tmp_path / "x.pt"), "-o", str(tmp_path / "a.wav"), *with_model]) == 1
    assert (
        cli.main(["stream", "-i", str(tmp_path / "x.npy"), "-o", str(tmp_path / "a.wav"), *with_model]) == 1
    )
    err = capsys.readouterr().err
    assert err.count("can't be read as a mel") == 2
    assert not (tmp_path / "a.wav").exists()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", MEL)
    (tmp_path / "a.npy").chmod(0)
    with pytest.raises(PermissionError):
        read_mel(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", [".npz", ".pt", ".safetensors"])
def test_of_several_arrays_it_says_how_to_take_one_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """And what it says, done, is a mel that it takes."""
    monkeypatch.chdir(tmp_path)
    arrays = {"f0": torch.zeros(9), "log_mel {x}": torch.full((80, 9), -3.0)}
    path = Path(f"said{{}}{suffix}")
    if suffix == ".npz":
        np.savez(path, **{name: array.numpy() for name, array in arrays.items()})
    elif suffix == ".pt":
        torch.save(arrays, path)
    else:
        safetensors.torch.save_file(arrays, path)
    with pytest.raises(ValueError, match=r"expected one array, got 2: f0, log_mel \{x\}") as caught:
        read_mel(path)
    found = re.search(r"Take out the mel: (.*)\. Save", str(caught.value))
    assert found is not None
    exec(found[1], {"numpy": np, "torch": torch, "safetensors": safetensors})
    made = read_mel("mel.npy" if suffix == ".npz" else "mel.pt")
    np.testing.assert_array_equal(made, arrays["log_mel {x}"])
