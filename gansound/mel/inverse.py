"""From a mel of any convention back to the amplitudes of one short-time spectrum, as far as the bands tell them.

The pseudo-inverse of the filter bank is FreeV's (Lv et al., arXiv 2406.08196). Here it leads from every convention to
the same bins, and says which of them the convention saw.

Of all amplitudes that have these bands the pseudo-inverse's are the least: bumps as wide as bands, dents between them,
some below zero. But the lowest bands are narrower than what a window makes of a tone. Which tones, none of them
negative, have main lobes that add up to these bands? That is a deconvolution, and of voices it tells much more.
"""

import math

import torch
from torch import Tensor, nn

from gansound.mel import filters
from gansound.mel.spec import MelSpec
from gansound.precision import full_precision, no_autocast

AMPLITUDE_FLOOR = 1e-5
"""Of a bin that was seen: less is silence. A bin that wasn't seen is 0."""

WHOLE = 0.93
"""Of all bins: conventions that tell of so many are to a net as those that tell of all."""

END_DB = 60.0
"""So far a sound falls from the last bin that such a one tells of to the last of all, as a resampler would have it."""

FALL_DB = 2.0
"""For each kilohertz above what a convention tells of, speech is so much fainter, as far as one can guess."""

# Wide banks of many bands have rows that differ by little; what only their difference tells is rounding.
_RELATIVE_TOLERANCE = 1e-3
_ROUNDS = 10
_NOTHING = 1e-9  # of a magnitude
_NEARLY = 3  # bins below half of a rate


class MelInverse(nn.Module):
    """Amplitudes of the spectrum with a Hann window of `n_fft` samples whose mel this is.

    Log, affine and floor are undone, then the filter bank by its pseudo-inverse, in float32 under autocast too (float64
    stays). Where the convention's own window is of another length, bins between its bins are interpolated and all is
    scaled to the energy of a window of `n_fft`: right for noise, and for tones nearly so, since bands blur them more
    than windows do.

    Args:
        mel: the convention.
        n_fft: of the spectrum that is wanted.
        tones: so many of the lowest bins are told as those of tones, see `Tones`; 0 for none.
        beyond: the convention by which a net was trained. Where this one ends below it, what it lacks is as loud as its
            last bins are; where it ends further up but short of all (`WHOLE`), the rest is left out; where it tells of
            nearly all, it falls off from there: the net has hardly learnt what to make up above other ends.
        lasting: samples of the convention's own rate that the window lasts; `n_fft` where it is that rate. Else the
            spectrum is that of the sound resampled to a rate at which the window has `n_fft` samples, and bins above
            half of the convention's rate are ones that it never saw.

    Shape:
        `(B, n_mels, F)` → `(B, F, n_fft // 2 + 1)`, at least `AMPLITUDE_FLOOR` in the bins that the convention's bands
        cover, 0 in bins that it never saw.

    Raises:
        ValueError: the convention's window is less than half or more than twice as long as the spectrum's, or `tones`
            isn't between 0 and a quarter of `n_fft`.
    """

    matrix: Tensor
    seen: Tensor

    def __init__(
        self,
        mel: MelSpec,
        n_fft: int,
        tones: int = 0,
        beyond: MelSpec | None = None,
        lasting: int | None = None,
    ) -> None:
        super().__init__()
        lasting = lasting or n_fft
        if not mel.win_length <= 2 * lasting <= 4 * mel.win_length:
            raise ValueError(
                f"mel win_length: got {mel.win_length} samples, expected {math.ceil(lasting / 2)} to {2 * lasting}: "
                f"the amplitudes of {lasting} samples can't be told from windows so different"
            )
        if not 0 <= tones <= n_fft // 4:
            raise ValueError(f"tones: got {tones} bins, expected 0 to {n_fft // 4} with n_fft {n_fft}")
        self.mel = mel
        back, seen = _undone(mel, n_fft, lasting)
        if beyond not in (None, mel):
            back, seen = _ending_as(back, seen, beyond, n_fft, lasting)
        own_energy = filters.hann(mel.win_length, mel.window).double().square().sum()
        scale = (filters.hann(lasting, "hann").double().square().sum() / own_energy).sqrt() * n_fft / lasting
        # Constants of the convention, not weights: derived again at construction, so they aren't stored.
        self.register_buffer("matrix", (back[tones:] * scale).float(), persistent=False)
        self.register_buffer("seen", seen.float(), persistent=False)
        self.tones = Tones(mel, n_fft, tones, lasting) if tones else None

    def forward(self, mel: Tensor) -> Tensor:
        """The amplitudes of a mel in the convention."""
        mel = full_precision(mel)
        with no_autocast(mel):  # its sums cancel
            bands = self.mel.to_magnitude(mel).transpose(1, 2)
            linear = bands @ self.matrix.to(mel.dtype).T
            if self.tones is not None:
                linear = torch.cat([self.tones(bands), linear], dim=-1)
        # The power that the convention added to each bin would be a hum in silence. In units of the floor's, since an
        # ONNX exporter takes the subtraction of 1e-9 for one of nothing, and leaves it out.
        added = self.mel.magnitude_eps / AMPLITUDE_FLOOR**2
        seen = self.seen.to(mel.dtype)
        power = ((linear * seen / AMPLITUDE_FLOOR).square() - added).clamp_min(1.0)
        return AMPLITUDE_FLOOR * power.sqrt() * seen


