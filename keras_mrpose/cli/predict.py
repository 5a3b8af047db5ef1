"""`mrpose predict`: the joints of people in images."""

from __future__ import annotations

import json
from pathlib import Path

from keras_mrpose.errors import InputError


def register_parser(subparsers) -> None:
    """The options of `predict`."""
    summary = "Find the joints of people in images, draw them, and write them down."
    sub = subparsers.add_parser("predict", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument(
        "images", nargs="+", metavar="[model] image",
        help="JPEG or PNG files; before them a run folder, a .keras or an exported .tflite file (default: the network "
        "that comes with the package)",
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


def handle(args) -> None:
    """Write `NAME_joints.png` and `NAME_joints.json` for each image."""
    from PIL import Image

    from keras_mrpose.data.images import read_image
    from keras_mrpose.predict.predictor import Predictor, check_boxes
    from keras_mrpose.visualization import skeletons

    model, files = _model_and_images(args.images)
    names = [f"{Path(path).stem}_joints" for path in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"Two images would both be written to {min(twice)}.png; predict them one by one.")
    images = [(Path(path), read_image(path)) for path in files]
    for _, image in images:
        if args.box:
            check_boxes(args.box, image.shape)
    predictor = Predictor(model, flip_test=not args.no_flip)
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    for path, image in images:
        joints = predictor(image, args.box)
        drawing = skeletons.draw_skeleton(image, joints, predictor.skeleton, threshold=args.threshold)
        Image.fromarray(drawing).save(out / f"{path.stem}_joints.png")
        people = [dict(zip(predictor.skeleton.joints, person.round(3).tolist(), strict=True)) for person in joints]
        (out / f"{path.stem}_joints.json").write_text(json.dumps({"image": str(path), "people": people}, indent=2))
        confident = int((joints[..., 2] >= args.threshold).sum())
        print(
            f"{path}: {confident} of {joints[..., 2].size} joints confident -> {out / f'{path.stem}_joints.png'}, .json"
        )


def _model_and_images(given: list[str]) -> tuple[str | None, list[str]]:
    """The model, if the first of the files or folders is one or can be no image, and the images."""
    first, *others = given
    path = Path(first)
    if not (path.is_dir() or path.suffix in (".keras", ".tflite") or (others and not path.suffix)):
        return None, given
    if not others:
        raise InputError(f"{first} is a model; give images after it.")
    return first, others
