"""Measures of vocoded speech against the recording it came from, one subject a file.

Every measure is a function of numpy arrays `(reference, estimate, sample_rate)` or, where no reference
is needed, `(audio, sample_rate)`. Those that `judge` takes import no torch, so worker processes start quickly. Measures
of whole sets of sounds are in `gansound.metrics.sets`.
"""
