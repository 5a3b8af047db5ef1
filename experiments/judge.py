"""`run.py evaluate`, `score` and `ceiling`: a data set's numbers for a network, for a file, for the truth itself."""

from __future__ import annotations

import os
from pathlib import Path

import tables
from rich.console import Console

import keras_mrpose
from keras_mrpose import InputError, Skeleton, data, skeletons
from keras_mrpose.codecs import CODECS
from keras_mrpose.data import coco as coco_data
from keras_mrpose.data import json_stream
from keras_mrpose.data.people import People
from keras_mrpose.evaluation import coco, diagnosis, mpii, protocols
from keras_mrpose.evaluation import upper_bound as ceilings
from keras_mrpose.evaluation.evaluate import settings_of
from keras_mrpose.evaluation.predictions import check_tables, predict

ANNOTATED = "gt"  # what --boxes calls them


def evaluate(options) -> None:
    """Measure a network, print it and write it down; or, with --format-only, write what it found for a server."""
    model = Path(options.model)
    folder = model if model.is_dir() else model.parent
    if options.out and Path(options.out).suffix != ".json":
        raise InputError(f"--out is {options.out}; give a file name that ends in .json.")
    if options.boxes == ANNOTATED and (options.images_with_boxes or options.box_threshold is not None):
        raise InputError("--images-with-boxes and --box-threshold are for a detector's boxes; give --boxes FILE.")
    predictor = keras_mrpose.Predictor(model, flip_test=not options.no_flip, codec=options.codec)
    name = f"person_keypoints_{options.split}_results.json" if options.format_only else "result.json"
    forms = f"{model.stem}." if model.suffix == ".tflite" else ""  # several exported networks share a folder
    out = Path(options.out or folder / f"{forms}{name}")
    _require_writable(out)
    if options.format_only:
        print(f"{_write_results(predictor, options, out)} people written to {out}")
        return
    people, truth = _tables(options, predictor.skeleton)
    result = keras_mrpose.evaluate(
        predictor, people, truth, protocol=options.protocol, diagnose=not options.no_diagnosis, **_chosen(options)
    )
    tables.print_result(result, f"{model} on {result.protocol['data']['annotations']}")
    result.save(out)
    print(f"written to {out}; raw predictions beside it")
    if result.diagnosis and (folder / "logs").is_dir():
        diagnosis.write_summaries(folder / "logs" / "diagnosis", result.diagnosis, result.metric)


def score(options) -> None:
    """Judge predictions in a file, whoever made them: COCO results (.json), or MPII predictions (.mat)."""
    file = Path(options.file)
    if file.suffix == ".mat":
        if not options.data:
            raise InputError(f"{file} holds predictions for MPII; give --data DIR with annot/gt_valid.mat.")
        split = {"val": "valid"}.get(options.split, options.split)
        truth = mpii.read_truth(Path(options.data) / "annot" / f"gt_{split}.mat")
        Console().print(mpii.table(mpii.pckh(mpii.read_predictions(file), truth).to_dict()))
        return
    if not (options.annotations or options.data):
        raise InputError(f"{file} is judged against COCO annotations; give --annotations FILE, or --data DIR.")
    annotations = options.annotations or coco_data.annotation_file(options.data, options.split)
    results = json_stream.read(file, "give results in COCO's format")
    skeleton = coco_data.skeleton_in(annotations, _skeleton(options))
    truth = coco_data.ground_truth(annotations, skeleton)
    coco.check_results(results, str(file), (image["id"] for image in truth["images"]), skeleton)
    if not results:
        raise InputError(f"{file} holds no results, so that there is nothing to judge.")
    evaluation = coco.run_cocoeval(truth, results, skeleton=skeleton)
    similarity, found, annotated = coco.joint_oks(evaluation, skeleton)
    if not annotated:
        raise InputError(f"{annotations} has nobody with keypoints, so that there is no AP; give another file.")
    tables.print_coco(coco.coco_stats(evaluation), similarity, found, annotated, f"{file} on {annotations}")


