"""`mrpose predict`: the joints of people in images."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from keras_mrpose.predict.predictor import Predictor


def register_parser(subparsers) -> None:
    """The options of `predict`."""
    summary = "Find the joints of people in images, draw them, and write them down."
    sub = subparsers.add_parser("predict", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument(
        "images", nargs="+", metavar="[model] image",
        help="image files; before them a run folder, a .keras or an exported .tflite file (default: the network that "
        "comes with the package)",
    )  # fmt: skip
    sub.add_argument(
        "--box", type=float, nargs=4, action="append", metavar=("X", "Y", "W", "H"),
        help="a person, in pixels; repeat for more people (default: the whole image is one person's box)",
    )  # fmt: skip
    sub.add_argument("--out", metavar="DIR", default="predictions", help="folder for the drawings and joints")
    sub.add_argument(
        "--threshold", type=float, default=0.3, metavar="S", help="joints below this score count as uncertain"
    )
    sub.add_argument("--no-flip", action="store_true", help="without the flip test: half the time")


def handle(args) -> int:
    """Write `NAME_joints.png` and `NAME_joints.json` for each image; the exit code is 1 if some cannot be predicted."""
    from keras_mrpose.data.images import read_image
    from keras_mrpose.predict.predictor import Predictor, check_boxes

    model, files = _model_and_images(args.images)
    predictor, refused = None, []
    for path, name in _output_names(files).items():
        try:
            image = read_image(path)
            if args.box:
                check_boxes(args.box, image.shape)
        except InputError as error:
            refused.append(error if path in str(error) else InputError(f"{path}: {error}"))
            continue
        predictor = predictor or Predictor(model, flip_test=not args.no_flip)
        _write(path, image, predictor(image, args.box), predictor, Path(args.out, f"{name}_joints"), args.threshold)
    if not refused:
        return 0
    if len(files) == 1:
        raise refused[0]
    print(f"{len(refused)} of {len(files)} images are not predicted:", *refused, sep="\n  ", file=sys.stderr)
    return 2 if predictor is None else 1


def _write(path: str, image: np.ndarray, joints: np.ndarray, predictor: Predictor, out: Path, threshold: float) -> None:
    """The drawing, the joints, and a line on the terminal."""
    from PIL import Image

    from keras_mrpose.visualization import skeletons

    out.parent.mkdir(parents=True, exist_ok=True)
    drawing, written = f"{out}.png", Path(f"{out}.json")
    Image.fromarray(skeletons.draw_skeleton(image, joints, predictor.skeleton, threshold=threshold)).save(drawing)
    people = [dict(zip(predictor.skeleton.joints, person.round(3).tolist(), strict=True)) for person in joints]
    written.write_text(json.dumps({"image": str(path), "people": people}, indent=2))
    confident = int((joints[..., 2] >= threshold).sum())
    print(f"{path}: {confident} of {joints[..., 2].size} joints confident -> {drawing}, .json")


def _output_names(files: list[str]) -> dict[str, str]:
    """The output of each image, relative and without suffix: its name; where two have one name, all keep the folders
    below the one that they share, and where that is not enough, their suffixes, too.
    """
    files = list({os.path.abspath(file): file for file in files}.values())
    shared = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    relative = [Path(os.path.relpath(os.path.abspath(file), shared)) for file in files]
    for names in ([path.stem for path in relative], [path.with_suffix("").as_posix() for path in relative]):
        if len(set(names)) == len(files):
            return dict(zip(files, names, strict=True))
    return dict(zip(files, [path.as_posix() for path in relative], strict=True))


def _model_and_images(given: list[str]) -> tuple[str | None, list[str]]:
    """The model, if the first of the files or folders is one or can be no image, and the images."""
    first, *others = given
    path = Path(first)
    if not (path.is_dir() or path.suffix in (".keras", ".tflite") or (others and not path.suffix)):
        return None, given
    if not others:
        raise InputError(f"{first} is a model; give images after it.")
    return first, others
