"""`mrpose demo`, in the order in which things happen: draw people, train, evaluate on unseen ones, write images."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.cli.saved_models import SAVED, run_folder

if TYPE_CHECKING:
    import numpy as np

    from keras_mrpose.data.people import People

IMAGES = {"train2017": 3000, "val2017": 60, "test2017": 300}  # drawn; about 1.9 people in each
UNSEEN = 500  # people of test2017 that the demo is evaluated on
TRAINING_SECONDS = 285  # on a slow machine the epoch running then is the last, so that the demo ends in time


def register_parser(subparsers) -> None:
    """The options of `demo`."""
    summary = "Draw people, train MRFeaNet2 on them, evaluate it on unseen people, write images. Needs no files."
    sub = subparsers.add_parser("demo", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("--quick", action="store_true", help="a minute instead of five: see that everything works")
    sub.add_argument(
        "--run", type=run_folder, metavar="NAME", default=SAVED / "demo", help="run folder (default: demo)"
    )


def handle(args) -> None:
    """Do all of it, and say what to do next; an earlier run folder is replaced."""
    from PIL import Image

    import keras_mrpose
    from keras_mrpose.cli import tables
    from keras_mrpose.evaluation import confidence
    from keras_mrpose.models.hardware import fastest_precision
    from keras_mrpose.paper.experiments import DEMO
    from keras_mrpose.visualization import curves

    begin = time.perf_counter()
    folder = args.run.parent / ("drawn-people-quick" if args.quick else "drawn-people")
    people, validation, unseen = (_drawn(folder, split, args.quick) for split in IMAGES)
    unseen = unseen.take(slice(UNSEEN))
    print(f"{len(people)} drawn people to train on, {len(unseen)} others to evaluate on, in {folder}")

    recipe = replace(DEMO.recipe, precision=fastest_precision())
    experiment = replace(DEMO, recipe=replace(recipe, epochs=1) if args.quick else recipe)
    history = keras_mrpose.train(experiment, people, validation, args.run, overwrite=True, time_limit=TRAINING_SECONDS)

    predictor = keras_mrpose.Predictor(args.run)
    if not args.quick:  # which has too few people for it; scores become probabilities, and photographs have nobody
        calibration = confidence.fit_calibration([confidence.find_labelled(predictor, validation)])
        predictor.model.calibration = calibration
        predictor.model.save(args.run / "best.keras")
    result = keras_mrpose.evaluate(predictor, unseen, protocol="pck")
    tables.print_result(result, "drawn people that the network has not seen")
    result.save(args.run / "result.json")
    curves.loss_curve(history, args.run / "loss_curve.png")
    sheet = _overlays(unseen, result.predictions.read(result.settings))
    Image.fromarray(sheet).save(args.run / "overlays.png")
    image = unseen.paths()[0]
    x, y, w, h = unseen.boxes[0].round().astype(int)
    print(
        f"\n{time.perf_counter() - begin:.0f} s. Look at\n"
        f"  {args.run / 'overlays.png'}\n  {args.run / 'loss_curve.png'}\n"
        f"and go on with\n"
        f"  {args.program} predict {args.run} {image} --box {x} {y} {w} {h}\n"
        f"  {args.program} evaluate {args.run} --data {folder}\n"
        f"  tensorboard --logdir {args.run}\n"
        f"  {args.program} train lsp-mrfeanet2 --data DIR --backbone-weights FILE --quick"
    )


def _drawn(folder: Path, split: str, quick: bool) -> People:
    """Draws one split, or takes it from an earlier demo; the splits share no image."""
    from keras_mrpose import data
    from keras_mrpose.synthetic import dataset

    first = sum(IMAGES[other] for other in list(IMAGES)[: list(IMAGES).index(split)])
    count = IMAGES[split] // (10 if quick else 1)
    dataset.write(folder, count, split=split, first_index=first)
    return data.load(folder, split)


def _overlays(people: People, predictions: np.ndarray, rows: int = 3, columns: int = 4) -> np.ndarray:
    """A sheet of the first images with everybody's predicted skeleton."""
    import numpy as np

    from keras_mrpose.data.images import read_image
    from keras_mrpose.visualization import skeletons

    images = list(dict.fromkeys(people.image_index))[: rows * columns]
    tiles = [
        skeletons.draw_skeleton(
            read_image(people.image_paths[image]), predictions[people.image_index == image], people.skeleton
        )
        for image in images
    ]
    tiles += [np.zeros_like(tiles[0])] * (rows * columns - len(tiles))
    return np.vstack([np.hstack(tiles[row * columns : (row + 1) * columns]) for row in range(rows)])
