"""COCO keypoint evaluation: from selected people to the ten AP and AR numbers, for COCO's joints or others.

`suppression.rescore_and_nms` scores people as published and drops those found twice; here `results_json` writes them
down and `average_precision` compares them with the annotations. pycocotools does the sums; no network is needed.
"""

from __future__ import annotations

import contextlib
import copy
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO as Dataset
from pycocotools.cocoeval import COCOeval

from keras_mrpose.data.coco import ground_truth
from keras_mrpose.data.coco_records import PERSON
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.suppression import columns
from keras_mrpose.skeletons import COCO, Skeleton

try:  # an extra
    from faster_coco_eval import COCO as FasterDataset
    from faster_coco_eval import COCOeval_faster as FasterCOCOeval
except ImportError:
    FasterDataset = FasterCOCOeval = None

NUMBERS = ("AP", "AP50", "AP75", "APM", "APL", "AR", "AR50", "AR75", "ARM", "ARL")
FIELDS = ("image_id", "category_id", "keypoints", "score")


def results_json(keypoints, image_ids, scores, skeleton: Skeleton = COCO) -> list[dict]:
    """Records of people in the COCO results format, which the evaluation and the test-dev server read.

    Args:
        keypoints: ``(people, joints, 3)`` x, y in image pixels, score; all joints are written, confident or not.
        image_ids: ``(people,)`` integers.
        scores: ``(people,)`` of `suppression.rescore_and_nms`.
        skeleton: of the people.

    Returns:
        A record for each person: image_id, category_id (1), keypoints (COCO: 51 numbers), score.
    """
    keypoints, image_ids, scores = columns(keypoints, skeleton.num_joints, image_ids=image_ids, scores=scores)
    flat = keypoints.reshape(len(keypoints), skeleton.num_joints * 3)
    return [
        {"image_id": int(image), "category_id": PERSON, "keypoints": joints, "score": score}
        for image, joints, score in zip(image_ids, flat.tolist(), scores.tolist(), strict=True)
    ]


def check_results(
    results, source: str = "The results", image_ids: Iterable[int] | None = None, skeleton: Skeleton = COCO
) -> None:
    """Check that results are in the COCO results format for keypoints.

    Args:
        results: what should be a list of records as `results_json` makes them. Further fields are allowed, but where
            the first has a bbox, pycocotools takes the size of each person from it instead of the joints.
        source: name for messages.
        image_ids: the images that there are; None does not ask.
        skeleton: of the people.

    Raises:
        InputError: names the first record that is wrong, and its field.
    """
    if not isinstance(results, list):
        raise InputError(f"{source}: this is a {type(results).__name__}, expected a list of records.")
    known = None if image_ids is None else set(image_ids)
    count = 3 * skeleton.num_joints
    triples = f"a list of {count} finite numbers: x, y, score"
    with_boxes = bool(results) and isinstance(results[0], dict) and "bbox" in results[0]
    for place, record in enumerate(results):
        name = f"{source}: record {place}"
        if not isinstance(record, dict):
            raise InputError(f"{name} is a {type(record).__name__}, expected one with {', '.join(FIELDS)}.")
        image = record.get("image_id")
        whole = type(image) is int
        for field, right, wanted in (
            ("image_id", whole, "a whole number"),
            ("image_id", known is None or not whole or image in known, "one of the annotated images"),
            ("category_id", record.get("category_id") == PERSON, "1, the person's"),
            ("keypoints", _are_numbers(record.get("keypoints"), count), triples),
            ("score", _are_numbers([record.get("score")], 1), "a finite number"),
            ("bbox", not with_boxes or _are_numbers(record.get("bbox"), 4), "4 finite numbers, as the first has"),
        ):
            if not right:
                raise InputError(f"{name} has {field} {record.get(field)!r:.80}, expected {wanted}.")


def save_results(results: list[dict], path: str | Path, skeleton: Skeleton = COCO) -> None:
    """Write results as the JSON file that the test-dev server takes, after `check_results`; makes the folder."""
    check_results(results, str(path), skeleton=skeleton)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(results, allow_nan=False))


def average_precision(
    annotation_file: str | Path,
    results: list[dict],
    image_ids: Iterable[int] | None = None,
    skeleton: Skeleton = COCO,
    *,
    faster: bool = False,
) -> dict[str, float]:
    """The ten numbers of COCO's keypoint evaluation, computed by pycocotools.

    Args:
        annotation_file: the original ``person_keypoints_*.json``, with crowds and people without keypoints.
        results: as `results_json` makes them; of an image's people the best 20 count.
        image_ids: the images to evaluate; None takes all of the file, which is the protocol.
        skeleton: of the people; its sigmas are those of OKS.
        faster: by the package faster-coco-eval instead: the same numbers to the last digit, in a third of the time.

    Returns:
        AP, AP50, AP75, APM, APL, AR, AR50, AR75, ARM, ARL in 0..1; -1, as from pycocotools, where nobody of that size
        is annotated.

    Raises:
        InputError: a wrong annotation file, results that do not pass `check_results` or are of other images, or
            faster-coco-eval is asked for and not installed.
    """
    truth = ground_truth(annotation_file, skeleton)
    return coco_stats(run_cocoeval(truth, results, image_ids, skeleton, faster=faster))


