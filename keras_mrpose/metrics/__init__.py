"""PCK, PCKh and OKS-AP of predicted joints: pure functions (`functional`) and Keras metrics (`keras_metrics`)."""

from keras_mrpose.metrics.functional import (
    JOINT_SCORE_THRESHOLD,
    OKS_THRESHOLDS,
    PELVIS_AND_THORAX,
    RECALL_STEPS,
    average_precision,
    correct_joints,
    distances,
    oks,
    person_score,
    published_accuracy,
    torso_length,
)
from keras_mrpose.metrics.keras_metrics import METRIC_NAMES, OKSAP, PCK, PCKh, metric

__all__ = [
    "JOINT_SCORE_THRESHOLD",
    "METRIC_NAMES",
    "OKSAP",
    "OKS_THRESHOLDS",
    "PCK",
    "PELVIS_AND_THORAX",
    "RECALL_STEPS",
    "PCKh",
    "average_precision",
    "correct_joints",
    "distances",
    "metric",
    "oks",
    "person_score",
    "published_accuracy",
    "torso_length",
]
