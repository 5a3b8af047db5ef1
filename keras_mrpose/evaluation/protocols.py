"""The three protocols, one row each: what of the predictions counts, and the numbers that come out.

COCO's AP, MPII's PCKh, LSP's PCK. Each judges raw predictions under `Settings`; nothing here needs a network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_mrpose.data.coco import ground_truth
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation import coco, diagnosis, mpii
from keras_mrpose.evaluation.matching import match
from keras_mrpose.evaluation.pck import pck, torsos
from keras_mrpose.evaluation.predictions import Predictions
from keras_mrpose.evaluation.settings import Settings
from keras_mrpose.evaluation.suppression import rescore_and_nms, window_areas
from keras_mrpose.skeletons import COCO, LSP, MPII


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """What a protocol says.

    Attributes:
        value: the number that is compared, 0..1: AP, PCKh@0.5 or PCK.
        numbers: all of them, ready for JSON; shares are 0..1, None where there was nothing to count.
        joints: ``(kept, joints, 3)`` the predictions that were counted.
        rows: ``(kept,)`` the person of the truth that each is of, -1 for nobody.
        good: ``(people, joints)`` how far, in image pixels, a joint of the truth may be off to be called good.
        value_of: the value again, with the counted predictions' joints moved.
    """

    value: float
    numbers: dict
    joints: np.ndarray
    rows: np.ndarray
    good: np.ndarray
    value_of: Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Protocol:
    """One row.

    Args:
        metric: what the value is called.
        settings: fields of `Settings` that change it.
        judge: predictions, annotated people and settings -> `Judgement`.
    """

    metric: str
    settings: tuple[str, ...]
    judge: Callable[[Predictions, People, Settings], ProtocolResult]


def protocol_of(people: People) -> str:
    """Key of `PROTOCOLS`: by the skeleton, whose data set has one; for one of your own AP, if the people are of a file.

    That is in COCO's format, then, whose protocol reads it once more. PCK has only the people to go by.
    """
    if people.protocol:
        return people.protocol
    if people.skeleton == MPII:
        return "pckh"
    if people.skeleton == COCO or (people.skeleton != LSP and Path(people.source).is_file()):
        return "ap"
    return "pck"


def check(name: str, truth: People) -> None:
    """An `InputError` if there is no such protocol, or these people cannot be judged by it."""
    if name not in PROTOCOLS:
        raise InputError(f"Unknown protocol {name!r}; give one of {', '.join(PROTOCOLS)}.")
    if name == "ap" and protocol_of(truth) != "ap":
        raise InputError(
            f"{truth.source} has {truth.skeleton.name} joints; COCO's protocol needs its 17, or others in a file of "
            "its format."
        )
    if name == "pckh":
        mpii.truth_of(truth)
    if name == "pck":
        torsos(truth)


def keypoints_of(predictions: Predictions, settings: Settings) -> np.ndarray:
    """The joints as these settings read them; an `InputError` if that was not kept."""
    found = predictions.read(settings)
    if found is None:
        raise InputError(
            f"The predictions were kept as {', '.join(predictions.joints)}, not as {settings.decoding}; "
            "evaluate the network again."
        )
    return found


def known_truth(predictions: Predictions, truth: People) -> People:
    """The annotated people, without the labels of joints that the network does not find."""
    if predictions.known.all():
        return truth
    return replace(truth, keypoints=truth.keypoints * predictions.known[:, None])


def coco_selected(
    predictions: Predictions, settings: Settings, sigmas: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The people that COCO's protocol reports: joints ``(kept, joints, 3)``, scores ``(kept,)``, rows ``(kept,)``."""
    found = keypoints_of(predictions, settings)
    areas = window_areas(predictions.boxes, predictions.input_size)
    chosen = settings.suppression, settings.oks_threshold, settings.joint_threshold
    known = predictions.known
    boxes = predictions.image_ids, areas, predictions.box_scores
    kept, scores = rescore_and_nms(found[:, known], *boxes, *chosen, np.array(sigmas)[known])
    return found[kept], scores, kept


def _ap(predictions: Predictions, truth: People, settings: Settings) -> ProtocolResult:
    truth, skeleton = known_truth(predictions, truth), truth.skeleton
    found, scores, kept = coco_selected(predictions, settings, skeleton.sigmas)
    annotated = ground_truth(truth.source, skeleton, np.flatnonzero(~predictions.known))
    images = predictions.image_ids[kept]

    def against_truth(joints: np.ndarray):
        results = coco.results_json(joints, images, scores, skeleton)
        return coco.run_cocoeval(annotated, results, truth.image_ids, skeleton)

    evaluation = against_truth(found)
    ten = coco.coco_stats(evaluation)
    similarity, people_found, people = coco.joint_oks(evaluation, skeleton)
    if not people:
        raise InputError(
            f"{truth.source} has nobody with keypoints in these images, so that there is no AP; --format-only writes "
            "the results for a server that has the annotations."
        )
    numbers = {name: None if number == -1 else number for name, number in ten.items()}
    numbers |= {"joint_oks": similarity, "people": people, "people_found": people_found}
    numbers |= {"images": len(truth.image_ids), "boxes": len(predictions.ids), "results": len(kept)}
    return ProtocolResult(
        value=ten["AP"],
        numbers=numbers,
        joints=found,
        rows=_rows_of(predictions, truth, found, scores, kept),
        good=diagnosis.tolerances_oks(truth.areas, skeleton.sigmas),
        value_of=lambda joints: coco.coco_stats(against_truth(joints))["AP"],
    )


def _rows_of(predictions: Predictions, truth: People, found, scores, kept) -> np.ndarray:
    """The annotated person of each kept box: known for annotated boxes, matched for detected ones."""
    if np.array_equal(predictions.ids, truth.ids) and np.array_equal(predictions.boxes, truth.boxes):
        return kept
    return match(found, predictions.image_ids[kept], scores, truth, truth.skeleton.sigmas)


def _pckh(predictions: Predictions, truth: People, settings: Settings) -> ProtocolResult:
    found, labelled = keypoints_of(predictions, settings), mpii.truth_of(known_truth(predictions, truth))
    result = mpii.pckh(found, labelled)
    good = diagnosis.tolerances_pck(labelled.heads, mpii.THRESHOLD / 100, found.shape[1])
    good[:, [MPII.joints.index(name) for name in mpii.NOT_COUNTED]] = 0
    return ProtocolResult(
        value=result.mean / 100,
        numbers=result.to_dict(),
        joints=found,
        rows=np.arange(len(truth)),
        good=good,
        value_of=lambda joints: mpii.pckh(joints, labelled).mean / 100,
    )


def _pck(predictions: Predictions, truth: People, settings: Settings) -> ProtocolResult:
    found, truth = keypoints_of(predictions, settings), known_truth(predictions, truth)
    numbers = pck(found, truth, settings.threshold)
    return ProtocolResult(
        value=numbers["mean"],
        numbers=numbers,
        joints=found,
        rows=np.arange(len(truth)),
        good=diagnosis.tolerances_pck(torsos(truth), settings.threshold, found.shape[1]),
        value_of=lambda joints: pck(joints, truth, settings.threshold)["mean"],
    )


DECODE_SETTINGS = ("codec", "flip_test", "flip_shift")
PROTOCOLS = {
    "ap": Protocol("AP", (*DECODE_SETTINGS, "suppression", "oks_threshold", "joint_threshold"), _ap),
    "pckh": Protocol("PCKh@0.5", DECODE_SETTINGS, _pckh),
    "pck": Protocol("PCK", (*DECODE_SETTINGS, "threshold"), _pck),
}
