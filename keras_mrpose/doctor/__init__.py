"""Reports everything that is wrong with a data folder at once, where the loaders stop at the first problem."""

from keras_mrpose.doctor.checks import check_skeleton, examine

__all__ = ["check_skeleton", "examine"]
