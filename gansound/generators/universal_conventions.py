"""Which conventions a universal vocoder takes, and how long its frames last in each."""

from gansound.mel import MelSpec
from gansound.nn.istft import ISTFT

FRAME_RATES = (0.69, 1.3)
"""Of another convention, times the net's own: beyond, voices are to it such as it has hardly heard."""
FINER_RATES = (0.95, 1.3)
"""Of a convention whose frames are to be twice as many, so many then, times the net's own."""
LEAST_TOP = 0.8
"""Of what another convention tells of, up to which the net must make sound."""


def fitted(mel: MelSpec, own: MelSpec, n_fft: int, *, finer: bool) -> tuple[ISTFT, bool]:
    """The inverse STFT of a convention's frames, and whether they are made twice as many before it.

    Args:
        mel: the convention.
        own: that of training.
        n_fft: of the net, in samples of that one's rate.
        finer: it can make two frames of one.

    Raises:
        ValueError: the rate of its frames is too far from that of training, or it tells of more than the net makes.
    """
    frames_a_second, usual = (spec.sample_rate / spec.hop_length for spec in (mel, own))
    least, most = (share * usual for share in FRAME_RATES)
    halved = finer and has_too_few(mel, own)
    if not (halved or least <= frames_a_second <= most):
        half = " to ".join(f"{share * usual / 2:.3g}" for share in FINER_RATES)
        raise ValueError(
            f"mel sample_rate, hop_length: got {mel.sample_rate} Hz and {mel.hop_length}, {frames_a_second:.3g} "
            f"frames a second, expected {least:.3g} to {most:.3g}"
            f"{f', or {half} with an even hop' * finer}: this universal vocoder was trained on "
            f"{usual:.3g} and takes every convention of about as many"
        )
    hop_length = mel.hop_length // 2 if halved else mel.hop_length
    lasting = n_fft * hop_length // own.hop_length
    top_hz = n_fft // 2 * mel.sample_rate / lasting
    if top_hz < LEAST_TOP * mel.fmax:
        raise ValueError(
            f"mel fmax: got {mel.fmax:g} Hz, expected at most {top_hz / LEAST_TOP:.0f} with a hop of "
            f"{mel.hop_length} at {mel.sample_rate} Hz: this universal vocoder makes sound up to {top_hz:.0f} Hz "
            "of such frames. Take one of a higher rate, such as default-44khz"
        )
    if halved:  # two frames a quarter of a hop about the middle of each, wherever that is
        skipped = hop_length if mel.framing == "center" else 0
        istft = ISTFT(lasting, hop_length, "same", n_fft // 2 + 1, skipped)
    else:
        istft = ISTFT(lasting, hop_length, mel.framing, n_fft // 2 + 1)
    return istft, halved


def has_too_few(mel: MelSpec, own: MelSpec) -> bool:
    """Frames that are made twice as many before a net that was trained on those of another convention."""
    doubled = 2 * mel.sample_rate / mel.hop_length * own.hop_length / own.sample_rate
    return mel.hop_length % 2 == 0 and FINER_RATES[0] <= doubled <= FINER_RATES[1]
