"""`Pose`: the people that were found in one image, to be printed, drawn, saved, and taken on as arrays or records."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from keras_mrpose.errors import InputError
from keras_mrpose.skeletons import Skeleton
from keras_mrpose.visualization.skeletons import draw_people

if TYPE_CHECKING:
    import pandas

PERSON_THRESHOLD = 0.5  # as likely a person as not
JOINT_THRESHOLD = 0.3  # keypoints of a lower score are drawn as uncertain


@dataclass(frozen=True, eq=False)
class Pose(np.lib.mixins.NDArrayOperatorsMixin):
    """The people of one image.

    Used as an array it is `keypoints`: ``np.asarray(pose)``, ``pose[0]``, ``pose[..., :2] - truth``.

    Attributes:
        keypoints: ``(people, joints, 3)`` float64: x, y in image pixels, and the probability that the joint is there
            (of a network without a calibration the height of the heatmap's peak, about 0..1).
        boxes: ``(people, 4)`` x, y, w, h in image pixels, in which they were looked for.
        person_scores: ``(people,)`` probability that a person is there at all.
        skeleton: names and connects the joints.
        image: ``(height, width, 3)`` uint8 RGB; None if it was not kept.
        source: file, URL or other name of the image.
        track_ids: ``(people,)`` numbers that people keep from frame to frame of a video; None for single images.
        frame: number of the frame in its video, from 0; None for single images.
    """

    keypoints: np.ndarray
    boxes: np.ndarray
    person_scores: np.ndarray
    skeleton: Skeleton
    image: np.ndarray | None = None
    source: str = ""
    track_ids: np.ndarray | None = None
    frame: int | None = None

    # --- as an array --------------------------------------------------------------------------------------------------

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.array(self.keypoints, dtype) if copy else np.asarray(self.keypoints, dtype)

    def __array_ufunc__(self, ufunc, method: str, *inputs, **options):
        inputs = (np.asarray(value) if isinstance(value, Pose) else value for value in inputs)
        return getattr(ufunc, method)(*inputs, **options)

    def __getitem__(self, key) -> np.ndarray:
        return self.keypoints[key]

    def __len__(self) -> int:
        return len(self.keypoints)

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.keypoints)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(people, joints, 3)``."""
        return self.keypoints.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the keypoints, float64."""
        return self.keypoints.dtype

    @property
    def scores(self) -> np.ndarray:
        """``(people, joints)`` scores of the keypoints."""
        return self.keypoints[..., 2]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the joints."""
        return self.skeleton.joints

    def __repr__(self) -> str:
        where = f"{self.source}: " if self.source else ""
        if not len(self):
            return f"Pose({where}nobody found)"
        sure = (self.scores >= JOINT_THRESHOLD).sum(axis=1)
        people = ", ".join(
            f"{sure[row]} of {len(self.names)} joints ({self.person_scores[row]:.2f})"
            for row in range(min(len(self), 4))
        )
        more = ", ..." if len(self) > 4 else ""
        return f"Pose({where}{len(self)} {'person' if len(self) == 1 else 'people'}: {people}{more})"

    # --- who counts ---------------------------------------------------------------------------------------------------

    def take(self, rows) -> Pose:
        """The people of these rows (indices, a slice or a mask)."""
        ids = None if self.track_ids is None else self.track_ids[rows]
        parts = {name: getattr(self, name)[rows] for name in ("keypoints", "boxes", "person_scores")}
        return replace(self, **parts, track_ids=ids)

    def above(self, threshold: float = PERSON_THRESHOLD) -> Pose:
        """The people whose person score reaches a threshold."""
        return self.take(self.person_scores >= threshold)

    # --- what it is taken on as ---------------------------------------------------------------------------------------

    def draw(
        self, *, threshold: float = JOINT_THRESHOLD, boxes: bool = False, numbers: bool | None = None
    ) -> np.ndarray:
        """A copy of the image with everybody's skeleton; where there are several people, each has a colour and number.

        Args:
            threshold: keypoints of a lower score are drawn as uncertain.
            boxes: draw the boxes, too.
            numbers: whether each person has a colour and a number, or one colour for the left and one for the right;
                None: where there are several people.

        Raises:
            InputError: the image was not kept.
        """
        if self.image is None:
            raise InputError(f"The image of {self!r} was not kept, so nothing can be drawn on it; predict with it.")
        ids = range(len(self)) if self.track_ids is None else self.track_ids.tolist()
        return draw_people(
            self.image,
            self.keypoints,
            self.skeleton,
            ids if (len(self) > 1 if numbers is None else numbers) else None,
            self.boxes if boxes else None,
            threshold=threshold,
        )

    def save(self, path: str | Path, quality: int = 90, **drawing) -> None:
        """Write `draw` (``.jpg``, ``.png`` and whatever Pillow writes) or `to_dict` (``.json``).

        Args:
            path: its ending says what is written.
            quality: of a JPEG or WebP file, 1..95.
            drawing: as `draw` takes.

        Raises:
            InputError: another ending, a folder that is not there, or an image that was not kept.
        """
        path = Path(path)
        try:
            if path.suffix.lower() == ".json":
                path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
                return
            image = Image.fromarray(self.draw(**drawing))
            image.save(path, **({"quality": quality} if path.suffix.lower() in (".jpg", ".jpeg", ".webp") else {}))
        except OSError as error:
            raise InputError(f"{path} cannot be written ({error.strerror or error}).") from error
        except InputError:
            raise
        except ValueError as error:  # an ending that Pillow does not know
            raise InputError(f"{path} cannot be written ({error}); end its name in .jpg, .png or .json.") from error

    def to_dict(self) -> dict:
        """Source, joints' names, and of each person box, person score and keypoints by name; numbers for JSON."""
        people = []
        for row, person in enumerate(self.keypoints):
            about = {} if self.track_ids is None else {"track_id": int(self.track_ids[row])}
            about["box"] = [round(side, 2) for side in self.boxes[row].tolist()]
            about["score"] = round(float(self.person_scores[row]), 4)
            rounded = [[round(x, 2), round(y, 2), round(score, 4)] for x, y, score in person.tolist()]
            people.append({**about, "keypoints": dict(zip(self.names, rounded, strict=True))})
        frame = {} if self.frame is None else {"frame": self.frame}
        return {"image": self.source, **frame, "people": people}

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict]:
        """Records in the COCO results format, as `mrpose evaluate-results` reads them."""
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": person.round(4).ravel().tolist(),
                "bbox": box.round(4).tolist(),
                "score": round(float(score), 6),
            }
            for person, box, score in zip(self.keypoints, self.boxes, self.person_scores, strict=True)
        ]

    def rows(self) -> list[dict]:
        """One flat row for each keypoint: image, person, joint, x, y, score, and the person's score."""
        people = range(len(self)) if self.track_ids is None else self.track_ids.tolist()
        frame = {} if self.frame is None else {"frame": self.frame}
        return [
            {
                "image": self.source, **frame,
                "person": person, "person_score": round(float(self.person_scores[row]), 4),
                "joint": name, "x": round(x, 2), "y": round(y, 2), "score": round(score, 4),
            }
            for row, person in enumerate(people)
            for name, (x, y, score) in zip(self.names, self.keypoints[row].tolist(), strict=True)
        ]  # fmt: skip

    def to_dataframe(self) -> pandas.DataFrame:
        """`rows` as a table of pandas, which must be installed."""
        try:
            import pandas
        except ImportError:
            raise InputError("A dataframe takes pandas, which is not installed: pip install pandas.") from None
        return pandas.DataFrame(self.rows(), columns=row_fields(self.frame is not None))


def row_fields(frames: bool) -> list[str]:
    """Names of the columns of `Pose.rows`, of images or of a video's frames."""
    return ["image", *(["frame"] if frames else []), "person", "person_score", "joint", "x", "y", "score"]


def nobody(skeleton: Skeleton, **about) -> Pose:
    """A `Pose` without people."""
    return Pose(np.zeros((0, skeleton.num_joints, 3)), np.zeros((0, 4)), np.zeros(0), skeleton, **about)