def ceiling(options) -> None:
    """The best that any network can reach with each codec and heatmap size."""
    if not options.noise >= 0:
        raise InputError(f"--noise is {options.noise}; give a number of at least 0, such as 0.1.")
    people = _first(data.load(options.data, options.split, False, _skeleton(options)), options.people)
    protocol = options.protocol or protocols.protocol_of(people)
    protocols.check(protocol, people)
    ways = ({}, {"flip_test": True}, {"noise": options.noise}, {"flip_test": True, "noise": options.noise})
    rows = []
    for size in ceilings.sizes(protocol):
        for name in CODECS:
            codec = ceilings.codec_for(name, size)
            rows.append(
                (size, name, [ceilings.upper_bound(people, codec, size, protocol=protocol, **way) for way in ways])
            )
    tables.print_ceiling(
        rows, protocols.PROTOCOLS[protocol].metric, options.noise, f"{people.source}, {len(people)} people"
    )


def _chosen(options) -> dict:
    """The settings that are options."""
    return {name: getattr(options, name) for name in ("suppression", "oks_threshold", "joint_threshold", "threshold")}


def _require_writable(file: Path) -> None:
    """Before the network runs for an hour: that its result can be written."""
    there = next(folder for folder in file.absolute().parents if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)) or file.is_dir():
        raise InputError(f"{file} cannot be written; give another --out FILE.")


def _tables(options, skeleton: Skeleton) -> tuple[People, People]:
    """Whose boxes are cropped, and the annotated people; the same table for annotated boxes."""
    truth = _annotated(options, skeleton, require_images=options.boxes == ANNOTATED)
    if options.boxes == ANNOTATED:
        truth = _first(truth, options.people)
        return truth, truth
    people, truth = _detected(options, skeleton), _first(truth, options.people)
    if options.images_with_boxes:
        truth = truth.of_images(people.image_ids[people.image_index])
    return people.of_images(truth.image_ids), truth


def _annotated(options, skeleton: Skeleton, require_images: bool = True) -> People:
    folder = Path(options.data, "annotations")
    if (folder / f"image_info_{options.split}.json").is_file() and not any(
        folder.glob(f"*keypoints_{options.split}.*")
    ):
        raise InputError(
            f"{folder} has no annotated people of {options.split}; --format-only with --boxes FILE writes the results "
            "for the server that has them."
        )
    return data.load(options.data, options.split, require_images, skeleton, strict=False)


def _detected(options, skeleton: Skeleton) -> People:
    threshold = options.box_threshold or 0.0
    return coco_data.load_detections(
        options.boxes, options.data, options.split, threshold, skeleton=skeleton, strict=False
    )


def _skeleton(options) -> Skeleton | None:
    """That of --skeleton FILE."""
    return skeletons.load(options.skeleton) if options.skeleton else None


def _first(people: People, count: int | None) -> People:
    """Those of ``--people``."""
    if count is None:
        return people
    if count < 1:
        raise InputError(f"--people is {count}; give a number of at least 1.")
    return people.limit(count)


def _write_results(predictor, options, out: Path) -> int:
    """COCO results of a network; how many people."""
    skeleton = predictor.skeleton
    annotated = options.boxes == ANNOTATED
    people = _annotated(options, skeleton) if annotated else _detected(options, skeleton)
    people = _first(people, options.people)
    if protocols.protocol_of(people) != "ap":
        raise InputError(f"{people.source} has {people.skeleton.name} joints; --format-only writes COCO results.")
    check_tables(predictor, people, people)
    predictions, skeleton = predict(predictor, people), people.skeleton
    settings = settings_of(predictor, **_chosen(options))
    found, scores, kept = protocols.coco_selected(predictions, settings, skeleton.sigmas)
    results = coco.results_json(found, predictions.image_ids[kept], scores, skeleton)
    coco.save_results(results, out, skeleton)
    return len(results)
