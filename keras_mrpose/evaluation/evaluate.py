"""Results: a network's numbers on a data set by one of three protocols, how they were made, and what went wrong.

The protocols are COCO's AP, MPII's PCKh and LSP's PCK, a row each in `PROTOCOLS`. They score raw predictions under
`Settings` and need no network; `evaluate` runs one and scores what it found.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_mrpose.codecs import name_of
from keras_mrpose.data.coco import ground_truth
from keras_mrpose.data.people import People, protocol_of
from keras_mrpose.errors import InputError, short_message
from keras_mrpose.evaluation import coco, diagnosis, mpii
from keras_mrpose.evaluation.pck import pck, torsos
from keras_mrpose.evaluation.predictions import Predictions, check_tables, predict
from keras_mrpose.evaluation.provenance import Settings, provenance
from keras_mrpose.evaluation.suppression import rescore_and_nms, window_areas
from keras_mrpose.predict.predictor import Predictor
from keras_mrpose.skeletons import MPII

# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Result:
    """What an evaluation found.

    Attributes:
        metric: the name of the number that is compared: ``"AP"``, ``"PCKh@0.5"`` or ``"PCK"``.
        value: that number, 0..1.
        numbers: all numbers of the protocol; shares are 0..1, None where there was nothing to count.
        diagnosis: of the errors, see `evaluation.diagnosis`; None if it was not asked for.
        protocol: how it was made, see `evaluation.provenance`.
        predictions: of the network.
    """

    metric: str
    value: float
    numbers: dict
    diagnosis: dict | None
    protocol: dict
    predictions: Predictions

    def __repr__(self) -> str:
        people, network = self.numbers.get("people", len(self.predictions.ids)), self.protocol["network"].get("model")
        return f"<Result {self.metric} {100 * self.value:.1f}: {network} on {people} people>"

    def __str__(self) -> str:
        """The number that is compared, and what the protocol counts besides, in percent, a line each."""
        lines = [(self.metric, self.value)]
        for name, number in self.numbers.items():
            of_joints = number.items() if name in ("joints", "joint_oks", "groups") else [(name, number)]
            lines += [(key, share) for key, share in of_joints if isinstance(share, float) and 0 <= share <= 1]
        width = max(len(name) for name, _ in lines)
        return "\n".join([repr(self), *(f"{name:<{width}}  {100 * share:5.1f}" for name, share in lines[1:])])

    @property
    def settings(self) -> Settings:
        """Settings under which it was made."""
        return Settings(**self.protocol["settings"])

    def save(self, path: str | Path) -> None:
        """Write ``NAME.json`` and, beside it, the raw predictions, ``NAME.npz``; the folder is made if missing."""
        path = Path(path)
        self.predictions.save(path.with_suffix(".npz"))
        content = {name: value for name, value in vars(self).items() if name != "predictions"}
        path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Result:
        """Read what `save` wrote; an `InputError` names a file that is missing or not a result."""
        path = Path(path)
        return cls(**read_numbers(path), predictions=Predictions.load(path.with_suffix(".npz")))


def read_numbers(path: str | Path) -> dict:
    """Read a result file without its predictions: the fields of `Result`, checked; else an `InputError`."""
    try:
        content = json.loads(Path(path).read_text())
        fields = {name: content[name] for name in ("metric", "value", "numbers", "diagnosis", "protocol")}
        protocol = fields["protocol"]
        Settings(**protocol["settings"])
        for part in ("data", "boxes", "network"):
            protocol[part].keys()
        if protocol["evaluation"] not in PROTOCOLS:
            raise KeyError(protocol["evaluation"])
        return fields
    except FileNotFoundError:
        raise InputError(f"{path} is not there; give a result file that `evaluate` wrote.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a result file of this version ({short_message(error)}); evaluate again."
        ) from error


def evaluate(
    predictor: Predictor,
    people: People,
    truth: People | None = None,
    *,
    protocol: str | None = None,
    diagnose: bool = True,
    bootstrap: int = 0,
    command: str | None = None,
    **settings,
) -> Result:
    """Measure a network on a data set by the data set's own protocol.

    Args:
        predictor: the network. Its codec and flip test are part of the result.
        people: whose boxes are cropped: annotated people, or those of a detector.
        truth: annotated people of the same images; None if they are `people`. For COCO's AP their `source` is the
            annotation file, and all images of their table are evaluated.
        protocol: ``"ap"`` (COCO), ``"pckh"`` (MPII) or ``"pck"`` (LSP); None is that of the data set (`protocol_of`).
        diagnose: also class the errors, which scores the predictions four more times.
        bootstrap: how many draws with replacement the 95 % interval of the value is made from, of images for AP and of
            people for PCK and PCKh: ``numbers["interval_95"]``; 0 makes none.
        command: command line that asked for it, written into the result; None if there was none.
        settings: others of `Settings` than codec and flip test.

    Raises:
        InputError: another skeleton, unknown names, boxes of a detector where the protocol has none, nobody who can be
            counted, or an unreadable image.
    """
    truth = people if truth is None else truth
    name = protocol or protocol_of(truth)
    check_tables(predictor, people, truth)
    check(name, truth)
    if name != "ap" and people is not truth:
        raise InputError("Only COCO's protocol has detected boxes; evaluate on the annotated ones.")
    chosen = settings_of(predictor, **settings)
    if bootstrap:
        _check_draws(bootstrap)
    predictions = predict(predictor, people, truth)
    scored = PROTOCOLS[name].score_fn(predictions, truth, chosen)
    if bootstrap:
        scored.numbers["interval_95"] = list(interval(scored, bootstrap))
    used = {setting: value for setting, value in vars(chosen).items() if setting in PROTOCOLS[name].settings}
    return Result(
        metric=PROTOCOLS[name].metric,
        value=scored.value,
        numbers=scored.numbers,
        diagnosis=error_report(scored, truth) if diagnose else None,
        protocol=provenance(predictor, people, truth, name, used, command),
        predictions=predictions,
    )


def interval(scored: ProtocolResult, draws: int, seed: int = 0) -> tuple[float, float]:
    """95 % interval of a value by the percentile bootstrap (Efron 1979): of so many draws with replacement.

    Raises:
        InputError: less than one draw.
    """
    _check_draws(draws)
    rng, chances = np.random.default_rng(seed), np.full(scored.units, 1 / scored.units)
    values = [scored.value_of_draw(rng.multinomial(scored.units, chances)) for _ in range(draws)]
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise InputError(f"bootstrap is {draws}; give a number of draws, such as 1000.")


def settings_of(predictor: Predictor, **others) -> Settings:
    """Settings of a predictor (codec, flip test and shift), with others as given."""
    return Settings(
        codec=name_of(predictor.codec),
        flip_test=predictor.flip_test,
        flip_shift=getattr(predictor.codec, "flip_shift", False),
        **others,
    )


# --- protocols --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ProtocolResult:
    """Predictions scored by a protocol.

    Attributes:
        value: the number that is compared, 0..1: AP, PCKh@0.5 or PCK.
        numbers: all of them, ready for JSON; shares are 0..1, None where there was nothing to count.
        keypoints: ``(kept, joints, 3)`` the predictions that were counted: x, y in image pixels, score.
        rows: ``(kept,)`` the person of the truth that each is of, -1 for nobody.
        tolerance: ``(people, joints)`` how far, in image pixels, a joint of the truth may be off to be called good.
        value_of: other keypoints of the counted predictions -> the value with them.
        units: how many images (AP) or people (PCK, PCKh) there are, which a bootstrap draws from.
        value_of_draw: how often each of them was drawn, ``(units,)`` -> the value of that draw.
    """

    value: float
    numbers: dict
    keypoints: np.ndarray
    rows: np.ndarray
    tolerance: np.ndarray
    value_of: Callable[[np.ndarray], float]
    units: int
    value_of_draw: Callable[[np.ndarray], float]


@dataclass(frozen=True, eq=False)
class ShareOfDraw:
    """Share of right joints, people counted as often as drawn: `ProtocolResult.value_of_draw` of PCK and PCKh.

    Args:
        hits: ``(people,)`` right joints of each.
        labels: ``(people,)`` joints of each that count.
    """

    hits: np.ndarray
    labels: np.ndarray

    def __call__(self, counts: np.ndarray) -> float:
        """The value of a draw, ``(people,)`` how often each of them is in it."""
        return float(counts @ self.hits / max(1, counts @ self.labels))


@dataclass(frozen=True)
class Protocol:
    """One way to measure a data set.

    Args:
        metric: what the value is called.
        settings: fields of `Settings` that change it.
        score_fn: predictions, annotated people and settings -> `ProtocolResult`.
    """

    metric: str
    settings: tuple[str, ...]
    score_fn: Callable[[Predictions, People, Settings], ProtocolResult]


def check(name: str, truth: People) -> None:
    """Raise an `InputError` if there is no such protocol, or these people cannot be measured by it."""
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
    """Keypoints ``(people, joints, 3)`` float64 as decoded by these settings; an `InputError` if that was not kept."""
    found = predictions.read(settings)
    if found is None:
        raise InputError(
            f"The predictions were kept as {', '.join(predictions.keypoints)}, not as {settings.decoding}; "
            "evaluate the network again."
        )
    return found


def known_truth(predictions: Predictions, truth: People) -> People:
    """Annotated people without the labels of joints that the network does not find."""
    if predictions.known.all():
        return truth
    return replace(truth, keypoints=truth.keypoints * predictions.known[:, None])


def coco_selected(
    predictions: Predictions, settings: Settings, sigmas: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Select the people that COCO's protocol reports: keypoints ``(kept, joints, 3)``, scores and rows ``(kept,)``."""
    found = keypoints_of(predictions, settings)
    areas = window_areas(predictions.boxes, predictions.input_size)
    chosen = settings.suppression, settings.oks_threshold, settings.joint_threshold
    known = predictions.known
    boxes = predictions.image_ids, areas, predictions.box_scores
    kept, scores = rescore_and_nms(found[:, known], *boxes, *chosen, np.array(sigmas)[known])
    return found[kept], scores, kept


