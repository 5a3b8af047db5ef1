"""The batch at which a training broke down: made again, and set aside to be looked at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import keras
import numpy as np

from keras_mrpose.data import pipeline
from keras_mrpose.data.people import People
from keras_mrpose.training.checkpointing import States, restore
from keras_mrpose.visualization import heatmaps

FILE, SHEET = "bad-batch.npz", "bad-batch.png"


@dataclass(frozen=True)
class BadBatch:
    """Writes any batch of a training aside; it depends on the seed and its place only, so none has to be kept.

    Args:
        run: the run folder.
        people: of the training.
        options: with which `pipeline.batches` makes its batches, without their place.
        states: of the training.
    """

    run: Path
    people: People
    options: dict
    states: States

    def forget(self) -> None:
        """Remove the batch of an earlier attempt."""
        for name in (FILE, SHEET):
            (self.run / name).unlink(missing_ok=True)

    def write(self, model: keras.Model, epoch: int, step: int) -> list[int]:
        """Write ``bad-batch.npz``, and ``bad-batch.png``, on which its people can be seen with their joints.

        The file has ``images`` and ``targets`` as the network got them, ``ids`` and ``image_paths`` of the people, the
        loss of each in training mode, ``losses``, and the place, ``epoch`` and ``step``, from 0. Broken weights of the
        network are replaced by those of the newest state; where there is none, the losses say nothing.

        Args:
            model: the network, whose training is over.
            epoch: from 0.
            step: of the epoch, from 0.

        Returns:
            The ids of those whose crop or target has a value that is not finite.
        """
        place = {"first_epoch": epoch, "first_step": step}
        images, targets = (part.numpy() for part in next(iter(pipeline.batches(self.people, **self.options, **place))))
        how = {name: self.options[name] for name in ("batch_size", "seed")}
        rows = pipeline.rows(self.people, **how, **place, crops=self.options.get("crops"))
        ids, paths = self.people.ids[rows], self.people.paths()[rows]
        losses = self._losses(model, images, targets)
        with (self.run / FILE).open("wb") as file:
            columns = {"images": images, "targets": targets, "ids": ids, "image_paths": paths, "losses": losses}
            np.savez_compressed(file, **columns, epoch=epoch, step=step)
        points = targets[..., :3] * (1, 1, 2)  # a weight of 1 is drawn as a visible joint
        points[..., :2] /= model.codec.scale(images.shape[1:3])
        sheet = heatmaps.contact_sheet(
            np.nan_to_num(images).clip(0, 255).astype(np.uint8),
            points,
            self.people.skeleton,
            [f"{number}: {loss:.3g}" for number, loss in zip(ids, losses, strict=True)],
        )
        cv2.imwrite(str(self.run / SHEET), sheet[..., ::-1])
        whole = np.isfinite(images).all(axis=(1, 2, 3)) & np.isfinite(targets).all(axis=(1, 2))
        return ids[~whole].tolist()

    def _losses(self, model, images, targets) -> np.ndarray:
        """``(people,)``."""
        if not all(np.isfinite(variable).all() for variable in model.variables) and (state := self.states.newest()):
            restore(model, state.variables, "model")
        maps, _ = model.stateless_call(model.trainable_variables, model.non_trainable_variables, images, training=True)
        return keras.ops.convert_to_numpy(model.loss.call(targets, maps))
