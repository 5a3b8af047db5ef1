"""`mrpose predict`: the joints of people in photos, folders, videos."""

from __future__ import annotations

import contextlib
import csv
import glob
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from keras_mrpose.predict.predictor import Predictor
    from keras_mrpose.predict.results import Pose

SAVES = ("images", "json", "csv", "coco")


def register_parser(subparsers) -> None:
    """The options of `predict`."""
    summary = "Find the joints of people in photos, folders and videos; draw them and write them down."
    sub = subparsers.add_parser("predict", help=summary, description=summary)
    sub.set_defaults(handle=handle)
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


def handle(args) -> int:
    """Write drawings and keypoints; images that cannot be read are listed, and the exit code is then 1."""
    from keras_mrpose.predict import sources
    from keras_mrpose.predict.detectors import BoxesFile, detector

    saves = [kind.strip() for kind in args.save.split(",") if kind.strip()]
    if unknown := set(saves) - set(SAVES):
        raise InputError(f"--save has {min(unknown)!r}; give some of {','.join(SAVES)}.")
    model, given = _model_and_sources(args.sources)
    names = sources.expand(given)
    boxes_file = None
    if args.detector and Path(args.detector).suffix.lower() in (".json", ".csv"):
        boxes_file = BoxesFile(args.detector)
    find = detector(args.detector) if args.detector and boxes_file is None else None
    predictor = _predictor(model, args, find)
    if not args.detector and not args.box:
        print("no detector: one person is looked for in each image; --detector FILE finds everybody")

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    mistakes = []
    with _Output(out, saves, predictor.skeleton, args) as output:
        images = [name for name in names if not sources.is_video(name)]
        for name, image in sources.ahead(sources.read_source, images):
            try:
                if isinstance(image, InputError):
                    raise image
                output.image(_pose(predictor, image, name, args, boxes_file))
            except InputError as mistake:
                mistakes.append(f"{mistake}")
                print(f"error: {mistake}", file=sys.stderr)
        for name in names:
            if sources.is_video(name):
                try:
                    output.video(name, _follow(predictor, name, args))
                except InputError as mistake:
                    mistakes.append(f"{mistake}")
                    print(f"error: {mistake}", file=sys.stderr)
    if len(mistakes) == len(names) == 1:
        return 2
    if mistakes:
        print(f"{len(names) - len(mistakes)} of {len(names)} done; not done:", *mistakes, sep="\n  ", file=sys.stderr)
        return 1
    return 0


def _predictor(model: str | None, args, find) -> Predictor:
    from keras_mrpose.predict.predictor import Predictor

    return Predictor(model, flip_test=args.flip, detector=find, person_threshold=args.person_threshold)


def _pose(predictor: Predictor, image, name: str, args, boxes_file) -> Pose:
    """The people of one image, by whatever says where they are."""
    from dataclasses import replace

    if boxes_file is not None:
        boxes, scores = boxes_file.of(name)
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
    """The video's frames a second, and the people of its frames one after the other."""
    from keras_mrpose.predict import sources, video

    opened = video.Video(int(name) if sources.is_camera(name) else name)
    poses = video.follow(
        predictor, iter(opened), opened.fps, every=args.every, smooth=not args.no_smooth, source=opened.name
    )
    return opened, poses


