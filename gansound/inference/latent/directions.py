"""Directions in which a generator's sounds change: sliders found without labels, or made from examples.

One unit of a slider moves a latent by one standard deviation of the prior along its direction.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gansound.counts import counted
from gansound.draw import Draws
from gansound.inference.clips import ClipGenerator

FILE_NAME = "directions.safetensors"
_SCALE_DRAWS = 4096
_ACTIVATION_DRAWS = 1024


@dataclass(frozen=True)
class Directions:
    """Sliders of a model.

    Attributes:
        vectors: `(k, latent_dim)`, what one unit of each adds to a latent.
        names: of each; a number where nobody has named it.
        strengths: of each, as its method measures it; the strongest first.
        method: what found them, in words.
        weights_hash: of the model they belong to.
    """

    vectors: Tensor
    names: tuple[str, ...]
    strengths: tuple[float, ...]
    method: str
    weights_hash: str

    def moved(self, latents: Tensor, sliders: Mapping[int | str, float]) -> Tensor:
        """Latents `(n, latent_dim)` with sliders, by number or name, at these values.

        Raises:
            ValueError: no such slider; it says which there are.
        """
        moved = latents
        for name, value in sliders.items():
            moved = moved + value * self.vectors[self.number(name)]
        return moved

    def number(self, name: int | str) -> int:
        """The number of a slider. Raises ValueError when there is none of that number or name."""
        if isinstance(name, str) and name in self.names:
            return self.names.index(name)
        if str(name).isdecimal() and int(name) < len(self.names):
            return int(name)
        named = [one for number, one in enumerate(self.names) if one != str(number)]
        raise ValueError(
            f"slider {name!r}: there are 0 to {len(self.names) - 1}"
            + (f" ({', '.join(named)})" if named else "")
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write them as one safetensors file, beside and then renamed.

        Raises:
            OSError: a full disk, no permission.
        """
        about = {
            "format": "gansound directions 1",
            "names": json.dumps(self.names),
            "strengths": json.dumps(self.strengths),
            "method": self.method,
            "weights": self.weights_hash,
        }
        return write_tensors(Path(path), {"directions": self.vectors}, about)

    @classmethod
    def load(cls, path: str | os.PathLike[str], clips: ClipGenerator) -> "Directions":
        """Read them for a model.

        Raises:
            ValueError: not such a file, or found for another model.
        """
        path = Path(path)
        tensors, about = read_tensors(path)
        vectors = tensors.get("directions")
        if about.get("format") != "gansound directions 1" or vectors is None or vectors.dim() != 2:
            raise ValueError(f"{path}: holds no directions. Find some with: gansound latent directions")
        names, strengths = json.loads(about["names"]), json.loads(about["strengths"])
        if about.get("weights") != clips.weights_hash:
            raise ValueError(
                f"{path}: these directions were found for other weights ({about.get('weights')}) than the model's "
                f"({clips.weights_hash}). Find them anew with: gansound latent directions"
            )
        if vectors.shape != (len(names), clips.latent_dim) or len(strengths) != len(names):
            raise ValueError(
                f"{path}: expected {counted(len(names), 'direction')} of {clips.latent_dim} values, got "
                f"{tuple(vectors.shape)}"
            )
        return cls(
            vectors.float(), tuple(names), tuple(strengths), about.get("method", ""), clips.weights_hash
        )


