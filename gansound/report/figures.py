"""How each figure of an evaluation is called, rounded and read."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from gansound.metrics.summary import Interval


@dataclass(frozen=True, slots=True)
class FigureStyle:
    """Label, unit ("" for none), which way is better, digits after the point, and one line of meaning."""

    label: str
    unit: str
    better: Literal["higher", "lower"]
    digits: int
    meaning: str
    percent: bool = False

    def text(self, value: float | None) -> str:
        """The value as read, without its unit; a dash where there is none."""
        if value is None:
            return "–"
        return f"{value * (100.0 if self.percent else 1.0):.{self.digits}f}"

    def interval(self, interval: Interval | None, *, signed: bool = False) -> tuple[str, str]:
        """Mean and 95 % interval as two texts; one value alone has no interval."""
        if interval is None:
            return "–", ""
        if interval.count == 1:
            return self.text(interval.mean), ""
        sign = "+" if signed and interval.mean > 0 else ""
        return (
            f"{sign}{self.text(interval.mean)}",
            f"{self.text(interval.low)} … {self.text(interval.high)}",
        )

    @property
    def heading(self) -> str:
        """Label, unit and an arrow that points to better."""
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.label}{unit} {'↑' if self.better == 'higher' else '↓'}"

    def verdict(self, difference: Interval) -> Literal["better", "worse", "open"]:
        """Whether a paired difference is clear of zero, and on which side."""
        if not difference.clear_of_zero:
            return "open"
        return "better" if (difference.mean > 0) == (self.better == "higher") else "worse"


STYLES = {
    "pesq_wb": FigureStyle("PESQ", "wide band", "higher", 2, "ITU-T P.862.2 at 16 kHz, 1.04 to 4.64"),
    "stoi": FigureStyle("STOI", "", "higher", 3, "short-time objective intelligibility, 0 to 1"),
    "mel_distance": FigureStyle(
        "mel distance",
        "nepers",
        "lower",
        3,
        "mean |difference| of natural-log mels, 80 bands from 0 to Nyquist",
    ),
    "mel_distance_model": FigureStyle(
        "mel distance, model's own",
        "nepers",
        "lower",
        3,
        "mean |difference| of natural-log mels as the model sees them",
    ),
    "stft_convergence": FigureStyle(
        "STFT convergence", "", "lower", 3, "relative error of magnitudes, mean of three resolutions"
    ),
    "stft_log_magnitude": FigureStyle(
        "STFT log magnitude", "nepers", "lower", 3, "mean |difference| of log magnitudes, three resolutions"
    ),
    "f0_rmse_cents": FigureStyle("F0 error", "cents", "lower", 1, "RMS over frames voiced in both (pYIN)"),
    "f0_rmse_hz": FigureStyle("F0 error", "Hz", "lower", 2, "RMS over frames voiced in both (pYIN)"),
    "voicing_error": FigureStyle(
        "voicing error", "% of frames", "lower", 2, "frames voiced in one and not in the other (pYIN)", True
    ),
    "voicing_f1": FigureStyle(
        "voicing F1", "", "higher", 3, "harmonic mean of precision and recall of voiced frames (pYIN)"
    ),
    "periodicity_rmse": FigureStyle(
        "periodicity error", "", "lower", 3, "RMS difference of the probability of voicing (pYIN)"
    ),
    "mel_cepstral_distortion_db": FigureStyle(
        "mel-cepstral distortion", "dB", "lower", 2, "coefficients 1 to 13 of 80 mel bands, no time warping"
    ),
    "visqol_speech": FigureStyle("ViSQOL speech", "16 kHz", "higher", 2, "1 to 5, polynomial mapping"),
    "visqol_audio": FigureStyle("ViSQOL audio", "48 kHz", "higher", 2, "1 to 4.73, the whole band"),
    "dnsmos_p808": FigureStyle(
        "DNSMOS P.808", "", "higher", 2, "predicted overall opinion, 1 to 5, no reference"
    ),
    "dnsmos_sig": FigureStyle("DNSMOS speech", "", "higher", 2, "P.835 speech quality, 1 to 5, no reference"),
    "dnsmos_bak": FigureStyle("DNSMOS background", "", "higher", 2, "P.835 background, 1 to 5, no reference"),
    "dnsmos_ovrl": FigureStyle("DNSMOS overall", "", "higher", 2, "P.835 overall, 1 to 5, no reference"),
    "word_error_rate": FigureStyle(
        "word error rate", "%", "lower", 1, "PocketSphinx, US English; read it against ground truth's", True
    ),
    "empty_band_percent": FigureStyle(
        "empty at the top",
        "% of speech frames",
        "lower",
        1,
        "frames 15 dB or more below the recording at 0.86 to 0.95 of Nyquist, of those where it holds something there",
    ),
    "pitch_modulation_kept_percent": FigureStyle(
        "pitch pulses kept",
        "%",
        "higher",
        1,
        "80 to 400 Hz modulation of the 4 to 7.5 kHz envelope over the recording's; steady noise keeps about 40",
    ),
    "pause_tone_db": FigureStyle(
        "tone in pauses", "dB", "lower", 1, "the plainest line over what surrounds it, beyond the recording's"
    ),
    "step_db": FigureStyle(
        "step",
        "dB",
        "lower",
        1,
        "the plainest jump over what the copy has beside it and the recording within 12 ms",
    ),
    "above_band_db": FigureStyle(
        "above the source's band",
        "dB",
        "lower",
        1,
        "energy there over all of it; only where the band ends early",
    ),
    "onset_smear_db": FigureStyle(
        "onsets smeared", "dB", "lower", 1, "rise over the 4 to 16 ms before that is lost, median over onsets"
    ),
    "level_drift_db": FigureStyle(
        "level drift",
        "dB",
        "lower",
        1,
        "range of the level below 4 kHz against the recording's, in blocks of 0.4 s",
    ),
    "noise_lines_db": FigureStyle(
        "lines in noise", "dB", "lower", 1, "at multiples of the frame rate, white noise in, over the input's"
    ),
    "pre_echo_db": FigureStyle(
        "pre-echo of a click", "dB", "lower", 1, "RMS of 3 to 20 ms before it, over its peak"
    ),
    "silence_level_dbfs": FigureStyle("silence becomes", "dBFS", "lower", 1, "RMS level of digital silence"),
    "real_time_factor": FigureStyle(
        "real-time factor", "s per s", "lower", 3, "seconds of work per second of audio, mel included"
    ),
}


def over_how_many(intervals: Iterable[Interval | None]) -> str:
    """Over how many utterances the means are: one number, or one for each system where they differ."""
    counts = [interval.count for interval in intervals if interval is not None]
    return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))


def style(figure: str) -> FigureStyle:
    """The style of a figure; one that isn't known is shown by its name with three digits, lower being better."""
    return STYLES.get(figure) or FigureStyle(figure, "", "lower", 3, "")
