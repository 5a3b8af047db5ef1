"""`mrpose evaluate-results`: a data set's numbers for predictions in a file, of any program."""

from __future__ import annotations

from pathlib import Path

from keras_mrpose.cli.data_options import add_data, add_skeleton, skeleton_file, split_of
from keras_mrpose.errors import InputError


def register_parser(subparsers) -> None:
    """The options of `evaluate-results`."""
    summary = "Measure the predictions in a file, of any program, by COCO's or MPII's protocol."
    sub = subparsers.add_parser("evaluate-results", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("file", help="COCO results (.json) or MPII predictions (.mat), of any program")
    add_data(sub, required=False)
    sub.add_argument("--annotations", metavar="FILE", help="instead of --data: a person_keypoints_*.json")
    add_skeleton(sub)
    sub.add_argument(
        "--faster", action="store_true",
        help="the ten numbers of COCO alone, by faster-coco-eval: the same, in a third of the time",
    )  # fmt: skip


def handle(args) -> None:
    """Print the numbers; nothing is written."""
    from rich.console import Console

    from keras_mrpose.cli import tables
    from keras_mrpose.data import coco as coco_data
    from keras_mrpose.data import json_stream
    from keras_mrpose.evaluation import coco, mpii

    file = Path(args.file)
    if file.suffix == ".mat":
        if not args.data:
            raise InputError(f"{file} holds predictions for MPII; give --data DIR with annot/gt_valid.mat.")
        split = {"val": "valid"}.get(split_of(args), args.split)
        truth = mpii.read_truth(Path(args.data) / "annot" / f"gt_{split}.mat")
        Console().print(tables.pckh_table(mpii.pckh(mpii.read_predictions(file), truth).to_dict()))
        return
    if not (args.annotations or args.data):
        raise InputError(f"{file} needs COCO annotations to be evaluated; give --annotations FILE, or --data DIR.")
    annotations = args.annotations or coco_data.annotation_file(args.data, split_of(args))
    results = json_stream.read(file, "give results in COCO's format")
    skeleton = coco_data.skeleton_in(annotations, skeleton_file(args))
    truth = coco_data.ground_truth(annotations, skeleton)
    coco.check_results(results, str(file), (image["id"] for image in truth["images"]), skeleton)
    if not results:
        raise InputError(f"{file} holds no results, so that there is nothing to evaluate.")
    evaluation = coco.run_cocoeval(truth, results, skeleton=skeleton, faster=args.faster)
    ten, title = coco.coco_stats(evaluation), f"{file} on {annotations}"
    if ten["AP"] == -1:
        raise InputError(f"{annotations} has nobody with keypoints, so that there is no AP; give another file.")
    if args.faster:
        tables.print_ten(ten, title)
    else:
        tables.print_coco(ten, *coco.joint_oks(evaluation, skeleton), title)
