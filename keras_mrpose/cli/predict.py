"""`mrpose predict`: the joints of people in photos, folders, videos."""

from __future__ import annotations

import contextlib
import csv
import glob
import itertools
import json
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from keras_mrpose.predict.predictor import Predictor
    from keras_mrpose.predict.results import Pose
    from keras_mrpose.predict.video import Video

FILES = {"json": "keypoints.json", "csv": "keypoints.csv", "coco": "coco_results.json"}
SAVES = ("images", *FILES)


def register_parser(subparsers) -> None:
    """The options of `predict`."""
    summary = "Find the joints of people in photos, folders and videos; draw them and write them down."
    sub = subparsers.add_parser("predict", help=summary, description=summary)
    sub.set_defaults(handle=handle, needs_tensorflow=needs_tensorflow)
    sub.add_argument(
        "sources", nargs="+", metavar="[model] source",
        help="image files, folders, patterns ('photos/*.jpg'), URLs, - (standard input), videos, or a camera's number; "
        "before them a run folder, a .keras or an exported .tflite file (default: the network of the package)",
    )  # fmt: skip
    who = sub.add_mutually_exclusive_group()
    who.add_argument(
        "--detector", metavar="D",
        help="finds people: a .tflite file, keras_hub:NAME, or a file of boxes, .json (COCO results) or .csv "
        "(image,x,y,w,h,score); default: one person is looked for in each image",
    )  # fmt: skip
    who.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("X", "Y", "W", "H"),
        help="a person, in pixels; repeat for more people",
    )  # fmt: skip
    sub.add_argument(
        "--detector-range", type=float, nargs=2, metavar=("BLACK", "WHITE"), default=(0.0, 255.0),
        help="what a .tflite detector with a float input wants for black and white, such as -1 1 (default: 0 255)",
    )  # fmt: skip
    sub.add_argument("--out", metavar="DIR", default="predictions", help="folder of what is written")
    sub.add_argument(
        "--save", metavar="WHAT", default="images,json",
        help=f"what is written, of {','.join(SAVES)} (default: images,json): drawings, and keypoints in one file",
    )  # fmt: skip
    sub.add_argument("--quality", type=int, default=90, metavar="Q", help="of drawn JPEG files, 1 to 95")
    sub.add_argument("--draw-boxes", action="store_true", help="draw the boxes, too")
    sub.add_argument(
        "--threshold", type=float, default=0.3, metavar="S", help="joints below this score count as uncertain"
    )
    sub.add_argument(
        "--person-threshold", type=float, default=0.5, metavar="S",
        help="who has a lower person score is nobody (default: 0.5, as likely a person as not)",
    )  # fmt: skip
    sub.add_argument("--every", type=int, default=5, metavar="N", help="of videos: detect in every N-th frame")
    sub.add_argument("--no-smooth", action="store_true", help="of videos: keypoints as they are found")
    flip = sub.add_mutually_exclusive_group()
    flip.add_argument("--flip", action="store_true", help="with the flip test: twice the time, a little more accurate")
    flip.add_argument("--no-flip", action="store_true", help="without the flip test (default)")


def needs_tensorflow(args) -> bool:
    """Whether the networks that are asked for run in Keras; exported ones do not."""
    from keras_mrpose.runtime import litert

    model, _ = _model_and_sources(args.sources)
    exported = litert.is_installed() if model is None else Path(model).suffix == ".tflite"
    return not exported or str(args.detector).startswith("keras_hub:")


def handle(args) -> int:
    """Write drawings and keypoints; 1 if some sources could not be read (they are listed), 2 if none could."""
    from keras_mrpose.predict import sources
    from keras_mrpose.predict.detectors import BoxesFile, detector

    saves = _checked(args)
    model, given = _model_and_sources(args.sources)
    names = sources.expand(given)
    boxes_file = None
    if args.detector and Path(args.detector).suffix.lower() in (".json", ".csv"):
        boxes_file = BoxesFile(args.detector)
    if (args.box or boxes_file) and any(map(sources.is_video, names)):
        raise InputError("--box and a file of boxes are of images; give a detector for a video, or nothing.")
    find = None
    if args.detector and boxes_file is None:
        find = detector(args.detector, value_range=tuple(args.detector_range))

    def read(name: str):
        return None if sources.is_video(name) else sources.read_source(name)

    predictor, refused = None, []
    with _Output(names, saves, args) as output:
        for name, image in sources.ahead(read, names):
            if isinstance(image, InputError):
                refused.append(image)
                continue
            predictor = predictor or _predictor(model, args, find)
            try:
                if image is None:
                    output.video(name, *_follow(predictor, name, args), numbers=find is not None)
                else:
                    output.image(_pose(predictor, image, name, args, boxes_file))
            except InputError as mistake:
                refused.append(mistake)
    if len(refused) == len(names) == 1:
        raise refused[0]
    if refused:
        print(f"{len(refused)} of {len(names)} could not be done:", *refused, sep="\n  ", file=sys.stderr)
    return 0 if not refused else 1 if len(refused) < len(names) else 2


