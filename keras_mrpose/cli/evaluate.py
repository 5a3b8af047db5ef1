"""`mrpose evaluate`: a data set's numbers for a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from keras_mrpose.cli.data_options import add_data, limit, require_writable, split_of
from keras_mrpose.errors import InputError

if TYPE_CHECKING:
    from keras_mrpose.data.people import People
    from keras_mrpose.predict.predictor import Predictor
    from keras_mrpose.skeletons import Skeleton

ANNOTATED = "gt"  # what --boxes calls them


def register_parser(subparsers) -> None:
    """The options of `evaluate`."""
    summary = "Measure a network by the protocol of the data set: COCO's AP, MPII's PCKh, LSP's PCK."
    sub = subparsers.add_parser("evaluate", help=summary, description=summary)
    sub.set_defaults(handle=handle)
    sub.add_argument("model", help="run folder, .keras file, or exported .tflite file")
    add_data(sub)
    sub.add_argument("--boxes", default="gt", metavar="gt|FILE", help="annotated (default), or a detector's, COCO JSON")
    sub.add_argument("--box-threshold", type=float, metavar="S", help="least score of a detector's box")
    sub.add_argument("--images-with-boxes", action="store_true", help="only images for which the file has boxes")
    sub.add_argument("--no-flip", action="store_true", help="without the flip test")
    sub.add_argument("--codec", help="that reads the heatmaps: gaussian, dark or udp (default: the network's)")
    sub.add_argument("--suppression", default="hard", help="COCO: OKS-NMS, hard (default), soft or none")
    sub.add_argument("--oks-threshold", type=float, default=0.9, metavar="T", help="COCO: of the NMS (default 0.9)")
    sub.add_argument("--joint-threshold", type=float, default=0.2, metavar="S", help="COCO: of rescoring (default 0.2)")
    sub.add_argument("--threshold", type=float, default=0.2, metavar="R", help="PCK: share of the torso (default 0.2)")
    sub.add_argument("--protocol", help="ap, pckh or pck (default: the data set's own)")
    sub.add_argument("--people", type=int, metavar="N", help="only the images of the first N people")
    sub.add_argument(
        "--bootstrap",
        type=int,
        default=0,
        metavar="N",
        help="95 %% interval of the number, from N draws (such as 1000)",
    )
    sub.add_argument("--no-diagnosis", action="store_true", help="do not class the errors")
    sub.add_argument("--format-only", action="store_true", help="only write the results file for COCO's server")
    sub.add_argument("--out", metavar="FILE", help="result file (default: result.json beside the network)")


def handle(args) -> None:
    """Measure a network, print it and write it down; or, with --format-only, write what it found for a server."""
    import keras_mrpose
    from keras_mrpose.cli import tables
    from keras_mrpose.visualization.curves import write_diagnosis

    model = Path(args.model)
    folder = model if model.is_dir() else model.parent
    if args.boxes == ANNOTATED and (args.images_with_boxes or args.box_threshold is not None):
        raise InputError("--images-with-boxes and --box-threshold are for a detector's boxes; give --boxes FILE.")
    args.split = split_of(args, model)
    name = f"person_keypoints_{args.split}_results.json" if args.format_only else "result.json"
    forms = f"{model.stem}." if model.suffix == ".tflite" else ""  # several exported networks share a folder
    out = Path(args.out or folder / f"{forms}{name}")
    require_writable("--out", out, ".json")
    predictor = keras_mrpose.Predictor(model, flip_test=not args.no_flip, codec=args.codec)
    if args.format_only:
        print(f"{_write_results(predictor, args, out)} people written to {out}")
        return
    people, truth = _tables(args, predictor.skeleton)
    result = keras_mrpose.evaluate(
        predictor,
        people,
        truth,
        protocol=args.protocol,
        diagnose=not args.no_diagnosis,
        bootstrap=args.bootstrap,
        command=args.command_line,
        **_chosen(args),
    )
    tables.print_result(result, f"{model} on {result.protocol['data']['annotations']}")
    result.save(out)
    print(f"written to {out}; raw predictions beside it")
    if result.diagnosis and (folder / "logs").is_dir():
        write_diagnosis(folder / "logs" / "diagnosis", result.diagnosis, result.metric)


def _chosen(args) -> dict:
    """The settings that are options."""
    return {name: getattr(args, name) for name in ("suppression", "oks_threshold", "joint_threshold", "threshold")}


def _tables(args, skeleton: Skeleton) -> tuple[People, People]:
    """Whose boxes are cropped, and the annotated people; the same table for annotated boxes."""
    truth = _annotated(args, skeleton, require_images=args.boxes == ANNOTATED)
    if args.boxes == ANNOTATED:
        truth = limit(truth, args.people)
        return truth, truth
    people, truth = _detected(args, skeleton), limit(truth, args.people)
    if args.images_with_boxes:
        truth = truth.of_images(people.image_ids[people.image_index])
    return people.of_images(truth.image_ids), truth


def _annotated(args, skeleton: Skeleton, require_images: bool = True) -> People:
    from keras_mrpose import data

    folder = Path(args.data, "annotations")
    if (folder / f"image_info_{args.split}.json").is_file() and not any(folder.glob(f"*keypoints_{args.split}.*")):
        raise InputError(
            f"{folder} has no annotated people of {args.split}; --format-only with --boxes FILE writes the results "
            "for the server that has them."
        )
    return data.load(args.data, args.split, require_images, skeleton, strict=False)


def _detected(args, skeleton: Skeleton) -> People:
    from keras_mrpose import data
    from keras_mrpose.data import coco as coco_data

    split, threshold = data.whole_split(args.split), args.box_threshold or 0.0
    return coco_data.load_detections(args.boxes, args.data, split, threshold, skeleton=skeleton, strict=False)


def _write_results(predictor: Predictor, args, out: Path) -> int:
    """COCO results of a network; how many people."""
    from keras_mrpose.data.people import protocol_of
    from keras_mrpose.evaluation import coco
    from keras_mrpose.evaluation.evaluate import coco_selected, settings_of
    from keras_mrpose.evaluation.predictions import check_tables, predict

    skeleton = predictor.skeleton
    annotated = args.boxes == ANNOTATED
    people = _annotated(args, skeleton) if annotated else _detected(args, skeleton)
    people = limit(people, args.people)
    if protocol_of(people) != "ap":
        raise InputError(f"{people.source} has {people.skeleton.name} joints; --format-only writes COCO results.")
    check_tables(predictor, people, people)
    settings = settings_of(predictor, **_chosen(args))  # before the network runs: they may be wrong
    predictions, skeleton = predict(predictor, people), people.skeleton
    found, scores, kept = coco_selected(predictions, settings, skeleton.sigmas)
    results = coco.results_json(found, predictions.image_ids[kept], scores, skeleton)
    coco.save_results(results, out, skeleton)
    return len(results)
