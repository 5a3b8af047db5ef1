"""Everything that is wrong with a data folder, told at once, where the loaders stop at the first mistake."""

from keras_mrpose.doctor.examination import check_skeleton, examine

__all__ = ["check_skeleton", "examine"]