def _checked(args) -> list[str]:
    """What is to be written; options that cannot be are mistakes."""
    saves = [kind.strip() for kind in args.save.split(",") if kind.strip()]
    if not saves or (unknown := set(saves) - set(SAVES)):
        raise InputError(f"--save has {min(unknown) if saves else ''!r}; give some of {','.join(SAVES)}.")
    if not 1 <= args.quality <= 95:
        raise InputError(f"--quality is {args.quality}; give a number from 1 to 95.")
    if args.every < 1:
        raise InputError(f"--every is {args.every}; give a number of at least 1.")
    return saves


def _predictor(model: str | None, args, find) -> Predictor:
    from keras_mrpose.predict.predictor import Predictor

    predictor = Predictor(model, flip_test=args.flip, detector=find, person_threshold=args.person_threshold)
    if not args.detector and not args.box:
        print("no detector: one person is looked for in each image; --detector FILE finds everybody")
    return predictor


def _pose(predictor: Predictor, image, name: str, args, boxes_file) -> Pose:
    """The people of one image, by whatever says where they are."""
    if boxes_file is not None:
        boxes, scores = boxes_file.of(name)
        if not len(boxes):
            print(f"{name}: no box in {args.detector}")
        pose = predictor.in_boxes(image, boxes, scores).above(args.person_threshold)
    elif args.box:
        pose = predictor.in_boxes(image, args.box)
        for box, score in zip(pose.boxes, pose.person_scores, strict=True):
            if score < args.person_threshold:
                print(f"{name}: nobody in the box {' '.join(f'{side:g}' for side in box)} (person score {score:.2f})")
        pose = pose.above(args.person_threshold)
    else:
        pose = predictor(image)
    return replace(pose, source=name)


def _follow(predictor: Predictor, name: str, args):
    """The opened video, and the people of its frames one after the other."""
    from keras_mrpose.predict import sources, video

    opened = video.Video(int(name) if sources.is_camera(name) else name)
    frames = sources.one_ahead(opened)
    poses = video.follow(predictor, frames, opened.fps, every=args.every, smooth=not args.no_smooth, source=opened.name)
    return opened, poses


