"""A checkpoint that someone else's code wrote, read as tensors and nothing else.

Nothing in it runs: pickles are read with `weights_only=True`, and one that would need more is refused. Nothing in it
takes more memory than its file has bytes.
"""

import io
import json
import logging
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from gansound.extras import MissingPackage
from gansound.importers.nemo_file import read_nemo
from gansound.importers.onnx_file import read_onnx
from gansound.importers.unsupported import makes_more
from gansound.mel.files import lfs_pointer
from gansound.mel.statistics import read_statistics

log = logging.getLogger(__name__)

WEIGHTS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".tar", ".safetensors", ".onnx", ".nemo", "")
DESCRIPTIONS = (".json", ".yaml", ".yml")
STATISTICS = (".h5", ".npy")
# Where the projects of this field put the generator's weights, outermost first.
_INSIDE = ("model", "state_dict", "generator", "model_g", "net_g", "netG", "G", "gen", "generator_ema", "ema")
_PREFIXES = ("module.", "model.generator.", "model_g.", "net_g.", "generator.", "vocoder.")
# And where some put its configuration, in the same file; seungwonpark's MelGAN as the text of its YAML.
_DESCRIBED_BY = ("config", "hyper_parameters", "hp_str", "metadata")
# In the order in which RVC's `config` lists them: the arguments of its net, the last its rate.
_RVC = (
    "spec_channels", "segment_size", "inter_channels", "hidden_channels", "filter_channels", "n_heads", "n_layers",
    "kernel_size", "p_dropout", "resblock", "resblock_kernel_sizes", "resblock_dilation_sizes", "upsample_rates",
    "upsample_initial_channel", "upsample_kernel_sizes", "spk_embed_dim", "gin_channels", "sampling_rate",
)  # fmt: skip


class _Settings:
    """The fields of a pickled object of settings, whose own class is neither imported nor run."""