def sefa(clips: ClipGenerator, count: int = 8) -> Directions:
    """The directions that change the first layer's output most, in closed form.

    The eigenvectors of AᵀA with the largest eigenvalues, A being the weight by which the latent enters. Shen and Zhou,
    "Closed-Form Factorization of Latent Semantics in GANs" (SeFa), arXiv 2007.06600, eq. 4.

    Args:
        clips: the model.
        count: how many.

    Raises:
        ValueError: more than the latent has values, or a first layer that isn't affine in the latent.
    """
    _check_count(clips, count)
    dim = clips.latent_dim
    probes = torch.cat([torch.zeros(1, dim), torch.eye(dim), clips.latents(1)])
    first = _layers(clips)[0]
    out = _seen(clips, probes, first, _output).double()
    weight = out[1:-1] - out[0]  # a row for each value of the latent: its column of A
    error = (out[0] + probes[-1].double() @ weight - out[-1]).norm() / (out[-1] - out[0]).norm()
    if not float(error) < 1e-3:
        raise ValueError(
            "the first layer isn't affine in the latent (something is normalised before), so its weights say nothing "
            "of directions. Take pca"
        )
    strengths, vectors = torch.linalg.eigh(weight @ weight.T)
    order = strengths.argsort(descending=True)[:count]
    return _made(
        clips, vectors.T[order], strengths[order].tolist(), "SeFa: eigenvalues of the first layer's weight"
    )


def pca(clips: ClipGenerator, count: int = 8, *, layer: int = 1, seed: int = 0) -> Directions:
    """Directions along which a hidden layer's activations vary most among random sounds.

    Principal components of what goes into a layer, and for each the latent direction that predicts it best, by least
    squares. Härkönen et al., "GANSpace", arXiv 2004.02546, section 3. What differs between labels alone is left out.

    Args:
        clips: the model.
        count: how many.
        layer: whose input is looked at, counted from 0, the one that the latent enters first.
        seed: of the random sounds.

    Raises:
        ValueError: more than the latent has values, or no such layer.
    """
    _check_count(clips, count)
    layers = _layers(clips)
    if not 0 <= layer < len(layers):
        raise ValueError(f"layer must be 0 to {len(layers) - 1}, got {layer}")
    n = max(_ACTIVATION_DRAWS, 4 * clips.latent_dim)
    latents = Draws(seed, range(n)).each("directions", clips.generator.prior.sample)
    labels = clips.turns(None, n)
    seen = torch.cat(
        [
            _seen(
                clips,
                latents[i : i + 64],
                layers[layer],
                _input,
                None if labels is None else labels[i : i + 64],
            )
            for i in range(0, n, 64)
        ]
    )
    for tensor in (seen, latents):
        for group in [slice(None)] if labels is None else [labels == i for i in range(len(clips.labels))]:
            tensor[group] -= tensor[group].mean(0)
    # Of n activations with far more values each, the n × n products hold all there is to know.
    variances, scores = torch.linalg.eigh((seen @ seen.T).double())
    order = variances.argsort(descending=True)[:count]
    vectors = scores.T[order] @ latents.double()  # least squares: the scores are orthonormal
    shares = variances[order] / variances.clamp_min(0).sum()
    return _made(
        clips, vectors, shares.tolist(), f"PCA of activations: shares of the variance before layer {layer}"
    )


def from_vector(clips: ClipGenerator, vector: Tensor, name: str, method: str) -> Directions:
    """One direction with a name, such as an `attribute`; one unit of the slider adds the vector itself.

    Raises:
        ValueError: a vector of another length than the latent, or of length 0.
    """
    if vector.shape != (clips.latent_dim,) or float(vector.norm()) == 0:
        raise ValueError(
            f"expected a vector of {clips.latent_dim} values, not all 0, got shape {tuple(vector.shape)}; the two "
            "sides of an attribute must differ"
        )
    strength = float(vector.norm())
    return Directions(vector[None].float(), (name,), (strength,), method, clips.weights_hash)


def replaced(directions: Directions, other: Directions) -> Directions:
    """The directions with another slider, the only one of `other`, in place of that of its name; numbers stay."""
    name = other.names[0]
    place = directions.number(name)
    vectors, strengths = directions.vectors.clone(), list(directions.strengths)
    vectors[place], strengths[place] = other.vectors[0], other.strengths[0]
    kept = [method for method in directions.method.split("; ") if not method.startswith(f"{name}: ")]
    return replace(
        directions, vectors=vectors, strengths=tuple(strengths), method="; ".join([*kept, other.method])
    )


