"""Videos and cameras: frames in, people with numbers, drawn frames out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.predict.predictor import Predictor, box_of, distinct, overlap
from keras_mrpose.predict.results import Pose
from keras_mrpose.predict.tracking import Tracker
from keras_mrpose.runtime.litert import silence_native_logs

SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg")
SAME = 0.5  # overlap (IoU) from which on a detected box is that of somebody who is followed


class Video:
    """A video file, or a camera by its number.

    Attributes:
        fps: frames a second; 30 where the file does not say.
        frames: how many there are, as the file says; 0 for a camera.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(self, source: str | Path | int):
        self.name = f"camera {source}" if isinstance(source, int) else str(source)
        if self.name.startswith(("http://", "https://")):
            raise InputError(f"The video {source} is not fetched; fetch it yourself and give the file.")
        if not isinstance(source, int) and not Path(source).is_file():
            raise InputError(f"The video {source} is not there.")
        with silence_native_logs():
            self._capture = cv2.VideoCapture(source if isinstance(source, int) else str(source))
        if not self._capture.isOpened():
            raise InputError(
                f"The {self.name} cannot be opened; is it connected, and free?"
                if isinstance(source, int)
                else f"The video {source} cannot be read; it is damaged or not a video."
            )
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < 1000 else 30.0
        self.frames = max(0, int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)))

    def __iter__(self) -> Iterator[np.ndarray]:
        """Frames ``(h, w, 3)`` uint8 RGB."""
        try:
            while (read := self._capture.read())[0]:
                yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()


class VideoWriter:
    """A video file that drawn frames go into: H.264 if PyAV is installed or OpenCV has it, else MPEG-4.

    Args:
        path: ``.mp4``.
        fps: frames a second.
    """

    def __init__(self, path: str | Path, fps: float):
        self.path, self.fps = Path(path), fps
        self.codec = ""
        self._container = self._stream = self._writer = None

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *problem) -> None:
        if self._container is not None:
            for packet in self._stream.encode():
                self._container.mux(packet)
            self._container.close()
        if self._writer is not None:
            self._writer.release()

    def write(self, frame: np.ndarray) -> None:
        """Add a frame ``(h, w, 3)`` uint8 RGB; all have the size of the first, whose sides are cut to even ones."""
        frame = np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
        if not self.codec:
            self._open(frame.shape[1], frame.shape[0])
        if self._container is not None:
            import av

            for packet in self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                self._container.mux(packet)
        else:
            self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))

    def _open(self, width: int, height: int) -> None:
        try:
            import av
        except ImportError:
            av = None
        if av is not None and "libx264" in av.codecs_available:
            with contextlib.suppress(OSError, ValueError, av.error.FFmpegError):
                container = av.open(str(self.path), "w")
                rate = Fraction(self.fps).limit_denominator(1001)
                self._stream = container.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
                self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
                container.start_encoding()
                self._container, self.codec = container, "H.264"
                return
        with silence_native_logs():
            for name, code in (("H.264", "avc1"), ("MPEG-4", "mp4v")):
                writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*code), self.fps, (width, height))
                if writer.isOpened():
                    self._writer, self.codec = writer, name
                    return
        raise InputError(f"The video {self.path} cannot be written; check the folder, and that its name ends in .mp4.")


def follow(
    predictor: Predictor,
    frames: Iterator[np.ndarray],
    fps: float,
    *,
    every: int = 5,
    smooth: bool = True,
    source: str = "",
) -> Iterator[Pose]:
    """The people of each frame in the order of the numbers that they keep.

    Args:
        predictor: finds people; without a detector it follows one person.
        frames: ``(h, w, 3)`` uint8 RGB.
        fps: frames a second.
        every: the detector (or the search) looks at every so-manieth frame; between, boxes come from the last poses.
        smooth: keypoints by `tracking.OneEuroFilter`.
        source: name of the video.
    """
    tracker = Tracker(smooth=smooth)
    last: Pose | None = None
    for number, frame in enumerate(frames):
        boxes = np.zeros((0, 4)) if last is None else boxes_of(last)
        if number % every == 0 or not len(boxes):
            pose = predictor(frame)
            missed = [box for box in boxes if not len(pose) or overlap(box, pose.boxes).max() < SAME]
            if predictor.detector is not None and missed:  # the detector misses people now and then
                followed = predictor.in_boxes(frame, np.array(missed)).above(predictor.person_threshold)
                pose = _together(pose, followed)
        else:
            pose = predictor.in_boxes(frame, boxes).above(predictor.person_threshold)
        last = tracker.update(distinct(pose), number / fps)
        last = replace(last.take(np.argsort(last.track_ids)), image=frame, source=source, frame=number)
        yield last


def boxes_of(pose: Pose) -> np.ndarray:
    """Boxes ``(people, 4)`` around people's likely keypoints, in which the next frame is looked at."""
    shape = pose.image.shape if pose.image is not None else (10**6, 10**6)
    boxes = [box_of(person, shape) for person in pose.keypoints]
    return np.reshape([box for box in boxes if box is not None], (-1, 4))


def _together(pose: Pose, other: Pose) -> Pose:
    """The people of both, of one frame."""
    parts = {
        name: np.concatenate([getattr(pose, name), getattr(other, name)])
        for name in ("keypoints", "boxes", "person_scores")
    }
    return Pose(**parts, skeleton=pose.skeleton, image=pose.image, source=pose.source)