# What a pickle may name besides tensors and plain values: a training's paths, which are text, and the settings of
# GPT-SoVITS and XTTS.
_HARMLESS: list[Any] = [
    *((PurePosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")),
    *(
        (_Settings, name)
        for name in (
            "utils.HParams",
            "TTS.tts.configs.xtts_config.XttsConfig",
            *(
                f"TTS.tts.{at}.Xtts{what}"
                for at in ("models.xtts", "configs.xtts_config")
                for what in ("Args", "AudioConfig")
            ),
            "TTS.config.shared_configs.BaseDatasetConfig",
        )
    ),
]


class ImportFailed(ValueError):
    """A checkpoint can't be imported: "PATH: reason. What to do"."""


@dataclass(frozen=True)
class Checkpoint:
    """What the files of a checkpoint hold.

    Attributes:
        path: of the weights.
        weights: the generator's, by the names they have there, weight norm folded, in float32.
        config: of the description beside them; empty where there is none.
        statistics: mean and scale by band, natural for ParallelWaveGAN; None where there are none.
        judges: weights of discriminators by their name there, as they are.
        speaker: whose voice is wanted of several, by name or number; None where nobody said.
        voice: the file of an embedding to speak with; None where nobody gave one.
    """

    path: Path
    weights: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    judges: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    speaker: str | None = None
    voice: Path | None = None

    def setting(self, *names: str) -> Any:
        """A value of the config, by the names of nested keys.

        Raises:
            ImportFailed: there is no config, or no such key.
        """
        value: Any = self.config
        for depth, name in enumerate(names):
            if not isinstance(value, Mapping) or name not in value:
                missing = f"no {'.'.join(names[: depth + 1])} in its configuration"
                if not self.config:
                    missing = "no configuration in it or beside it (config.json, config.yml or config.yaml)"
                raise ImportFailed(
                    f"{self.path}: {missing}, which says what the weights are of. Give the project's own config file "
                    "too: gansound import CHECKPOINT CONFIG -o DIR"
                )
            value = value[name]
        return value

    def expect(self, said: Mapping[str, Any], expected: Mapping[str, Any], within: str = "") -> None:
        """Refuse settings of which only one value can be had here.

        Args:
            said: the settings, by name.
            expected: by name, the value that can be had.
            within: where they stand in the configuration, `preprocessor.` say; for the message.

        Raises:
            ImportFailed: another value.
        """
        for name, value in expected.items():
            if said[name] != value:
                raise ImportFailed(
                    f"{self.path}: {within}{name} is {said[name]!r}, expected {value!r}: nothing else can be had here"
                )


def read_checkpoint(paths: Sequence[Path], voice: Path | None = None) -> Checkpoint:
    """The weights among the files, with what describes them: given too, or lying beside.

    Args:
        paths: files, or one folder that holds them.
        voice: the file of an embedding, which may lie among them.

    Raises:
        ImportFailed: no weights, several, or a file that can't be read as what it is.
    """
    files = [file for path in paths for file in (_held(path) if path.is_dir() else [path])]
    files = [file for file in files if voice is None or file.resolve() != voice.resolve()]
    if missing := [file for file in files if not file.is_file()]:
        raise ImportFailed(f"{missing[0]}: no such file")
    known = DESCRIPTIONS + STATISTICS
    named = [path for path in paths if not path.is_dir()]
    heavy = [file for file in files if file.suffix not in known and _is_weights(file, named)]
    if len(heavy) == 2 and any(path.is_dir() for path in paths):
        heavy = [file for file in heavy if file.suffix == ".safetensors"] or heavy  # the same in two formats
    if not heavy:
        raise ImportFailed(
            f"{paths[0]}: no file of weights, expected one ending in {', '.join(WEIGHTS[:-1])}"
        )
    held = [(file, read_tensors(file)) for file in heavy]
    judges = {name: value for _, content in held for name, value in _judges(content).items()}
    generators = [
        (file, content) for file, content in held if not _judges(content) or _has_generator(content)
    ]
    if not generators:
        raise ImportFailed(
            f"{heavy[0]}: holds discriminators and optimizers ({', '.join(held[0][1])}), expected a generator. Give "
            "the generator's file too (HiFi-GAN's g_… beside do_…)"
        )
    if len(generators) > 1:
        names = ", ".join(file.name for file, _ in generators)
        raise ImportFailed(
            f"{paths[0]}: several files of weights ({names}), expected one generator. Name the one"
        )
    path, content = generators[0]
    described = [file for file in files if file.suffix in DESCRIPTIONS] or _beside(path, DESCRIPTIONS)
    described.sort(key=lambda file: file.stem not in _likely(path))  # beside a tokenizer's, in a folder
    counted = [file for file in files if file.suffix in STATISTICS] or _beside(path, STATISTICS)
    return Checkpoint(
        path,
        folded(path, _flat(path, content)),
        _inside(content) | (_description(described[0]) if described else {}),
        _statistics(counted[0]) if counted else None,
        judges,
        voice=voice,
    )


def read_tensors(path: Path) -> dict[str, Any]:
    """What a file of weights holds. Raises ImportFailed."""
    content = read_plain(path)
    if not isinstance(content, Mapping):
        raise ImportFailed(f"{path}: holds a {type(content).__name__}, expected a state dict")
    room = 8 * path.stat().st_size + 2**20  # of half precision, widened; nothing honest needs more
    if sum(tensor.numel() * 4 for tensor in _tensors(content)) > room:
        raise ImportFailed(f"{path}: its tensors claim more than {room:,} bytes, which the file doesn't hold")
    return dict(content)


def read_plain(path: Path) -> Any:
    """Tensors and plain values, as they lie in a file of whichever format. Raises ImportFailed."""
    try:
        _check_whole(path)
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        elif path.suffix == ".onnx":
            content = read_onnx(path)
        elif path.suffix == ".nemo":
            content = read_nemo(path)
        elif path.suffix == ".npy":
            content = torch.from_numpy(np.load(path, allow_pickle=False))
        else:
            with torch.serialization.safe_globals(_HARMLESS):
                content = torch.load(_zip(path), map_location="cpu", weights_only=True)
    except (ImportFailed, MissingPackage):
        raise
    except pickle.UnpicklingError as error:
        # torch's own text advises to load it anyway, and so to run whatever the file says.
        raise ImportFailed(
            f"{path}: holds more than tensors and plain values, or isn't a checkpoint at all, and isn't unpickled: a "
            "pickle can run any code. Save its state dict alone with torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # each format raises its own kinds
        told = str(error).strip()
        if "TorchScript" in told:
            told = "it is a TorchScript program, which isn't run. Give the checkpoint that it was made of"
        elif (
            isinstance(error, LookupError) or "weights_only" in told
        ):  # a byte that is no opcode; torch's bad advice
            told = ""
        reason = told.splitlines()[0] if told else "it is damaged, or is none"
        raise ImportFailed(f"{path}: can't be read as a checkpoint: {reason}") from error
    return _plain(content)


def _zip(path: Path) -> Path | io.BytesIO:
    """The file; of GPT-SoVITS, which writes its version over the first two bytes of a zip, what it was before."""
    with path.open("rb") as file:
        begins = file.read(4)
        if begins[2:] != b"\x03\x04" or begins[:1] != b"0":
            return path
        return io.BytesIO(b"PK" + begins[2:] + file.read())


def _plain(content: Any) -> Any:
    """The same with dictionaries in place of objects of settings."""
    fields = vars(content) if isinstance(content, _Settings) else content
    return {name: _plain(value) for name, value in fields.items()} if isinstance(fields, Mapping) else content


def folded(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weight norm in each of its spellings, `weight_g` and `weight_v` or `original0` and `original1`, multiplied out.

    Salimans and Kingma, arXiv 1602.07868: w = g v / |v|, a norm for each item of the first dimension.
    """
    spellings = (
        ("weight_g", "weight_v"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1"),
    )
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if not (tensor.is_floating_point() and bool(torch.isfinite(tensor).all())):
            if not tensor.is_floating_point():
                continue  # counters; no weight of a vocoder is a whole number
            raise ImportFailed(f"{path}: {name} holds NaN or infinity. Its training diverged")
        for length, direction in spellings:
            if name.endswith(f".{length}"):
                stem = name.removesuffix(length)
                if f"{stem}{direction}" not in state:
                    raise ImportFailed(f"{path}: has {name} but no {stem}{direction}. It is damaged")
                break
            if (
                name.endswith(f".{direction}")
                and (g := state.get(name.removesuffix(direction) + length)) is not None
            ):
                v, g = tensor.double(), g.double()
                norm = torch.linalg.vector_norm(v, dim=tuple(range(1, v.dim())), keepdim=True)
                if g.numel() != norm.numel():
                    raise ImportFailed(
                        f"{path}: {name} has {norm.numel()} rows, its length {g.numel()}. It is damaged"
                    )
                result[name.removesuffix(direction) + "weight"] = (v * (g.reshape(norm.shape) / norm)).float()
                break
        else:
            result[name] = tensor.float()
    return result


def _held(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file())


def _check_whole(path: Path) -> None:
    """Refuse what stands for a file that isn't there. Raises ImportFailed, OSError."""
    if said := lfs_pointer(path) or ("is empty" if path.stat().st_size == 0 else ""):
        raise ImportFailed(f"{path}: {said}")


def _is_weights(file: Path, named: Sequence[Path]) -> bool:
    """By its name; a file without a suffix that only lies in the folder may be a README."""
    known = file.suffix in WEIGHTS and (file.suffix != "" or file in named)
    return known or file.name.startswith(("g_", "do_", "generator"))


def _tensors(content: Any) -> list[Tensor]:
    if isinstance(content, Tensor):
        return [content]
    if isinstance(content, Mapping):
        return [tensor for value in content.values() for tensor in _tensors(value)]
    return []


def _judges(content: Mapping[str, Any]) -> dict[str, dict[str, Tensor]]:
    """Discriminators that lie beside the generator, or with it in one state dict, as of a Lightning module or Coqui."""
    together = next((content[name] for name in ("state_dict", "model") if name in content), None)
    found = {}
    for name in ("mpd", "msd", "mrd"):
        if isinstance(content.get(name), Mapping):
            found[name] = dict(content[name])
        elif isinstance(together, Mapping):
            of_it = re.compile(rf"(.*\.)?{name}\.(?=discriminators\.)")
            named = {str(key): value for key, value in together.items()}
            found[name] = {of_it.sub("", key): value for key, value in named.items() if of_it.match(key)}
    return {name: state for name, state in found.items() if state}


def _has_generator(content: Mapping[str, Any]) -> bool:
    return any(isinstance(content.get(name), Mapping) for name in _INSIDE)


def _flat(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict, out of whatever it is wrapped in."""
    while (inside := _wrapped(content)) is not None:
        names = content[inside].keys()
        same = [
            name
            for name, value in content.items()
            if name != inside and isinstance(value, Mapping) and value.keys() == names
        ]
        if same:
            log.warning("%s: holds %s too, the same net; %s is taken", path, ", ".join(same), inside)
        content = content[inside]
    state = {
        str(name).replace("_orig_mod.", ""): value  # which torch.compile puts in
        for name, value in content.items()
        if isinstance(value, Tensor)
    }
    for prefix in _PREFIXES:
        inner = [name for name in state if name.startswith(prefix)]
        # A number is a layer's: of seungwonpark's MelGAN, a Sequential called `generator`.
        if inner and not any(name[len(prefix) :][:1].isdigit() for name in inner):
            state = {name.removeprefix(prefix): state[name] for name in inner}
    nets = [name for name, value in content.items() if isinstance(value, Mapping) and _has_weights(value)]
    if not state and nets:
        if what := makes_more(f"{net}.{name}" for net in nets for name in content[net]):
            raise ImportFailed(f"{path}: can't be imported: its vocoder is {what}")
        raise ImportFailed(
            f"{path}: holds several nets ({', '.join(nets)}), expected a generator. Save its state dict alone: "
            f"torch.save(checkpoint[{nets[0]!r}], ...)"
        )
    if not state:
        raise ImportFailed(
            f"{path}: holds no weights by name, as an optimizer's file, but "
            f"{', '.join(map(str, content)) or 'nothing'}. Expected the state dict of a generator"
        )
    return state


def _wrapped(content: Mapping[str, Any]) -> str | None:
    """Under which name the state dict lies, or what holds it: one of the usual, or the only one there is."""
    within = [name for name, value in content.items() if isinstance(value, Mapping) and _has_weights(value)]
    usual = [name for name in _INSIDE if name in within]
    by_name = any(isinstance(value, Tensor) for value in content.values())
    return next(iter(usual or (within if len(within) == 1 and not by_name else [])), None)


def _has_weights(content: Mapping[Any, Any]) -> bool:
    """Whether it is a state dict, or holds one; an optimizer's tensors are those of numbers."""
    return any(
        "." in str(name) if isinstance(value, Tensor) else isinstance(value, Mapping) and _has_weights(value)
        for name, value in content.items()
    )


def _inside(content: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that the file of weights itself holds, where it does."""
    for name in _DESCRIBED_BY:
        found = content.get(name)
        try:
            found = _yaml(found) if isinstance(found, str) else found
        except (ValueError, yaml.YAMLError, RecursionError):
            continue
        if isinstance(found, Mapping):
            return dict(found)
        if isinstance(found, list) and len(found) == len(_RVC):
            rate = {"32k": 32000, "40k": 40000, "48k": 48000}.get(found[-1], found[-1])
            return dict(zip(_RVC, [*found[:-1], rate], strict=True)) | {"f0": content.get("f0", 1)}
    return {}


def _yaml(text: str) -> Any:
    """What YAML says, in one document or as seungwonpark's MelGAN in several."""
    documents = list(yaml.safe_load_all(text))
    if len(documents) > 1 and all(isinstance(one, dict) for one in documents):
        return {name: value for one in documents for name, value in one.items()}
    return documents[0] if len(documents) == 1 else documents


def _beside(path: Path, suffixes: Sequence[str]) -> list[Path]:
    found = sorted(file for file in path.parent.iterdir() if file.suffix in suffixes and file.is_file())
    return [file for file in found if file.stem in _likely(path)][:1]


def _likely(path: Path) -> tuple[str, ...]:
    """What a description of weights is called."""
    return path.name, path.stem, "config", "stats"


def _description(path: Path) -> dict[str, Any]:
    try:
        _check_whole(path)
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except ImportFailed:
        raise
    except (ValueError, yaml.YAMLError, RecursionError, OSError) as error:
        raise ImportFailed(
            f"{path}: can't be read as a configuration: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(content, dict):
        raise ImportFailed(f"{path}: holds a {type(content).__name__}, expected the settings of a model")
    return content


def _statistics(path: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    try:
        return read_statistics(path)
    except ValueError as error:
        raise ImportFailed(str(error)) from error
