"""Training is `model.fit`: build, compile, callbacks, and a run folder that `evaluate` and `predict` can use."""

from keras_mrpose.training.fit import build, metrics, train
from keras_mrpose.training.schedules import schedule

__all__ = ["build", "metrics", "schedule", "train"]
