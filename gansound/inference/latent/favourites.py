"""Sounds that are worth keeping: a latent and its label, named by seed, by file, or by the sound file itself."""

import base64
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansound.audio import AUDIO_SUFFIXES, read_tags
from gansound.counts import counted
from gansound.inference.clip_folder import LIST, entries, latent_hash
from gansound.inference.clips import NO_LABELS, ClipGenerator
from gansound.inference.latent.directions import read_tensors, write_tensors

log = logging.getLogger(__name__)

_BY_SEED = re.compile(r"(?P<seed>\d+):(?P<index>\d+)(?::(?P<label>.+))?")
_FORMAT = "gansound latents 1"


@dataclass(frozen=True)
class Favourite:
    """A sound before it is computed.

    Attributes:
        name: what files made from it may be called after.
        latent: `(latent_dim,)`.
        mixture: of the labels, `(classes,)`, one 1 and zeros for a plain label; None without labels.
    """

    name: str
    latent: Tensor
    mixture: Tensor | None = None


def find(spec: str, clips: ClipGenerator) -> list[Favourite]:
    """The sounds that a user names.

    Args:
        spec: `SEED:INDEX` or `SEED:INDEX:LABEL`, seed and index 0 or more; a file of latents, all of it or `FILE#ROW`;
            or a sound file that gansound generated, with the `generated.json` beside it where the latent is long.
        clips: the model.

    Raises:
        ValueError: no such sound, a file without one, or of a model with another latent.
    """
    if by_seed := _BY_SEED.fullmatch(spec):
        seed, index = int(by_seed["seed"]), int(by_seed["index"])
        latent = clips.latents(1, seed, first=index)[0]
        label = clips.turns(by_seed["label"], 1, first=index)
        name = "_".join(filter(None, [by_seed["label"], f"seed{seed}", f"{index:04d}"]))
        return [Favourite(name, latent, mixtures(clips, label, 1)[0] if label is not None else None)]
    file, hash_sign, row = spec, "", ""
    if not Path(spec).exists():
        file, hash_sign, row = spec.rpartition("#")
    path = Path(file)
    if Path(spec).is_dir() and spec:
        raise ValueError(f"{spec}: is a folder. Give the sounds in it, such as {Path(spec) / '*.wav'}")
    if not file or not path.is_file():
        raise ValueError(
            f"{spec}: no such file, and not SEED:INDEX or SEED:INDEX:LABEL. Give a sound that gansound generated, or "
            "a file of latents (one of its rows: FILE#0)"
        )
    found = [_from_sound(path, clips)] if path.suffix.lower() in AUDIO_SUFFIXES else load(path, clips)
    if hash_sign:
        if not row.isdecimal() or int(row) >= len(found):
            raise ValueError(f"{spec}: {path.name} has rows 0 to {len(found) - 1}, got {row!r}")
        found = [found[int(row)]]
    return found


def save(path: str | os.PathLike[str], favourites: Sequence[Favourite], clips: ClipGenerator) -> Path:
    """Write latents and labels as one safetensors file, beside and then renamed.

    Raises:
        ValueError: none to write.
        OSError: a full disk, no permission.
    """
    if not favourites:
        raise ValueError("expected at least one latent to write, got none")
    tensors = {"latents": torch.stack([one.latent for one in favourites]).float()}
    if clips.labels:
        rows = [one.mixture for one in favourites]
        tensors["mixtures"] = torch.stack([row for row in rows if row is not None]).float()
    about = {
        "format": _FORMAT,
        "names": json.dumps([one.name for one in favourites]),
        "labels": json.dumps(clips.labels),
        "model": clips.name,
        "weights": clips.weights_hash,
    }
    return write_tensors(Path(path), tensors, about)


def load(path: str | os.PathLike[str], clips: ClipGenerator) -> list[Favourite]:
    """Read what `save` wrote.

    Raises:
        ValueError: not such a file, or of a model with another latent or other labels.
    """
    path = Path(path)
    tensors, about = read_tensors(path)
    latents = tensors.get("latents")
    if about.get("format") != _FORMAT or latents is None or latents.dim() != 2:
        raise ValueError(
            f"{path}: holds no latents. Give a file that gansound wrote, or a sound that it generated"
        )
    names, labels = json.loads(about["names"]), tuple(json.loads(about["labels"]))
    rows = tensors.get("mixtures")
    if len(names) != len(latents) or (rows is not None and rows.shape != (len(latents), len(labels))):
        raise ValueError(
            f"{path}: damaged: {counted(len(names), 'name')} for latents of shape {tuple(latents.shape)}"
        )
    _check_weights(path, about.get("weights", ""), clips)
    return [
        _checked(
            path,
            clips,
            Favourite(
                name, latents[i].float(), None if rows is None else _in_order(path, rows[i], labels, clips)
            ),
        )
        for i, name in enumerate(names)
    ]