def run_cocoeval(
    truth: dict,
    results: list[dict],
    image_ids: Iterable[int] | None = None,
    skeleton: Skeleton = COCO,
    *,
    faster: bool = False,
) -> COCOeval:
    """pycocotools' `COCOeval` after matching, without its output and on copies of the results, which it changes.

    Args:
        truth: of `data.coco.ground_truth`; can be used again; pycocotools only marks in it who is ignored.
        results: as in `average_precision`, like skeleton.
        image_ids: the images to evaluate; None takes all.
        skeleton: as above.
        faster: as in `average_precision`; what is returned does for `coco_stats` alone then.

    Raises:
        InputError: results that do not pass `check_results` or are of other images; or see `faster`.
    """
    if faster and FasterCOCOeval is None:
        raise InputError("The faster evaluation takes a package of its own: pip install faster-coco-eval.")
    dataset, cocoeval = (FasterDataset, FasterCOCOeval) if faster else (Dataset, COCOeval)
    check_results(results, image_ids=(image["id"] for image in truth["images"]), skeleton=skeleton)
    with contextlib.redirect_stdout(None):
        annotated, found = dataset(), dataset()
        annotated.dataset = truth
        annotated.createIndex()
        if results:
            fields = [field for field in (*FIELDS, "bbox") if field in results[0]]
            found = annotated.loadRes([{field: record[field] for field in fields} for record in results])
        else:  # which loadRes cannot take
            found.dataset = truth | {"annotations": []}
            found.createIndex()
        evaluation = cocoeval(annotated, found, "keypoints")
        evaluation.params.kpt_oks_sigmas = np.array(skeleton.sigmas)
        if image_ids is not None:
            evaluation.params.imgIds = sorted(set(int(image) for image in image_ids))
        evaluation.evaluate()
    return evaluation


def coco_stats(evaluation: COCOeval) -> dict[str, float]:
    """AP and AR of an evaluation of `run_cocoeval`, see `average_precision`."""
    with contextlib.redirect_stdout(None):
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NUMBERS, np.asarray(evaluation.stats[: len(NUMBERS)], np.float64).tolist(), strict=True))


def ap_of_draw(evaluation: COCOeval, counts: np.ndarray) -> float:
    """AP where each image is there as often as it was drawn; its matches are those of the evaluation.

    Args:
        evaluation: of `run_cocoeval`; is not changed.
        counts: ``(images,)`` how often each of ``evaluation.params.imgIds`` was drawn.
    """
    draw = copy.copy(evaluation)
    draw.params = copy.copy(evaluation.params)
    images = evaluation.params.imgIds
    rows = np.repeat(np.arange(len(images)), counts)
    # by category, area range and image; one category
    draw.evalImgs = [
        evaluation.evalImgs[area * len(images) + row] for area in range(len(evaluation.params.areaRng)) for row in rows
    ]
    draw.params.imgIds = list(range(len(rows)))  # `accumulate` would drop an image's second coming
    draw._paramsEval = draw.params
    with contextlib.redirect_stdout(None):
        draw.accumulate()
    precision = draw.eval["precision"][:, :, 0, 0, 0]
    return float(precision[precision > -1].mean()) if (precision > -1).any() else -1.0


def joint_oks(evaluation: COCOeval, skeleton: Skeleton = COCO) -> tuple[dict[str, float | None], int, int]:
    """Mean OKS term of each joint over the people that were found, and how many were.

    Args:
        evaluation: of `run_cocoeval`.
        skeleton: as there.

    Returns:
        By joint name, the mean of exp(-d^2 / (2 (2 sigma)^2 area)) over the people found who have it labelled (None if
        nobody has), found people, and annotated people: all that count in AP, so no crowds and nobody without a
        keypoint. Found is who has a result of OKS 0.5 or more in pycocotools' matching.
    """
    sums, labelled, found, people = np.zeros(skeleton.num_joints), np.zeros(skeleton.num_joints, int), 0, 0
    for image in filter(None, evaluation.evalImgs[: len(evaluation.params.imgIds)]):  # the first are of all sizes
        for truth, result, ignored in zip(
            image["gtIds"], image["gtMatches"][0].astype(int), image["gtIgnore"], strict=True
        ):
            people += not ignored
            if ignored or not result:
                continue
            found += 1
            person = evaluation.cocoGt.anns[truth]
            x, y, flag = np.reshape(person["keypoints"], (-1, 3)).T
            found_x, found_y, _ = np.reshape(evaluation.cocoDt.anns[result]["keypoints"], (-1, 3)).T
            squared = np.square(found_x - x) + np.square(found_y - y)
            similarity = np.exp(
                -squared / (2 * np.square(2 * np.array(skeleton.sigmas)) * (person["area"] + np.spacing(1)))
            )
            sums += np.where(flag > 0, similarity, 0)
            labelled += flag > 0
    means = [float(total / count) if count else None for total, count in zip(sums, labelled, strict=True)]
    return dict(zip(skeleton.joints, means, strict=True)), found, int(people)


def _are_numbers(values, count: int) -> bool:
    """Whether this is a list of so many finite numbers."""
    return (
        isinstance(values, list)
        and len(values) == count
        and all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) <= sys.float_info.max for v in values)
    )
