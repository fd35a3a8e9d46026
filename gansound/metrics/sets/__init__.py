"""Measures of whole sets of sounds: how far generated ones are from real ones, how real, how various, how new."""

from gansound.metrics.sets.backbone import Backbone, LogMelBackbone
from gansound.metrics.sets.distances import frechet_distance, kernel_distance
from gansound.metrics.sets.evaluation import SetEvaluation, SetFigure, SetJudge, evaluate_sets
from gansound.metrics.sets.inception import InceptionScore, inception_score
from gansound.metrics.sets.neighbours import (
    PRDC,
    nearest_distances,
    precision_recall_density_coverage,
    told_apart,
)
from gansound.metrics.sets.quick import is_collapsed, quick_figures
from gansound.metrics.sets.texture import HearingBackbone

__all__ = [
    "PRDC",
    "Backbone",
    "HearingBackbone",
    "InceptionScore",
    "LogMelBackbone",
    "SetEvaluation",
    "SetFigure",
    "SetJudge",
    "evaluate_sets",
    "frechet_distance",
    "inception_score",
    "is_collapsed",
    "kernel_distance",
    "nearest_distances",
    "precision_recall_density_coverage",
    "quick_figures",
    "told_apart",
]
