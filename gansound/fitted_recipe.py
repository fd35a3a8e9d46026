"""A recipe that fits: a family of vocoders at a sample rate, in a mel convention.

What is written is an overlay over the family's shipped recipe, with only what must differ, and why: the convention,
the upsampling rates and kernels that make its hop, a segment as long in time, resolutions of losses and
discriminators. What can't work is a ValueError with the values, before anything is built.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from gansound.recipe import ALLOWED, build, load_recipe, parameters, to_yaml
from gansound.recipe.build import import_class
from gansound.recipe.text import meant

if TYPE_CHECKING:  # it imports torch, which the command's help does without
    from gansound.mel import MelSpec

# family → the shipped recipe that it is fitted from
FAMILIES = {
    "freev": "freev_cpu",
    "universal": "universal_cpu",
    "vocos": "vocos_24khz",
    "melgan": "melgan_ljspeech",
    "multi_band_melgan": "multi_band_melgan_v2_ljspeech",
    "hifigan": "hifigan_v1_ljspeech",
    "hifigan_v2": "hifigan_v2_ljspeech",
    "hifigan_v3": "hifigan_v3_ljspeech",
    "istftnet": "istftnet_ljspeech",
    "nsf_hifigan": "nsf_hifigan_44khz",
    "bigvgan": "bigvgan_24khz",
    "bigvgan_base": "bigvgan_base_22khz",
    "bigvgan_v2": "bigvgan_v2_24khz",
}
RATES_HZ = (
    16000,
    22050,
    24000,
    32000,
    44100,
    48000,
)  # what is fitted is tested at these; others are taken, too
LOWEST_HZ, HIGHEST_HZ = 8000, 96000
HIGHEST_RATE = 16  # of one stage
_COUNTS = range(1, 9)  # of stages
# A generator whose layers after the upsampling give so many samples for each column.
_REST = ("bands", "istft_hop_length")


@dataclass(frozen=True)
class FittedRecipe:
    """What was chosen.

    Attributes:
        command: that chooses it again.
        base: the shipped recipe that it changes.
        changes: what differs from it, as an overlay says it.
        reasons: why, by the dotted key.
    """

    command: str
    base: str
    changes: dict[str, Any]
    reasons: dict[str, str]

    @property
    def recipe(self) -> dict[str, Any]:
        """The overlay, to be written as YAML."""
        return {"base": self.base} | self.changes

    @property
    def text(self) -> str:
        """The file: the overlay with a comment above each part."""
        blocks = [
            f"# Written by: {self.command}",
            "#",
            "#   gansound train THIS_FILE --data.path recordings/",
            "#",
            f"# Everything else is that of {self.base}: gansound train THIS_FILE --keys shows it all.",
            "",
            *(f"# {line}" for line in self.lines("base")),
            to_yaml({"base": self.base}).rstrip(),
        ]
        for name, value in self.changes.items():
            blocks += [f"# {line}" for line in self.lines(name)]
            blocks.append(to_yaml({name: value}, compact=True).rstrip())
        return "\n".join(blocks) + "\n"

    def lines(self, part: str | None = None) -> list[str]:
        """The reasons, one line each; of one key of the recipe, or all."""
        return [
            f"{key}: {reason}"
            for key, reason in self.reasons.items()
            if part is None or key.split(".")[0] == part
        ]


def fit(
    family: str,
    rate_hz: int,
    *,
    mel: str | None = None,
    hop_length: int | None = None,
    fmax_hz: float | None = None,
) -> FittedRecipe:
    """Choose.

    Args:
        family: a key of `FAMILIES`.
        rate_hz: of the sound.
        mel: the preset that an acoustic model or a corpus is in; its sizes in samples are kept. By default the
            convention of the family's recipe, with sizes that fit the rate.
        hop_length: another hop; the window is then four hops long.
        fmax_hz: another upper edge of the mel bands.

    Raises:
        ValueError: what can't work, with the values.
    """
    if family not in FAMILIES:
        raise ValueError(
            f"family {family!r} isn't known{meant(family, FAMILIES)}; known: {', '.join(FAMILIES)}"
        )
    if not LOWEST_HZ <= rate_hz <= HIGHEST_HZ:
        raise ValueError(
            f"rate: got {rate_hz:g} Hz, expected {LOWEST_HZ} to {HIGHEST_HZ} Hz, such as "
            + ", ".join(map(str, RATES_HZ))
        )
    from gansound.mel import MelSpec

    base = load_recipe(FAMILIES[family])
    its_mel = build(base["mel"], MelSpec, "mel")
    reasons: dict[str, str] = {}
    node, spec = _mel(base, its_mel, rate_hz, mel, hop_length, fmax_hz, reasons)
    changes: dict[str, Any] = {} if spec == its_mel else {"mel": node}
    if generator := _generator(base, its_mel, spec, reasons):
        changes["generator"] = {"init_args": generator}
    for name in ("discriminators", "losses"):
        if part := _scaled_resolutions(base.get(name), rate_hz, name, reasons):
            changes[name] = part
    segment = _segment(base["data"]["segment_samples"], its_mel, spec, reasons)
    if segment != base["data"]["segment_samples"]:
        changes["data"] = {"segment_samples": segment}
    if not changes:
        reasons["base"] = f"{FAMILIES[family]} is as published for {rate_hz} Hz and this convention"
    options = {"--mel": mel, "--hop": hop_length, "--fmax": fmax_hz}
    given = "".join(f" {name} {value}" for name, value in options.items() if value is not None)
    return FittedRecipe(
        f"gansound recipe {family} --rate {rate_hz}{given}", FAMILIES[family], changes, reasons
    )


def _mel(
    base: Mapping[str, Any],
    its_mel: "MelSpec",
    rate_hz: int,
    name: str | None,
    hop_length: int | None,
    fmax_hz: float | None,
    reasons: dict[str, str],
) -> "tuple[dict[str, Any], MelSpec]":
    """The node of the recipe and what it means."""
    from gansound.mel import MelSpec

    of_recipe = base["mel"] if isinstance(base["mel"], str) else base["mel"]["preset"]
    preset = of_recipe if name is None else name
    spec = its_mel if name is None else MelSpec.preset(name)
    sizes: dict[str, Any] = {}
    if spec.sample_rate != rate_hz:
        sizes["sample_rate"] = rate_hz
        if name is None:
            sizes |= _sizes(rate_hz)
            why = (
                f"the convention of {preset} with the sizes usual at {rate_hz} Hz: {sizes['n_mels']} bands up to half "
                "the rate"
            )
            if hop_length is None:
                why += f", a hop of {1000 * sizes['hop_length'] / rate_hz:.1f} ms"
        else:
            why = f"{preset} as asked, whose own rate is {spec.sample_rate} Hz: its sizes in samples are kept"
            if spec.fmax == spec.sample_rate / 2 < rate_hz / 2:
                sizes["fmax"] = rate_hz / 2
                why += "; its bands end at half the rate, so they do here"
    else:
        why = f"{preset}, {'as asked' if name else 'the convention of the published recipe'}"
    if hop_length is not None:
        if not 16 <= hop_length <= rate_hz // 10:
            raise ValueError(
                f"hop: got {hop_length}, expected 16 to {rate_hz // 10} samples, a tenth of a second"
            )
        sizes |= {"hop_length": hop_length, "n_fft": 4 * hop_length, "win_length": 4 * hop_length}
        why += f"; a hop of {hop_length} as asked ({1000 * hop_length / rate_hz:.1f} ms), in a window of four"
    if fmax_hz is not None:
        sizes["fmax"] = float(fmax_hz)
        why += f"; bands up to {fmax_hz:g} Hz as asked"
    fmax = sizes.get("fmax", spec.fmax)
    if fmax > rate_hz / 2:
        raise ValueError(
            f"mel {preset}: fmax is {fmax:g} Hz, but sound at {rate_hz} Hz ends at {rate_hz / 2:g} Hz; add --fmax "
            f"{rate_hz / 2:g}, or leave --mel out"
        )
    reasons["mel"] = why
    return {"preset": preset} | sizes, replace(spec, **sizes)


def _sizes(rate_hz: int) -> dict[str, Any]:
    """Sizes of a mel convention that the published nets have at or near that rate."""
    wide = rate_hz > 24000
    n_fft = (2048 if wide else 1024) if rate_hz > 12000 else 512
    return {
        "n_fft": n_fft,
        "win_length": n_fft,
        "hop_length": n_fft // 4,
        "n_mels": 128 if wide else 100 if rate_hz >= 24000 else 80,
        "fmin": 0.0,
        "fmax": rate_hz / 2,
    }


def _generator(
    base: Mapping[str, Any], its_mel: "MelSpec", spec: "MelSpec", reasons: dict[str, str]
) -> dict[str, Any]:
    """What of the generator's arguments must differ from the base recipe's."""
    node = base["generator"]
    cls = import_class(node["class_path"], "generator.class_path", (), ALLOWED)
    taken = parameters(cls)
    now = {name: p.default for name, p in taken.items()} | dict(node.get("init_args") or {})
    made: dict[str, Any] = {}
    if "n_mels" in taken:
        pitched = getattr(cls, "takes_pitch", False)
        made["n_mels"] = spec.n_mels + pitched
        reasons["generator.n_mels"] = f"the mel has {spec.n_mels} bands" + ", and the pitch" * pitched
    if "sample_rate" in taken:
        made["sample_rate"] = spec.sample_rate
        reasons["generator.sample_rate"] = "the mel's"
    if "upsample_rates" in taken:
        rest = next((now[name] for name in _REST if name in taken), 1)
        like = tuple(now["upsample_rates"])
        rates = upsample_rates(spec.hop_length, rest, like)
        made["upsample_rates"] = list(rates)
        times = " * ".join(map(str, (*rates, *([rest] if rest > 1 else []))))
        reasons["generator.upsample_rates"] = f"{times} = the hop of {spec.hop_length} samples" + (
            "" if rates == like else f"; the factors nearest to the published {list(like)}"
        )
        if "upsample_kernel_sizes" in taken:
            made["upsample_kernel_sizes"] = [2 * one for one in rates]
            reasons["generator.upsample_kernel_sizes"] = "twice each rate, as published"
        halvings = 2 ** len(rates)
        if now["channels"] % halvings:
            made["channels"] = -(-now["channels"] // halvings) * halvings
            reasons["generator.channels"] = f"{len(rates)} stages halve it, so a multiple of {halvings}"
    elif "hop_length" in taken:
        made["hop_length"] = spec.hop_length
        reasons["generator.hop_length"] = "the mel's"
    elif "n_fft" in taken and (n_fft := inverted_n_fft(spec)) != (now["n_fft"] or spec.n_fft):
        made["n_fft"] = n_fft
        reasons["generator.n_fft"] = (
            "the mel's"
            if n_fft == spec.n_fft
            else f"the mel's {spec.n_fft} isn't a multiple of its hop {spec.hop_length}: {n_fft} is"
        )
    for name in ("single_pass_bins", "tones"):
        if now.get(name):
            width = its_mel.sample_rate / (now["n_fft"] or its_mel.n_fft)
            n_fft = made.get("n_fft", now["n_fft"] or spec.n_fft)
            bins = round(now[name] * width * n_fft / spec.sample_rate)
            made[name] = min(max(2, bins), n_fft // 4)
            reasons[f"generator.{name}"] = f"those below {now[name] * width:.0f} Hz, as in the shipped recipe"
    changed = {name: value for name, value in made.items() if value != _listed(now[name])}
    for name in made.keys() - changed.keys():
        reasons.pop(f"generator.{name}", None)
    return changed


def upsample_rates(hop_length: int, rest: int, like: tuple[int, ...]) -> tuple[int, ...]:
    """Rates whose product times `rest` is the hop, largest first: as many as `like` where that goes, and near to it.

    Raises:
        ValueError: the rest doesn't divide the hop, or there are none from 2 to `HIGHEST_RATE`.
    """
    product = hop_length // rest
    if hop_length % rest == 0:
        for count in sorted(_COUNTS, key=lambda n: (abs(n - len(like)), n)):
            if found := list(_factors(product, count, HIGHEST_RATE)):
                wanted = (*sorted(like, reverse=True), *[2] * count)[:count]
                # Of those as near, the first stages take more, but not beyond 8: nothing published goes there.
                return min(
                    found, key=lambda rates: (_apart(rates, wanted), rates[0] > 8, [-rate for rate in rates])
                )
        why = (
            f"can't be made by stages of 2 to {HIGHEST_RATE}: {product} has the prime factor "
            f"{_largest_prime(product)}"
        )
    else:
        why = f"aren't a multiple of the {rest} that the last layer gives for each column"
    nearby = (hop_length + step for far in range(hop_length) for step in (far, -far))
    near = next(hop for hop in nearby if hop > rest and hop % rest == 0 and _can_be_made(hop // rest))
    raise ValueError(f"hop: {hop_length} samples {why}; take --hop {near}")


def _can_be_made(product: int) -> bool:
    return any(True for count in _COUNTS for _ in _factors(product, count, HIGHEST_RATE))


def _factors(product: int, count: int, largest: int) -> Iterator[tuple[int, ...]]:
    """All falling sequences of so many factors from 2 to `largest`."""
    if count == 0:
        if product == 1:
            yield ()
        return
    for first in range(min(largest, product), 1, -1):
        if product % first == 0:
            for others in _factors(product // first, count - 1, first):
                yield (first, *others)


def _apart(rates: tuple[int, ...], wanted: tuple[int, ...]) -> float:
    # Rounded, so that what is as near isn't told apart by an error of rounding.
    return round(sum(math.log(a / b) ** 2 for a, b in zip(rates, wanted, strict=True)), 9)


@cache
def _largest_prime(number: int) -> int:
    largest, divisor = 1, 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            largest, number = divisor, number // divisor
        divisor += 1
    return max(largest, number)


def inverted_n_fft(spec: "MelSpec") -> int:
    """The size of an inverse STFT at the mel's hop: the mel's own n_fft or window if hops tile it, else four hops."""
    for n_fft in (spec.n_fft, spec.win_length):
        if n_fft % spec.hop_length == 0 and n_fft >= 2 * spec.hop_length:
            return n_fft
    return 4 * spec.hop_length


def _scaled_resolutions(node: Any, rate_hz: int, key: str, reasons: dict[str, str]) -> dict[str, Any]:
    """Every `resolutions: [[n_fft, hop, window], ...]` below a node twice as long above 32 kHz, as an overlay.

    Where a class has a default for them, that is what they are.
    """
    if rate_hz <= 32000 or not isinstance(node, Mapping):
        return {}
    inside = dict(node)
    if "class_path" in node:
        taken = parameters(import_class(node["class_path"], key, (), ALLOWED)).get("resolutions")
        if taken is not None and isinstance(taken.default, tuple):
            inside["init_args"] = {"resolutions": taken.default} | (node.get("init_args") or {})
    found: dict[str, Any] = {}
    for name, value in inside.items():
        below = key if name == "init_args" else f"{key}.{name}"
        if name == "resolutions":
            found[name] = [[2 * size for size in resolution] for resolution in value]
            reasons[below] = f"twice as many samples as the published ones: as long in time at {rate_hz} Hz"
        elif part := _scaled_resolutions(value, rate_hz, below, reasons):
            found[name] = part
    return found


def _segment(published: int, its_mel: "MelSpec", spec: "MelSpec", reasons: dict[str, str]) -> int:
    """As long in time as the published one, in whole hops."""
    hop = spec.hop_length
    samples = max(1, round(published * spec.sample_rate / its_mel.sample_rate / hop)) * hop
    reasons["data.segment_samples"] = (
        f"{samples / spec.sample_rate:.2f} s as published, in {samples // hop} hops of {hop}"
    )
    return samples


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, tuple | list) else value