def named(directions: Directions) -> Directions | None:
    """Those with a name of their own, which somebody made; None where all are numbers."""
    kept = [i for i, name in enumerate(directions.names) if not name.isdecimal()]
    if not kept:
        return None
    names = tuple(directions.names[i] for i in kept)
    methods = directions.method.split("; ")
    return replace(
        directions,
        vectors=directions.vectors[kept],
        names=names,
        strengths=tuple(directions.strengths[i] for i in kept),
        method="; ".join(one for name in names for one in methods if one.startswith(f"{name}: ")),
    )


def joined(*directions: Directions) -> Directions:
    """All of them in one. Raises ValueError for directions of different models."""
    if len({one.weights_hash for one in directions}) != 1:
        raise ValueError("expected directions of one model")
    methods = dict.fromkeys(one.method for one in directions)
    names = [name for one in directions for name in one.names]
    return Directions(
        torch.cat([one.vectors for one in directions]),
        tuple(str(i) if name.isdecimal() else name for i, name in enumerate(names)),
        tuple(strength for one in directions for strength in one.strengths),
        "; ".join(methods),
        directions[0].weights_hash,
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> Path:
    """A safetensors file, written beside and then renamed. Raises OSError."""
    data = safetensors.torch.save({k: v.contiguous() for k, v in tensors.items()}, metadata=dict(about))
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        beside.unlink(missing_ok=True)
    return path


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises ValueError when it can't be read."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"{path}: can't be read as safetensors: {error}") from None


def _check_count(clips: ClipGenerator, count: int) -> None:
    if not 1 <= count <= clips.latent_dim:
        raise ValueError(f"expected 1 to {clips.latent_dim} directions, got {count}")


def _made(clips: ClipGenerator, vectors: Tensor, strengths: list[float], method: str) -> Directions:
    units = vectors / vectors.norm(dim=1, keepdim=True)
    # Either sign is as good: a slider's is fixed, so that finding it again gives the same.
    largest = units.abs().argmax(1, keepdim=True)
    units = units * units.gather(1, largest).sign()
    drawn = Draws(0, range(_SCALE_DRAWS)).each("scale", clips.generator.prior.sample).double()
    deviations = (drawn @ units.T).std(0)
    names = tuple(map(str, range(len(units))))
    return Directions(
        (units * deviations[:, None]).float(), names, tuple(strengths), method, clips.weights_hash
    )


class _SeenEnough(Exception):
    """Ends a forward pass early."""


def _input(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> Tensor:
    return inputs[0]


def _output(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output


def _seen(
    clips: ClipGenerator,
    latents: Tensor,
    layer: nn.Module,
    take: Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor],
    labels: Tensor | None = None,
) -> Tensor:
    """What goes through a layer, `(n, values)`, for these latents under one label or under each its own."""
    kept: list[Tensor] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        kept.append(take(module, inputs, output).float().reshape(len(latents), -1).cpu())
        raise _SeenEnough

    with _hooked([layer], hook), torch.no_grad():
        try:
            clips.waveforms(latents, _labels(clips, len(latents)) if labels is None else labels)
        except _SeenEnough:
            pass
    return kept[0]


def _layers(clips: ClipGenerator) -> list[nn.Module]:
    """The layers with weights that a latent goes through, in order."""
    found: dict[nn.Module, None] = {}

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        given = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
        two = given is not None and given.is_floating_point() and len(given) == 2
        if given is not None and two and not torch.equal(given[0], given[1]):
            found[module] = None

    weighted = [
        layer
        for layer in clips.generator.modules()
        if not any(True for _ in layer.children())
        and (any(True for _ in layer.parameters()) or layer._buffers)
    ]
    with _hooked(weighted, hook), torch.no_grad():
        clips.waveforms(clips.latents(2), _labels(clips, 2))
    if not found:
        raise ValueError("no layer of this model takes the latent, so it has no directions")
    return list(found)


@contextmanager
def _hooked(layers: list[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _labels(clips: ClipGenerator, n: int) -> Tensor | None:
    return torch.zeros(n, dtype=torch.int64) if clips.labels else None
