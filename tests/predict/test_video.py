"""Videos: frames out and in again, and people who are followed with few looks of the detector."""

import sys
import weakref

import numpy as np
import pytest

from keras_mrpose.errors import InputError
from keras_mrpose.predict.results import Pose, nobody
from keras_mrpose.predict.video import Video, VideoWriter, boxes_of, follow
from keras_mrpose.skeletons import Skeleton

LINE = Skeleton("line", ("nose", "left_hip", "right_hip", "foot"), flip_pairs=((1, 2),))


def frames(count, size=(64, 96)):
    """Smooth frames ``(h, w, 3)`` that get brighter, with a colour for each corner."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    base = np.stack([columns * 150 / size[1], rows * 150 / size[0], 0 * rows + 60], axis=-1)
    return [(base + 10 * number).astype(np.uint8) for number in range(count)]


@pytest.fixture(params=["PyAV", "OpenCV"])
def backend(request, monkeypatch):
    """Each of the libraries that write."""
    if request.param == "PyAV":
        pytest.importorskip("av", reason="needs PyAV, the extra `video`")
    else:
        monkeypatch.setitem(sys.modules, "av", None)
    return request.param


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "cut"), [((64, 96), (64, 96)), ((65, 97), (64, 96)), ((62, 50), (62, 50))])
def test_what_is_written_is_read_again(backend, size, cut, tmp_path):
    """Within what the codecs lose on smooth images: some levels."""
    given = frames(7, size)
    with VideoWriter(tmp_path / "a.mp4", 12.5) as writer:
        for frame in given:
            writer.write(frame)
    assert writer.codec == ("H.264" if backend == "PyAV" else writer.codec) and writer.codec in ("H.264", "MPEG-4")
    video = Video(tmp_path / "a.mp4")
    assert (video.fps, video.frames, video.name) == (12.5, 7, str(tmp_path / "a.mp4"))
    read = list(video)
    assert len(read) == 7
    for frame, before in zip(read, given, strict=True):
        assert frame.shape == (*cut, 3) and frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - before[: cut[0], : cut[1]]).mean() < 6
    assert list(video) == []  # it is read once


def test_a_fps_that_is_no_whole_number(backend, tmp_path):
    with VideoWriter(tmp_path / "a.mp4", 30000 / 1001) as writer:
        for frame in frames(5):
            writer.write(frame)
    assert Video(tmp_path / "a.mp4").fps == pytest.approx(30000 / 1001, abs=0.01)


def test_videos_that_cannot_be_written(backend, tmp_path, capfd):
    with (
        pytest.raises(InputError, match=r"gone.a\.mp4 cannot be written"),
        VideoWriter(tmp_path / "gone" / "a.mp4", 25) as writer,
    ):
        writer.write(frames(1)[0])
    with VideoWriter(tmp_path / "empty.mp4", 25):
        pass
    assert not (tmp_path / "empty.mp4").exists()
    assert not capfd.readouterr().err


def test_videos_that_cannot_be_read(tmp_path, capfd):
    with VideoWriter(tmp_path / "a.mp4", 25) as writer:
        writer.write(frames(1)[0])
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:200])
    (tmp_path / "page.mp4").write_text("<html>not found</html>")
    (tmp_path / "empty.mp4").touch()
    for name in ("cut.mp4", "page.mp4", "empty.mp4"):
        with pytest.raises(InputError, match=rf"The video .*{name} cannot be read; it is damaged or not a video"):
            Video(tmp_path / name)
    for name in ("gone.mp4", "."):
        with pytest.raises(InputError, match="is not there"):
            Video(tmp_path / name)
    with pytest.raises(InputError, match="fetch it yourself"):
        Video("https://example.org/a.mp4")
    with pytest.raises(InputError, match="The camera 63 cannot be opened"):
        Video(63)
    assert not capfd.readouterr().err


# --- following --------------------------------------------------------------------------------------------------------


def person(x):
    """Keypoints ``(4, 3)`` of somebody around x, 40 pixels high."""
    return np.array([(x, 30, 0.9), (x + 5, 50, 0.9), (x - 5, 50, 0.9), (x, 70, 0.9)], float)


def place(frame):
    """Where two people are in a frame: they walk to the right."""
    return np.array([30 + 2 * frame, 120 + frame], float)


class Scripted:
    """A predictor that knows the truth: who is in a box is found there, exactly; the detector misses some."""

    skeleton, person_threshold = LINE, 0.5

    def __init__(self, missed=(), detector=True):
        self.frame, self.missed, self.detector = -1, dict(missed), detector or None
        self.looks, self.boxes = [], []

    def frames(self, count):
        for self.frame in range(count):
            yield np.full((100, 240, 3), self.frame, np.uint8)

    def __call__(self, image):
        assert (image == self.frame).all()
        self.looks.append(self.frame)
        people = [x for number, x in enumerate(place(self.frame)) if number not in self.missed.get(self.frame, ())]
        return self.found(image, people[: 1 if self.detector is None else 2])

    def in_boxes(self, image, boxes):
        assert (image == self.frame).all()
        self.boxes.append((self.frame, np.array(boxes)))
        middles = boxes[:, 0] + boxes[:, 2] / 2
        near = place(self.frame)[np.abs(place(self.frame)[None] - middles[:, None]).argmin(axis=1)]
        return self.found(image, [x if abs(x - middle) < 15 else None for x, middle in zip(near, middles, strict=True)])

    def found(self, image, people):
        if not people:
            return nobody(LINE, image=image)
        keypoints = np.array([person(0 if x is None else x) for x in people])
        boxes = np.array([(x - 10, 25, 20, 50) for x in (0 if x is None else x for x in people)], float)
        scores = np.array([0.1 if x is None else 0.9 for x in people])
        return Pose(keypoints, boxes, scores, LINE, image)


def test_the_detector_looks_at_every_nth_frame():
    """In between, boxes are around the last pose, and people keep their numbers."""
    scripted = Scripted()
    poses = list(follow(scripted, scripted.frames(11), 25, every=4, smooth=False, source="a.mp4"))
    assert scripted.looks == [0, 4, 8]
    assert [frame for frame, _ in scripted.boxes] == [1, 2, 3, 5, 6, 7, 9, 10]
    for frame, boxes in scripted.boxes:
        middles = np.sort(boxes[:, 0] + boxes[:, 2] / 2)
        np.testing.assert_allclose(middles, place(frame - 1))  # of the pose before
        assert (boxes[:, 1] < 30).all() and (boxes[:, 1] + boxes[:, 3] > 70).all()
    for frame, pose in enumerate(poses):
        assert (pose.frame, pose.source) == (frame, "a.mp4") and (pose.image == frame).all()
        assert pose.track_ids.tolist() == [0, 1]
        np.testing.assert_array_equal(pose[:, 0, 0], place(frame))


def test_whom_the_detector_misses_is_carried_on():
    """By the box of the pose before; the number stays. Who is not there any more is not."""
    scripted = Scripted(missed={2: (0,), 4: (0, 1), 6: (1,)})
    poses = list(follow(scripted, scripted.frames(9), 25, every=2, smooth=False))
    assert scripted.looks == [0, 2, 4, 6, 8]
    for frame, pose in enumerate(poses):
        order = np.argsort(pose[:, 0, 0])
        np.testing.assert_array_equal(pose[order, 0, 0], place(frame))
        assert pose.track_ids[order].tolist() == [0, 1]


def test_somebody_new_gets_a_number_at_the_next_look():
    scripted = Scripted(missed={0: (1,)})
    poses = list(follow(scripted, scripted.frames(6), 25, every=3))
    assert [pose.track_ids.tolist() for pose in poses] == [[0]] * 3 + [[0, 1]] * 3


def test_while_nobody_is_there_it_looks_at_every_frame():
    scripted = Scripted(missed={frame: (0, 1) for frame in range(4)})
    poses = list(follow(scripted, scripted.frames(6), 25, every=10))
    assert scripted.looks == [0, 1, 2, 3, 4]
    assert [len(pose) for pose in poses] == [0, 0, 0, 0, 2, 2]


def test_without_a_detector_one_person_is_followed():
    scripted = Scripted(detector=False)
    poses = list(follow(scripted, scripted.frames(6), 25, every=3))
    assert [pose.track_ids.tolist() for pose in poses] == [[0]] * 6 and scripted.looks == [0, 3]


def test_frames_are_not_kept():
    """Of a long video only the current frame is in memory, and the one before."""
    scripted, alive = Scripted(), []

    def watched():
        for frame in scripted.frames(40):
            alive.append(weakref.ref(frame))
            yield frame

    for _ in follow(scripted, watched(), 25):
        assert sum(reference() is not None for reference in alive) <= 3


def test_boxes_of_people():
    """Around their likely joints, not where these are too few."""
    keypoints = np.array([person(50), person(120)])
    keypoints[1, 1:, 2] = 0.1
    pose = Pose(keypoints, np.zeros((2, 4)), np.ones(2), LINE)
    ((x, y, w, h),) = boxes_of(pose)
    assert (x, y) == (45 - 1, 30 - 4) and (w, h) == (10 + 2, 40 + 8)  # a tenth of the sides, of 10 and of 40 / 4
    assert boxes_of(pose.take([])).shape == (0, 4)
