"""A result: a network's numbers on a data set, how they were made, what went wrong, and the raw predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from keras_mrpose.codecs import name_of
from keras_mrpose.data.people import People
from keras_mrpose.errors import InputError, short_message
from keras_mrpose.evaluation import diagnosis
from keras_mrpose.evaluation.predictions import Predictions, check_tables, predict
from keras_mrpose.evaluation.protocols import PROTOCOLS, ProtocolResult, check, protocol_of
from keras_mrpose.evaluation.provenance import provenance
from keras_mrpose.evaluation.settings import Settings
from keras_mrpose.predict.predictor import Predictor


@dataclass(frozen=True, eq=False)
class Result:
    """What an evaluation found.

    Attributes:
        metric: the name of the number that is compared: ``"AP"``, ``"PCKh@0.5"`` or ``"PCK"``.
        value: that number, 0..1.
        numbers: all numbers of the protocol; shares are 0..1, None where there was nothing to count.
        diagnosis: of the errors, see `evaluation.diagnosis`; None if it was not asked for.
        protocol: how it was made, see `evaluation.stamp`.
        predictions: of the network.
    """

    metric: str
    value: float
    numbers: dict
    diagnosis: dict | None
    protocol: dict
    predictions: Predictions

    @property
    def settings(self) -> Settings:
        """Under which it was made."""
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
    """A result file without the predictions: the fields of `Result`, checked; else an `InputError`."""
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
    **settings,
) -> Result:
    """How good a network is, by the protocol of the data set.

    Args:
        predictor: the network. Its codec and flip test are part of the result.
        people: whose boxes are cropped: annotated people, or those of a detector.
        truth: annotated people of the same images; None if they are `people`. For COCO's AP their `source` is the
            annotation file, and all images of their table are evaluated.
        protocol: ``"ap"`` (COCO), ``"pckh"`` (MPII) or ``"pck"`` (LSP); None takes `protocols.protocol_of` them.
        diagnose: also class the errors, which judges the predictions four more times.
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
    predictions = predict(predictor, people, truth)
    judgement = PROTOCOLS[name].judge(predictions, truth, chosen)
    return Result(
        metric=PROTOCOLS[name].metric,
        value=judgement.value,
        numbers=judgement.numbers,
        diagnosis=diagnosed(judgement, truth) if diagnose else None,
        protocol=provenance(predictor, people, truth, name, chosen),
        predictions=predictions,
    )


def settings_of(predictor: Predictor, **others) -> Settings:
    """The settings that a predictor has, and others."""
    return Settings(
        codec=name_of(predictor.codec),
        flip_test=predictor.flip_test,
        flip_shift=getattr(predictor.codec, "flip_shift", False),
        **others,
    )


def diagnosed(judgement: ProtocolResult, truth: People) -> dict:
    """The errors of a judgement by class, and what each class costs."""
    found = diagnosis.diagnose(judgement.joints, judgement.rows, truth, judgement.good)
    bad = [name for name in diagnosis.CLASSES if name != "good"]
    return found.to_dict({name: 100 * (judgement.value_of(found.mended(name)) - judgement.value) for name in bad})
