"""Knowledge distillation: a network learns from the labels and from the heatmaps of a teacher, a trained network.

A label says one place, which another annotator would have put elsewhere. A teacher's heatmap is the mean over all
people who look alike to it: as a target it varies less, says how sure one can be, and has the joints that a data set
does not label. Zhang, Zhu and Ye, "Fast Human Pose Estimation", CVPR 2019, section 3.2, train small networks so.
"""

from __future__ import annotations

from functools import partial

import keras
from keras import ops

from keras_mrpose import skeletons
from keras_mrpose.errors import InputError
from keras_mrpose.models.fuse import inference_function


class Distillation:
    """The loss of a network that learns from labels and from a teacher.

    The teacher's heatmaps are the mean of those of an image and of its mirror image (as in a flip test), which is a
    better teacher than the network itself, so that a network can learn from itself, too.

    Args:
        teacher: a trained `PoseModel` with the network's input size and codec. Joints go by name; of joints that it
            does not have the network learns by the labels alone.
        network: the `PoseModel` to be trained.
        share: of the teacher in the loss, above 0 and at most 1; the labels have the rest.

    Raises:
        InputError: teacher and network do not fit together, or the share is none.
    """

    def __init__(self, teacher: keras.Model, network: keras.Model, share: float = 0.5):
        if not 0 < share <= 1:
            raise InputError(f"The teacher's share is {share}; give a number above 0 and at most 1.")
        _check(teacher, network)
        places = skeletons.joint_map(teacher.skeleton, network.skeleton)
        self.share = share
        self.known = [float(place >= 0) for place in places]
        self._places = [max(place, 0) for place in places]
        self._codec, self._flip_indices = teacher.codec, teacher.skeleton.flip_indices
        tensorflow = keras.backend.backend() == "tensorflow"
        self._heatmaps = inference_function(teacher) if tensorflow else partial(teacher, training=False)
        self._mse = keras.losses.MeanSquaredError()

    def __call__(self, loss_of_labels, images, heatmaps):
        """The loss of a batch, a scalar.

        The teacher's part is ``0.5 * mean over joints and pixels of (heatmap - teacher's)**2``, as `HeatmapMSE` of a
        person all of whose joints are labelled.

        Args:
            loss_of_labels: a scalar.
            images: ``(batch, height, width, 3)``, RGB 0..255.
            heatmaps: of the network, ``(batch, height / 4, width / 4, joints)``.
        """
        known = ops.convert_to_tensor(self.known, heatmaps.dtype)
        targets = ops.stop_gradient(ops.cast(self.targets(images), heatmaps.dtype))
        return (1 - self.share) * loss_of_labels + self.share * 0.5 * self._mse(known * targets, known * heatmaps)

    def targets(self, images):
        """The teacher's heatmaps ``(batch, height / 4, width / 4, joints)``, in the order of the network's joints."""
        plain, mirrored = ops.split(self._heatmaps(ops.concatenate([images, ops.flip(images, axis=2)])), 2)
        return ops.take(self._codec.merge_flipped(plain, mirrored, self._flip_indices), self._places, axis=3)


def _check(teacher: keras.Model, network: keras.Model) -> None:
    """Raise an `InputError` if a network cannot learn from a teacher."""
    if not all(hasattr(teacher, name) for name in ("skeleton", "codec", "spec")):
        raise InputError(f"The teacher {teacher!r} is no network of keras_mrpose.build; give one.")
    (_, *size, _), (_, *own, _) = teacher.input_shape, network.input_shape
    if size != own:
        raise InputError(
            f"The teacher takes crops of {size[0]}x{size[1]} (height x width) and the network of {own[0]}x{own[1]}; "
            "train at the teacher's input size."
        )
    if teacher.codec != network.codec:
        raise InputError(
            f"The teacher's heatmaps are those of {teacher.codec!r} and the network's of {network.codec!r}; train with "
            "the teacher's codec and sigma."
        )
    if not set(skeletons.joint_map(teacher.skeleton, network.skeleton)) - {-1}:
        raise InputError(
            f"The teacher's joints ({teacher.skeleton.name}) and the network's ({network.skeleton.name}) have no name "
            "in common; give a teacher that finds the same joints."
        )
    teacher.skeleton.check_mirroring("A teacher looks at mirror images, which", "no teacher")