def error_report(scored: ProtocolResult, truth: People) -> dict:
    """Classes of the errors and what each class costs, in points of the metric: `Diagnosis.to_dict`."""
    found = diagnosis.diagnose(scored.keypoints, scored.rows, truth, scored.tolerance)
    bad = [name for name in diagnosis.CLASSES if name != "good"]
    return found.to_dict({name: 100 * (scored.value_of(found.corrected(name)) - scored.value) for name in bad})


def _ap(predictions: Predictions, truth: People, settings: Settings) -> ProtocolResult:
    truth, skeleton = known_truth(predictions, truth), truth.skeleton
    found, scores, kept = coco_selected(predictions, settings, skeleton.sigmas)
    annotated = ground_truth(truth.source, skeleton, np.flatnonzero(~predictions.known))
    images = predictions.image_ids[kept]

    def against_truth(keypoints: np.ndarray):
        results = coco.results_json(keypoints, images, scores, skeleton)
        return coco.run_cocoeval(annotated, results, truth.image_ids, skeleton)

    evaluation = against_truth(found)
    ten = coco.coco_stats(evaluation)
    similarity, people_found, people = coco.joint_oks(evaluation, skeleton)
    if not people:
        raise InputError(
            f"{truth.source} has nobody with keypoints in these images, so that there is no AP; write results for a "
            "server that has the annotations (`evaluation.coco.save_results`)."
        )
    numbers = {name: None if number == -1 else number for name, number in ten.items()}
    numbers |= {"joint_oks": similarity, "people": people, "people_found": people_found}
    numbers |= {"images": len(truth.image_ids), "boxes": len(predictions.ids), "results": len(kept)}
    return ProtocolResult(
        value=ten["AP"],
        numbers=numbers,
        keypoints=found,
        rows=_rows_of(predictions, truth, found, scores, kept),
        tolerance=diagnosis.tolerances_oks(truth.areas, skeleton.sigmas),
        value_of=lambda keypoints: coco.coco_stats(against_truth(keypoints))["AP"],
        units=len(evaluation.params.imgIds),
        value_of_draw=lambda counts: coco.ap_of_draw(evaluation, counts),
    )


