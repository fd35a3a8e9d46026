"""The part of a recipe that is the engine's: everything but the task."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from torch.optim import Optimizer

from gansound.data.settings import DataSettings

_MOST_THREADS = 1024
_MOST_GB = 10**6


@dataclass(frozen=True)
class Schedule:
    """Learning-rate factor as a pure function of the step.

    Args:
        warmup_steps: rises linearly from 0 over so many steps.
        constant_steps: then stays at 1 for so many.
        decay: after that, `constant`, `cosine` (to `final` at the last step) or `exponential` (by `gamma` every
            `gamma_steps` steps, as HiFi-GAN decays by 0.999 every epoch).
        final: the factor that a cosine ends at, and below which an exponential doesn't fall.
        gamma: factor of one exponential decay.
        gamma_steps: steps between two exponential decays.
    """

    warmup_steps: int = 0
    constant_steps: int = 0
    decay: Literal["constant", "cosine", "exponential"] = "constant"
    final: float = 0.0
    gamma: float = 0.999
    gamma_steps: int = 1000

    def __post_init__(self) -> None:
        if not (0 <= self.final <= 1 and 0 < self.gamma <= 1):
            raise ValueError(
                f"expected 0 <= final <= 1 and 0 < gamma <= 1, got {self.final} and {self.gamma}"
            )
        if min(self.warmup_steps, self.constant_steps) < 0 or self.gamma_steps < 1:
            raise ValueError(
                "expected warmup_steps >= 0, constant_steps >= 0 and gamma_steps >= 1, got "
                f"{self.warmup_steps}, {self.constant_steps} and {self.gamma_steps}"
            )


@dataclass(frozen=True)
class Optimization:
    """How one of the two sides learns.

    Args:
        optimizer: `class_path` and `init_args` of a torch optimizer, without its parameters.
        schedule: of its learning rate.
        clip_norm: largest norm of its gradient; null doesn't clip.
    """

    optimizer: Callable[..., Optimizer]
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be above 0, got {self.clip_norm}; null doesn't clip")


@dataclass(frozen=True)
class GuardSettings:
    """When a run is stopped or sent back.

    Args:
        max_skipped: steps in a hundred that may have a loss or a gradient that isn't finite; they change nothing. One
            more stops the run.
        explosion_factor: a spectral or feature-matching loss that stays over so many times its median for 50 steps
            sends the run back to its last good checkpoint, and on with other data; null never does.
        max_rollbacks: so often; then it stops.
    """

    max_skipped: int = 10
    explosion_factor: float | None = 10.0
    max_rollbacks: int = 3

    def __post_init__(self) -> None:
        if self.max_skipped < 0 or self.max_rollbacks < 0:
            raise ValueError(
                f"expected max_skipped >= 0 and max_rollbacks >= 0, got {self.max_skipped} and {self.max_rollbacks}"
            )
        if self.explosion_factor is not None and not self.explosion_factor > 1:
            raise ValueError(f"explosion_factor must be above 1, or null, got {self.explosion_factor}")


@dataclass(frozen=True)
class RunSettings:
    """How long, how fast, on what, and what is written down.

    Args:
        data: the corpus and the segments drawn from it.
        steps: updates of the generator in all.
        batch_size: segments a step, over all processes.
        generator_optimization: how the generator learns.
        discriminator_optimization: how the discriminators learn.
        seed: of the weights and of every draw.
        labels: classes of sounds, for a generator of clips that has them: `auto` takes the corpus's label folders, a
            list fixes their order, null trains without.
        adversarial_from: the step at which the discriminators join; before it only the spectral losses teach.
        micro_batches: parts a batch is worked through in, to fit in memory.
        memory_gb: of a process, or on a GPU of the device: `micro_batches` is then the fewest with which a step fits,
            measured when the run starts; null takes it as it is given.
        init_from: a model to start from instead of random weights: a model folder, a run's folder, a shipped name or a
            Hugging Face repository id; with its discriminators where it has them.
        freeze: parts that don't learn, by the name of the part or a pattern: `generator.layers.spectrum`,
            `discriminators.msd.scales.0`, `*.bias`.
        precision: `fp32`; `tf32` lets a GPU round what it multiplies to 10 bits; `bf16` and `fp16` run networks under
            autocast, fp16 with its losses scaled so that small gradients don't vanish. Losses stay in fp32 in all.
        compile: `torch.compile` for the generator and those discriminators that no penalty differentiates twice: the
            first step takes a minute or more, the others less. `graphs` also has a GPU replay each network as CUDA
            graphs, for networks so small that launching their kernels takes longer than running them.
        ema_decay: of the averaged generator that is validated and shipped; null ships the generator itself.
        log_every: steps between two lines of metrics.jsonl.
        validate_every: steps between two validations; null never validates.
        patience: validations in a row without a better one after which the run ends; null goes on to the last step.
        validate_utterances: how many held-out utterances are vocoded for it, or held-out clips compared with generated
            ones.
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: how many of the latest are kept; that of the best validation is kept besides.
        keep_every: checkpoints at multiples of so many steps are kept for good; null keeps none.
        guards: when a run is stopped or sent back.
        threads: CPU threads; null leaves torch's choice.
        trackers: where figures go beside metrics.jsonl: tensorboard, and what is installed of wandb, mlflow, comet_ml,
            aim, trackio and others that accelerate knows; an empty list sends them nowhere.
    """

    data: DataSettings
    steps: int
    batch_size: int
    generator_optimization: Optimization
    discriminator_optimization: Optimization | None = None
    seed: int = 0
    labels: Literal["auto"] | list[str] | None = None
    adversarial_from: int = 0
    micro_batches: int = 1
    memory_gb: float | None = None
    init_from: str | None = None
    freeze: list[str] = field(default_factory=list)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    compile: bool | Literal["graphs"] = False
    ema_decay: float | None = None
    log_every: int = 50
    validate_every: int | None = 5000
    patience: int | None = None
    validate_utterances: int = 8
    checkpoint_every: int = 5000
    keep_checkpoints: int = 2
    keep_every: int | None = None
    guards: GuardSettings = field(default_factory=GuardSettings)
    threads: int | None = None
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])

    def __post_init__(self) -> None:
        for name in (
            "steps", "batch_size", "micro_batches", "log_every", "validate_utterances", "checkpoint_every",
            "keep_checkpoints",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("validate_every", "patience", "keep_every", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or null, got {value}")
        if self.threads is not None and self.threads > _MOST_THREADS:
            raise ValueError(
                f"threads must be at most {_MOST_THREADS}, got {self.threads}; null leaves torch's choice"
            )
        if self.patience is not None and self.validate_every is None:
            raise ValueError("patience counts validations: set validate_every, or patience to null")
        if self.keep_every is not None and self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"keep_every must be a multiple of checkpoint_every {self.checkpoint_every}, got {self.keep_every}"
            )
        if isinstance(self.labels, list) and len(set(self.labels)) < len(self.labels):
            raise ValueError(f"labels: got {', '.join(self.labels)}, expected each name once")
        if self.adversarial_from < 0:
            raise ValueError(f"adversarial_from must be 0 or more, got {self.adversarial_from}")
        if self.batch_size % self.micro_batches:
            raise ValueError(
                f"batch_size {self.batch_size} must be a multiple of micro_batches {self.micro_batches}"
            )
        if self.memory_gb is not None:
            if not 0 < self.memory_gb < _MOST_GB:
                raise ValueError(
                    f"memory_gb must be above 0 and below {_MOST_GB}, or null, got {self.memory_gb}"
                )
            if self.micro_batches > 1:
                raise ValueError(
                    f"micro_batches {self.micro_batches} and memory_gb {self.memory_gb:g}, which chooses it, are both "
                    "given: leave one out"
                )
            if self.compile:
                raise ValueError(
                    "memory_gb tries several splits, and compile would compile each: set micro_batches, or compile to "
                    "false"
                )
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay must lie between 0 and 1, got {self.ema_decay}")