def origin(
    clips: ClipGenerator,
    *,
    label: str | Mapping[str, float] | None = None,
    seed: int | None = None,
    index: int | None = None,
    truncation: float = 1.0,
    latent: Tensor | None = None,
) -> dict[str, Any]:
    """What a sound file carries so that `find` knows its latent: its seed and index, or the latent itself.

    Args:
        clips: the model.
        label: its name, or shares of several.
        seed: that it was drawn from, where nothing was done to the latent but truncation.
        index: in the seed.
        truncation: of the draw.
        latent: where it isn't a plain draw.
    """
    from gansound import __version__

    told: dict[str, Any] = {"gansound": __version__, "model": clips.name, "weights": clips.weights_hash}
    if "steps" in clips.info:
        told["steps"] = clips.info["steps"]
    if label is not None:
        told["label"] = label if isinstance(label, str) else dict(label)
    if latent is None:
        return told | {"seed": seed, "index": index, "truncation": truncation}
    data = base64.b64encode(latent.detach().cpu().numpy().astype("<f4").tobytes()).decode()
    return told | ({"seed": seed, "index": index} if seed is not None else {}) | {"latent": data}


def mixtures(clips: ClipGenerator, labels: Tensor | None, n: int) -> Tensor:
    """Numbers `(n,)` or mixtures as mixtures `(n, classes)`."""
    numbered = clips.numbered(labels, n)
    if numbered is None:
        raise ValueError(NO_LABELS)
    if numbered.is_floating_point():
        return numbered
    return torch.nn.functional.one_hot(numbered, len(clips.labels)).float()


def named(clips: ClipGenerator, mixture: Tensor | None) -> str | dict[str, float] | None:
    """A mixture in words: the label where it is one alone, else the share of each."""
    if mixture is None:
        return None
    shares = {label: float(share) for label, share in zip(clips.labels, mixture, strict=True) if share}
    return next(iter(shares)) if list(shares.values()) == [1.0] else shares


def _from_sound(path: Path, clips: ClipGenerator) -> Favourite:
    what_to_do = (
        "Give a sound that gansound generated; any other is brought to a latent by: gansound latent invert"
    )
    try:
        told = json.loads(read_tags(path).get("comment", ""))
        if "latent_hash" in told:
            told |= _listed(path, told["latent_hash"])
        _check_weights(path, told["weights"], clips)
        if "latent" in told:
            values = np.frombuffer(base64.b64decode(told["latent"], validate=True), "<f4")
            latent = torch.from_numpy(values.astype(np.float32))
        else:
            latent = clips.latents(
                1, int(told["seed"]), first=int(told["index"]), truncation=float(told["truncation"])
            )[0]
        label = told.get("label")
        shares = {label: 1.0} if isinstance(label, str) else dict(label or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ValueError) and (str(path) in str(error) or LIST in str(error)):
            raise
        raise ValueError(f"{path}: doesn't say which latent it was made from. {what_to_do}") from None
    row = torch.tensor([float(share) for share in shares.values()])
    mixture = _in_order(path, row, tuple(shares), clips) if shares else None
    return _checked(path, clips, Favourite(path.stem, latent, mixture))


def _listed(path: Path, expected: str) -> dict[str, str]:
    """The latent that was too long for a sound file's tag, from the list beside it."""
    latents = (entry["latent"] for entry in entries(path.parent) if "latent" in entry)
    found = next((latent for latent in latents if latent_hash(latent) == expected), None)
    if found is None:
        raise ValueError(
            f"{path}: its latent is too long for the file itself, and no {LIST} beside it has it. Put the file where "
            "it was written"
        )
    return {"latent": found}


def _in_order(path: Path, row: Tensor, labels: tuple[str, ...], clips: ClipGenerator) -> Tensor:
    if missing := set(labels) - set(clips.labels):
        raise ValueError(
            f"{path}: its label {min(missing)!r} isn't one of the model's: {', '.join(clips.labels)}"
        )
    mixture = torch.zeros(len(clips.labels))
    for label, share in zip(labels, row, strict=True):
        mixture[clips.labels.index(label)] = share
    return mixture


def _checked(path: Path, clips: ClipGenerator, favourite: Favourite) -> Favourite:
    if favourite.latent.shape != (clips.latent_dim,) or not bool(torch.isfinite(favourite.latent).all()):
        raise ValueError(
            f"{path}: expected a latent of {clips.latent_dim} finite values, got {tuple(favourite.latent.shape)}. "
            "Was it made by another model?"
        )
    if (favourite.mixture is None) != (not clips.labels):
        has = "no label" if favourite.mixture is None else "a label"
        raise ValueError(f"{path}: has {has}, unlike the model. Was it made by another model?")
    return favourite


def _check_weights(path: Path, weights: str, clips: ClipGenerator) -> None:
    if weights != clips.weights_hash:
        log.warning(
            "%s: was made with other weights (%s) than the model's (%s), which make another sound of its latent",
            path, weights, clips.weights_hash,
        )  # fmt: skip