def _rows_of(predictions: Predictions, truth: People, found, scores, kept) -> np.ndarray:
    """The annotated person of each kept box: known for annotated boxes, matched for detected ones."""
    if np.array_equal(predictions.ids, truth.ids) and np.array_equal(predictions.boxes, truth.boxes):
        return kept
    return diagnosis.match(found, predictions.image_ids[kept], scores, truth, truth.skeleton.sigmas)


def _pckh(predictions: Predictions, truth: People, settings: Settings) -> ProtocolResult:
    found, labelled = keypoints_of(predictions, settings), mpii.truth_of(known_truth(predictions, truth))
    result = mpii.pckh(found, labelled)
    tolerance = diagnosis.tolerances_pck(labelled.heads, mpii.THRESHOLD / 100, found.shape[1])
    tolerance[:, [MPII.joints.index(name) for name in mpii.NOT_COUNTED]] = 0
    return ProtocolResult(
        value=result.mean / 100,
        numbers=result.to_dict(),
        keypoints=found,
        rows=np.arange(len(truth)),
        tolerance=tolerance,
        value_of=lambda keypoints: mpii.pckh(keypoints, labelled).mean / 100,
        units=len(truth),
        value_of_draw=_share_of_draw(found, labelled.joints, labelled.labelled, tolerance),
    )


def _pck(predictions: Predictions, truth: People, settings: Settings) -> ProtocolResult:
    found, truth = keypoints_of(predictions, settings), known_truth(predictions, truth)
    numbers = pck(found, truth, settings.threshold)
    tolerance = diagnosis.tolerances_pck(torsos(truth), settings.threshold, found.shape[1])
    return ProtocolResult(
        value=numbers["mean"],
        numbers=numbers,
        keypoints=found,
        rows=np.arange(len(truth)),
        tolerance=tolerance,
        value_of=lambda keypoints: pck(keypoints, truth, settings.threshold)["mean"],
        units=len(truth),
        value_of_draw=_share_of_draw(found, truth.keypoints[..., :2], truth.keypoints[..., 2] > 0, tolerance),
    )


def _share_of_draw(keypoints, joints, labelled, tolerance) -> ShareOfDraw:
    """Share of right joints; a tolerance of 0 or NaN does not count."""
    counted = labelled & (tolerance > 0)
    right = counted & (np.linalg.norm(keypoints[..., :2] - joints, axis=-1) <= tolerance)
    return ShareOfDraw(right.sum(axis=1), counted.sum(axis=1))


DECODE_SETTINGS = ("codec", "flip_test", "flip_shift")
PROTOCOLS = {
    "ap": Protocol("AP", (*DECODE_SETTINGS, "suppression", "oks_threshold", "joint_threshold"), _ap),
    "pckh": Protocol("PCKh@0.5", DECODE_SETTINGS, _pckh),
    "pck": Protocol("PCK", (*DECODE_SETTINGS, "threshold"), _pck),
}
