"""The table of annotated people that every loader returns, as flat arrays."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import COCO, LSP, MPII, Skeleton, joint_map

COLUMNS = ("image_index", "ids", "boxes", "keypoints", "reference_length", "areas", "scores", "source_index")


@dataclass(frozen=True, eq=False)
class People:
    """Annotated people. Checked once, here: what passes needs no further checks downstream.

    Args:
        source: the annotation file or folder, for messages and for the protocol of a result.
        skeleton: the joints' names and pairs.
        image_paths: ``(images,)`` file names.
        image_ids: ``(images,)`` the data set's own numbers.
        image_index: ``(people,)`` row of each person's image in `image_paths`.
        ids: ``(people,)`` the data set's own record numbers.
        boxes: ``(people, 4)`` x, y, w, h in image pixels.
        keypoints: ``(people, joints, 3)`` x, y in image pixels, v: 0 unlabelled, 1 labelled but hidden, 2 visible.
        reference_length: ``(people,)`` the length in image pixels that the data set's metric divides by and that cannot
            be computed from the joints: sqrt(area) for OKS, the head size for PCKh. (PCK's torso can.)
        areas: ``(people,)`` in square pixels.
        scores: ``(people,)`` of the boxes; 1 for annotated ones.
        protocol: by which the data set is measured: ``"ap"`` (COCO), ``"pckh"`` (MPII), ``"pck"`` (LSP); empty if
            nobody said, then it goes by the skeleton.
        source_index: ``(people,)`` of tables that were put together (`concatenate`), which of them a person is from.
        num_sources: how many tables were put together, whether or not there is anybody from each.
        left_out: why records of the source's files are not among the people -> how many; of the whole files, also where
            the table is a part of their people.
        remarks: what the loader finds odd about these files, a sentence each.
        image_sizes: ``(images, 2)`` width and height as annotated, zeros where the data set does not say: an image of
            another size is refused where it is read.
    """

    source: str
    skeleton: Skeleton
    image_paths: np.ndarray
    image_ids: np.ndarray
    image_index: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray
    keypoints: np.ndarray
    reference_length: np.ndarray
    areas: np.ndarray
    scores: np.ndarray = field(default=None)
    protocol: str = ""
    source_index: np.ndarray = field(default=None)
    num_sources: int = 1
    left_out: dict[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    image_sizes: np.ndarray = field(default=None)

    def __post_init__(self) -> None:
        people, joints = len(self.ids), self.skeleton.num_joints
        for name, filled in (("scores", np.ones), ("source_index", np.zeros)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, filled(people))
        if self.image_sizes is None:
            object.__setattr__(self, "image_sizes", np.zeros((len(self.image_paths), 2)))
        for name, kind, shape in (
            ("image_paths", str, (len(self.image_paths),)),
            ("image_ids", np.int64, (len(self.image_paths),)),
            ("image_sizes", np.int64, (len(self.image_paths), 2)),
            ("image_index", np.int64, (people,)),
            ("ids", np.int64, (people,)),
            ("keypoints", np.float64, (people, joints, 3)),
            ("boxes", np.float64, (people, 4)),  # after the keypoints, which some loaders take them from
            ("reference_length", np.float64, (people,)),
            ("areas", np.float64, (people,)),
            ("scores", np.float64, (people,)),
            ("source_index", np.int64, (people,)),
        ):
            try:
                values = np.asarray(getattr(self, name), kind)
            except (TypeError, ValueError) as error:
                raise InputError(f"{self.source}: {name} is not a table of {kind.__name__} ({error}).") from error
            if values.size == 0 and 0 in shape:
                values = values.reshape(shape)
            if values.shape != shape:
                raise InputError(f"{self.source}: {name} has shape {values.shape}, expected {shape}.")
            if kind is np.float64 and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise InputError(
                    f"{self.source}: record {self.ids[row]} has a value in {name} that is not a finite number; "
                    "fix or remove the record."
                )
            object.__setattr__(self, name, values)
        outside = (self.image_index < 0) | (self.image_index >= len(self.image_paths))
        self._refuse(outside, f"an image_index outside the {len(self.image_paths)} images")
        self._refuse(~np.isin(self.keypoints[..., 2], (0, 1, 2)).all(axis=1), "a joint flag other than 0, 1 or 2")
        self._refuse(
            (self.boxes[:, 2:] < 0).any(axis=1) | (self.boxes[:, 2:] == 0).all(axis=1), "a box of zero or negative size"
        )
        self._refuse(self.reference_length <= 0, "a reference_length (area or head size) that is not positive")

    def _refuse(self, bad: np.ndarray, what: str) -> None:
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"{self.source}: record {self.ids[row]} has {what} (box {self.boxes[row].tolist()}); "
                f"fix or remove the record ({int(bad.sum())} of {len(self)} are like this)."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        skeleton, images = self.skeleton, len(np.unique(self.image_index))
        return (
            f"<People {self._name()}: {len(self)} in {images} images, {skeleton.num_joints} joints ({skeleton.name})>"
        )

    def take(self, rows) -> People:
        """The people of these rows (indices, a slice or a mask); the image list stays."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def of_images(self, image_ids) -> People:
        """The people of these images, and no other image, for measures over whole images."""
        images = np.flatnonzero(np.isin(self.image_ids, image_ids))
        people = np.flatnonzero(np.isin(self.image_index, images))
        return replace(
            self.take(people),
            image_paths=self.image_paths[images],
            image_ids=self.image_ids[images],
            image_sizes=self.image_sizes[images],
            image_index=np.searchsorted(images, self.image_index[people]),
        )

    def with_skeleton(self, target: Skeleton) -> People:
        """The same people with the joints of another skeleton, by name; those that they do not have are unlabelled.

        Raises:
            InputError: no joint has a name in both (`skeletons.joint_map`).
        """
        if target == self.skeleton:
            return self
        index = np.array(joint_map(self.skeleton, target))
        if (index < 0).all():
            raise InputError(
                f"{self.source} has the joints {', '.join(self.skeleton.joints)}, none of which is in the skeleton "
                f"{target.name} ({', '.join(target.joints)}); give data or a skeleton that fit."
            )
        return replace(self, skeleton=target, keypoints=self.keypoints[:, index] * (index >= 0)[:, None])

    def limit(self, count: int) -> People:
        """All people of the images that the first `count` people are in, since measures are over whole images."""
        return self.of_images(self.image_ids[self.image_index[:count]])

    def account(self) -> str:
        """One line: the source, how many people there are, and who is left out and why."""
        return f"{self._name()}: {len(self)} people" + (f"; left out: {self.reasons()}" if self.left_out else "")

    def _name(self) -> str:
        """The source without its folders."""
        return " + ".join(os.path.basename(part) for part in self.source.split(" + "))

    def reasons(self) -> str:
        """Who is left out and why, such as ``12 box smaller than 2 px, 3 crowd``."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())

    def paths(self) -> np.ndarray:
        """``(people,)`` the file of each person's image."""
        return self.image_paths[self.image_index]

    def require_images(self) -> People:
        """This table, if all image files that it needs exist; else an `InputError` that names the first missing one."""
        files = self.image_paths[np.unique(self.image_index)]
        missing = [path for path in files if not os.path.isfile(path)]
        if missing:
            raise InputError(
                f"{self.source}: image {missing[0]} is missing ({len(missing)} of {len(files)} are); "
                "put it there or remove its records."
            )
        return self


def concatenate(tables: Sequence[People], source: str | None = None) -> People:
    """One table of the people of several, in their order, each with the number of its table as `source_index`.

    Args:
        tables: at least one, all of one skeleton.
        source: of the table; None joins theirs with " + ".
    """
    first, *others = tables
    if any(table.skeleton != first.skeleton for table in others):
        raise InputError("People of several skeletons cannot be put into one table; give them one (`with_skeleton`).")
    images = np.cumsum([0, *(len(table.image_paths) for table in tables)])
    columns = {name: np.concatenate([getattr(table, name) for table in tables]) for name in COLUMNS}
    columns["image_index"] = np.concatenate(
        [table.image_index + offset for table, offset in zip(tables, images[:-1], strict=True)]
    )
    columns["source_index"] = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    of_files = {table.source: table for table in tables}.values()  # two parts of a file have the same account
    left_out = sum((Counter(table.left_out) for table in of_files), Counter())
    return replace(
        first,
        source=" + ".join(table.source for table in tables) if source is None else source,
        image_paths=np.concatenate([table.image_paths for table in tables]),
        image_ids=np.concatenate([table.image_ids for table in tables]),
        image_sizes=np.concatenate([table.image_sizes for table in tables]),
        protocol="",
        num_sources=len(tables),
        left_out=dict(left_out),
        remarks=tuple(dict.fromkeys(remark for table in tables for remark in table.remarks)),
        **columns,
    )


def protocol_of(people: People) -> str:
    """Protocol by which people are measured: ``"ap"``, ``"pckh"`` or ``"pck"``.

    The loaders set it (`People.protocol`). A table made by hand goes by its skeleton: MPII's and COCO's joints by their
    data sets' protocols, joints of one's own by AP if `source` is a file, which the protocol reads once more, else by
    PCK, which needs only the people.
    """
    if people.protocol:
        return people.protocol
    if people.skeleton == MPII:
        return "pckh"
    in_coco_format = people.skeleton != LSP and Path(people.source).is_file()
    return "ap" if people.skeleton == COCO or in_coco_format else "pck"