class _Output:
    """What is written: drawings by a thread of its own, keypoints record by record, so that nothing piles up.

    Nothing is there before the first result.
    """

    def __init__(self, names: list[str], saves: list[str], args):
        from keras_mrpose.predict import sources
        from keras_mrpose.predict.results import row_fields

        self.folder, self.saves, self.args = Path(args.out), saves, args
        self._files, self._streams = contextlib.ExitStack(), {}
        self._used: set[str] = set()
        self._started: set[str] = set()  # files that have a record
        self._pool, self._pending = ThreadPoolExecutor(1), []
        self._fields = row_fields(any(map(sources.is_video, names)))  # of the CSV file, for images and frames alike
        stems = {name: Path(name).stem for name in names if not sources.is_video(name)}
        numbers = {int(stem): name for name, stem in reversed(stems.items()) if stem.isdecimal()}
        self._ids = {name: number for number, name in numbers.items()}
        self._free_ids = (number for number in itertools.count(1) if number not in numbers)

    def __enter__(self) -> _Output:
        return self

    def __exit__(self, *problem) -> None:
        try:
            self._wait()
        finally:
            self._pool.shutdown()
            for kind, stream in self._streams.items():
                stream.write("" if kind == "csv" else "\n]\n")
            self._files.close()

    def image(self, pose: Pose) -> None:
        """One image: its drawing is on its way, its keypoints are written, its line is printed."""
        self._open()
        written = ""
        if "images" in self.saves:
            path = self.folder / f"{self._name_of(pose.source)}_joints.jpg"
            self._later(lambda: pose.save(path, self.args.quality, **self._style))
            written = f" -> {path}"
        self._write(pose)
        print(f"{pose.source}: {summary(pose, self.args.threshold)}{written}")

    def video(self, name: str, opened: Video, poses: Iterable[Pose], numbers: bool) -> None:
        """A video: its drawn frames, and the keypoints of each."""
        from rich.console import Console
        from rich.progress import Progress

        from keras_mrpose.predict import sources
        from keras_mrpose.predict.video import VideoWriter

        self._open()
        path = self.folder / f"{self._name_of(name)}_joints.mp4"
        frames, people = 0, set()
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(VideoWriter(path, opened.fps)) if "images" in self.saves else None
            stack.callback(self._wait)
            bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
            progress = stack.enter_context(bar)
            task = progress.add_task(name, total=opened.frames or None)
            if sources.is_camera(name):  # which has no end of its own
                stack.enter_context(contextlib.suppress(KeyboardInterrupt))
            for pose in poses:
                if writer is not None:
                    self._later(lambda pose=pose: writer.write(pose.draw(numbers=numbers, **self._style)))
                self._write(pose)
                people.update(pose.track_ids.tolist())
                frames += 1
                progress.update(task, advance=1)
        if not frames:
            raise InputError(f"The video {name} has no frame that can be read.")
        written = "" if writer is None else f" -> {path} ({writer.codec})"
        print(f"{name}: {_counted(frames, 'frame', 'frames')}, {_counted(len(people), 'person', 'people')}{written}")

    def _open(self) -> None:
        """The folder and the files of keypoints, at the first result."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for kind, name in FILES.items():
            if kind in self.saves and kind not in self._streams:
                stream = self._files.enter_context((self.folder / name).open("w", newline="", encoding="utf-8"))
                self._streams[kind] = stream
                if kind == "csv":
                    csv.DictWriter(stream, self._fields).writeheader()
                else:
                    stream.write("[")

    @property
    def _style(self) -> dict:
        """How people are drawn."""
        return {"threshold": self.args.threshold, "boxes": self.args.draw_boxes}

    def _later(self, work: Callable[[], None]) -> None:
        """Draw and write one image or frame by the thread, in order."""
        self._wait(2)
        self._pending.append(self._pool.submit(work))

    def _wait(self, left: int = 0) -> None:
        """Wait until no more than so many images wait to be written."""
        while len(self._pending) > left:
            self._pending.pop(0).result()

    def _write(self, pose: Pose) -> None:
        if "json" in self.saves:
            self._record("json", pose.to_dict())
        if "csv" in self.saves:
            csv.DictWriter(self._streams["csv"], self._fields).writerows(pose.rows())
        if "coco" in self.saves:
            number = self._ids.pop(pose.source, None)
            about = {} if number is not None else {"file_name": pose.source}
            number = next(self._free_ids) if number is None else number
            frame = {} if pose.frame is None else {"frame": pose.frame}
            for record in _as_coco(pose).to_coco(number):
                self._record("coco", {**record, **about, **frame})

    def _record(self, kind: str, content: dict) -> None:
        self._streams[kind].write((",\n" if kind in self._started else "\n") + json.dumps(content))
        self._started.add(kind)

    def _name_of(self, source: str) -> str:
        """The name of what is written for a source; a second one of the same name gets a number."""
        from keras_mrpose.predict import sources

        path = source.partition("?")[0] if sources.is_url(source) else source
        stem = "stdin" if source == "-" else Path(path).stem or "image"
        stem = f"camera_{stem}" if sources.is_camera(source) else stem
        names = itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
        name = next(name for name in names if name.lower() not in self._used)
        self._used.add(name.lower())
        return name


def _as_coco(pose: Pose) -> Pose:
    """The people with COCO's joints where the network knows all of them, since evaluations of COCO expect these."""
    from keras_mrpose.skeletons import COCO, joint_map

    index = list(joint_map(pose.skeleton, COCO))
    return pose if min(index) < 0 else replace(pose, keypoints=pose.keypoints[:, index], skeleton=COCO)


def summary(pose: Pose, threshold: float) -> str:
    """Who was found in an image, in one line."""
    if not len(pose):
        return "nobody found"
    sure = int((pose.scores >= threshold).sum())
    return f"{_counted(len(pose), 'person', 'people')}, {sure} of {pose.scores.size} joints confident"


def _counted(number: int, one: str, several: str) -> str:
    return f"{number} {one if number == 1 else several}"


def _model_and_sources(given: list[str]) -> tuple[str | None, list[str]]:
    """The model, if the first of the sources is one, and the images."""
    from keras_mrpose.predict import sources
    from keras_mrpose.predict.predictor import CHECKPOINTS

    first, *others = given
    path = Path(first)
    is_run = path.is_dir() and any((path / name).exists() for name in CHECKPOINTS)
    image = first == "-" or path.exists() or bool(path.suffix) or sources.is_camera(first) or sources.is_url(first)
    gone = bool(others) and not image and not glob.has_magic(first)
    if not (is_run or path.suffix in (".keras", ".tflite") or gone):
        return None, given
    if not others:
        raise InputError(f"{first} is a model; give images after it.")
    return first, others