class _Output:
    """What is written: drawings by threads of their own, keypoints line by line, so that nothing piles up."""

    def __init__(self, folder: Path, saves: list[str], skeleton, args):
        self.folder, self.saves, self.args, self.skeleton = folder, saves, args, skeleton
        self._files = contextlib.ExitStack()
        self._used: dict[str, int] = {}
        self._first, self._images = {"json": True, "coco": True}, 0
        self._pool, self._pending = ThreadPoolExecutor(1), []

    def __enter__(self) -> _Output:
        for kind, name in (("json", "keypoints.json"), ("csv", "keypoints.csv"), ("coco", "coco_results.json")):
            if kind in self.saves:
                stream = self._files.enter_context((self.folder / name).open("w", newline="", encoding="utf-8"))
                setattr(self, f"_{kind}", stream)
                if kind != "csv":
                    stream.write("[")
        return self

    def __exit__(self, kind, *problem) -> None:
        for future in self._pending:
            future.result()
        self._pool.shutdown()
        for name in ("json", "coco"):
            if name in self.saves:
                getattr(self, f"_{name}").write("\n]\n")
        self._files.close()

    def image(self, pose: Pose) -> None:
        """One image: its drawing is on its way, its keypoints are written, its line is printed."""
        written = ""
        if "images" in self.saves:
            path = self.folder / f"{self._name_of(pose.source)}_joints.jpg"
            self._drawn(pose, path)
            written = f" -> {path}"
        self._write(pose)
        print(f"{pose.source}: {summary(pose, self.args.threshold)}{written}")

    def video(self, name: str, opened_and_poses: tuple) -> None:
        """A video: its drawn frames, and the keypoints of each."""
        from rich.progress import Progress

        from keras_mrpose.predict.video import VideoWriter

        opened, poses = opened_and_poses
        path = self.folder / f"{self._name_of(name)}_joints.mp4"
        frames, people = 0, set()
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(VideoWriter(path, opened.fps)) if "images" in self.saves else None
            progress = stack.enter_context(Progress(transient=True))
            task = progress.add_task(name, total=opened.frames or None)
            with contextlib.suppress(KeyboardInterrupt):  # a camera has no end of its own
                for pose in poses:
                    if writer is not None:
                        writer.write(pose.draw(threshold=self.args.threshold, boxes=self.args.draw_boxes))
                    self._write(pose)
                    people.update(pose.track_ids.tolist())
                    frames += 1
                    progress.update(task, advance=1)
        if not frames:
            raise InputError(f"The video {name} has no frame that can be read.")
        written = "" if writer is None else f" -> {path} ({writer.codec})"
        print(f"{name}: {frames} frames, {len(people)} {'person' if len(people) == 1 else 'people'}{written}")

    def _drawn(self, pose: Pose, path: Path) -> None:
        def save():
            pose.save(path, self.args.quality, threshold=self.args.threshold, boxes=self.args.draw_boxes)

        while len(self._pending) > 2:  # as many images as wait to be written
            self._pending.pop(0).result()
        self._pending.append(self._pool.submit(save))

    def _write(self, pose: Pose) -> None:
        if "json" in self.saves:
            self._record("json", pose.to_dict())
        if "csv" in self.saves:
            writer = csv.DictWriter(self._csv, pose.row_fields)
            if self._csv.tell() == 0:
                writer.writeheader()
            writer.writerows(pose.rows())
        if "coco" in self.saves:
            self._images += 1
            stem = Path(pose.source).stem
            for record in _as_coco(pose).to_coco(int(stem) if stem.isdecimal() else self._images):
                self._record("coco", record)

    def _record(self, kind: str, content: dict) -> None:
        stream = getattr(self, f"_{kind}")
        stream.write(("\n" if self._first[kind] else ",\n") + json.dumps(content))
        self._first[kind] = False

    def _name_of(self, source: str) -> str:
        """The name of what is written for a source; a second one of the same name gets a number."""
        stem = "stdin" if source == "-" else Path(source.partition("?")[0]).stem or "image"
        self._used[stem] = self._used.get(stem, 0) + 1
        return stem if self._used[stem] == 1 else f"{stem}_{self._used[stem]}"


def _as_coco(pose: Pose) -> Pose:
    """The people with COCO's joints where the network knows all of them, since evaluations of COCO expect these."""
    from dataclasses import replace

    from keras_mrpose.skeletons import COCO, joint_map

    index = list(joint_map(pose.skeleton, COCO))
    return pose if min(index) < 0 else replace(pose, keypoints=pose.keypoints[:, index], skeleton=COCO)


def summary(pose: Pose, threshold: float) -> str:
    """Who was found in an image, in one line."""
    if not len(pose):
        return "nobody found"
    people = f"{len(pose)} {'person' if len(pose) == 1 else 'people'}"
    sure = int((pose.scores >= threshold).sum())
    return f"{people}, {sure} of {pose.scores.size} joints confident"


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