def _undone(mel: MelSpec, n_fft: int, lasting: int) -> tuple[Tensor, Tensor]:
    """The pseudo-inverse of the filter bank, `(bins, n_mels)`, and which bins it covers, `(bins,)`."""
    bank = mel.filter_bank().double()
    back = torch.linalg.pinv(bank, rtol=_RELATIVE_TOLERANCE)
    seen = bank.sum(0) > 0
    if (mel.n_fft, mel.n_fft) != (n_fft, lasting):
        places = torch.arange(n_fft // 2 + 1, dtype=torch.float64) * mel.n_fft / lasting
        between = (1 - (places[:, None] - torch.arange(len(seen), dtype=torch.float64)).abs()).clamp_min(0)
        back, seen = between @ back, between @ seen.double() > 0.5
    return back, seen


def _ending_as(back: Tensor, seen: Tensor, other: MelSpec, n_fft: int, lasting: int) -> tuple[Tensor, Tensor]:
    """Those as of a convention that ends where another does, or tells of all bins: elsewhere a net hardly knows an end.

    What lacks is as loud as the last bins are where the other tells of a flat spectrum, but fainter the further up
    (`FALL_DB`, `END_DB`); what goes further is left out.
    """
    others, covered = _undone(other, n_fft, n_fft)
    last, top = int(seen.nonzero().max()), int(covered.nonzero().max())
    flat = others @ other.filter_bank().double().sum(1)
    middle, end, goal = _last_peak(back), last, top  # of the last band, which is half on either side
    above = (torch.arange(len(flat)) - last).clamp(min=0)
    if last == top or last >= n_fft // 2 - 1:
        return back, seen
    if last > WHOLE * (n_fft // 2) or last >= lasting // 2 - _NEARLY:
        goal = n_fft // 2 - 1
        flat[:] = flat[: _last_peak(others)].median()
        if last < lasting // 2 - _NEARLY:  # else the rate ends there, and nobody hears what is above
            flat *= 10 ** (-END_DB / 20 * above / (goal - last))
    elif top < last:
        middle, end = _last_peak(others), top
    else:
        flat *= 10 ** (-FALL_DB / 20 * above * (other.sample_rate / n_fft / 1000))
    as_loud = back[max(0, 2 * middle - end) : middle + 1].mean(0)
    bins = torch.arange(len(back))
    share = ((bins - middle) / max(1, end - middle)).clamp(0, 1)[:, None]  # a band may be narrower than a bin
    kept = bins <= goal
    back = back * (1 - share) + share * flat[:, None] * as_loud
    return back * kept[:, None], (seen | (bins > last)) & kept


def _last_peak(back: Tensor) -> int:
    """The bin in the middle of the last band that has a bin."""
    band = int((back.amax(0) > _NOTHING).nonzero().max())
    return int(back[:, band].argmax())


class Tones(nn.Module):
    """Amplitudes of the lowest bins, as of the tones that the lowest bands are likeliest to come from.

    A tone stands at each bin; bins and bands are the sums of their Hann windows' main lobes. Richardson's and Lucy's
    deconvolution ("Bayesian-based iterative method of image restoration", JOSA 62(1), 1972; "An iterative technique for
    the rectification of observed distributions", AJ 79, 1974) finds how loud they are: each is multiplied by what its
    bands ask for in relation to what they have, here to the power of 1.5, with which it comes closer in as many rounds
    (Meinel, "Origins of linear and nonlinear recursive restoration algorithms", JOSA A 3(6), 1986).

    Args:
        mel: the convention.
        n_fft: of the spectrum that is wanted.
        bins: how many.
        lasting: samples of the convention's own rate in the window, see `MelInverse`.

    Shape: magnitudes `(B, F, n_mels)` → `(B, F, bins)`.
    """

    bands_of: Tensor
    asked_of: Tensor
    begun: Tensor
    bins_of: Tensor

    def __init__(self, mel: MelSpec, n_fft: int, bins: int, lasting: int | None = None) -> None:
        super().__init__()
        bank = mel.filter_bank().double()
        lasting = lasting or n_fft
        hz = torch.arange(bank.shape[1], dtype=torch.float64) * (mel.sample_rate / mel.n_fft)
        wanted_hz = torch.arange(bins, dtype=torch.float64) * (mel.sample_rate / lasting)
        heard = (bank[:, hz <= wanted_hz[-1]].sum(1) > 0).nonzero().max().item() + 1
        bank = bank[:heard]
        top_hz = hz[bank.sum(0) > 0].max().item()
        # One below 0 Hz too: its main lobe reaches there, as the mirror image of the one above. Where the bands begin
        # above it, none below the middle of the first: too little of those is heard to tell them.
        middle = bank[bank.sum(1) > 0][0].argmax()  # of the first band
        first = round(hz[middle].item() * lasting / mel.sample_rate) if mel.fmin else -1
        tones_hz = torch.arange(first, 2 + top_hz * lasting // mel.sample_rate, dtype=torch.float64)
        tones_hz *= mel.sample_rate / lasting
        bands_of = bank @ _main_lobe((hz[:, None] - tones_hz) * (mel.win_length / mel.sample_rate))
        louder = n_fft / mel.win_length  # a tone's peak in a longer window
        asked_of = bands_of / bands_of.sum(0).clamp_min(_NOTHING)
        for name, matrix in {
            "bands_of": bands_of,
            "asked_of": asked_of,
            "begun": asked_of / bands_of.sum(1, keepdim=True).clamp_min(_NOTHING),
            "bins_of": _main_lobe((wanted_hz[:, None] - tones_hz) * (lasting / mel.sample_rate)) * louder,
        }.items():
            self.register_buffer(name, matrix.float(), persistent=False)

    def forward(self, bands: Tensor) -> Tensor:
        bands_of, asked_of, begun, bins_of = (
            matrix.to(bands.dtype) for matrix in (self.bands_of, self.asked_of, self.begun, self.bins_of)
        )
        wanted = bands[..., : len(bands_of)].clamp_min(_NOTHING)
        loud = wanted @ begun
        for _ in range(_ROUNDS):
            asked = (wanted / (loud @ bands_of.T).clamp_min(_NOTHING)) @ asked_of
            asked = asked.clamp_min(_NOTHING)  # a root of nothing has no slope
            loud = loud * asked * asked.sqrt()
        return loud @ bins_of.T


def _main_lobe(away: Tensor) -> Tensor:
    """Of a Hann window's spectrum, 1 at a tone; so far from it, in parts of the inverse of the window's length."""
    away = torch.where(away.abs() == 1, away + 1e-6, away)
    return torch.where(away.abs() < 2, torch.sinc(away) / (1 - away.square()), 0.0)
