"""An experiment and its training recipe: frozen dataclasses, saved as JSON with every run."""

from __future__ import annotations

import json
import math
import reprlib
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.mixture import Source
from keras_mrpose.errors import InputError, require, short_message
from keras_mrpose.skeletons import SKELETONS, Skeleton

SCHEDULES = ("step", "cosine")
OPTIMIZERS = ("adam", "adamw")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def _from_dict(kind: type, values: dict):
    """A dataclass from exactly these values; a missing one does not silently become today's default."""
    if differing := {field.name for field in fields(kind)} ^ set(values):
        raise ValueError(f"missing or unknown: {', '.join(sorted(differing))}")
    for name, wanted in get_type_hints(kind).items():
        if not _fits(values[name], wanted):
            raise ValueError(f"{name} is {reprlib.repr(values[name])}")
    return kind(**values)


def _fits(value, kind) -> bool:
    """Whether a value from JSON has the type of a field: an integer may stand for a float, but true for neither."""
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool) and abs(value) < 2**63
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    return any(_fits(value, one) for one in get_args(kind)) if get_args(kind) else isinstance(value, kind)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; the defaults are the published ones for COCO and MPII.

    Args:
        epochs: passes over the training people.
        batch_size: people per step, over all devices.
        gradient_accumulation_steps: steps whose gradients are averaged for one update of the weights, so that an
            update sees ``gradient_accumulation_steps * batch_size`` people. Epochs and schedule count steps; an epoch
            may end between two updates, and the next one continues the sum.
        optimizer: ``"adam"``, or ``"adamw"``, which adds weight decay.
        learning_rate: Adam's, at its maximum.
        weight_decay: AdamW's: an update takes ``learning_rate * weight_decay`` of each kernel away; not of biases and
            batch norms.
        epsilon: Adam's. The loss is a mean over all heatmap pixels, most of them empty, so its gradients are so small
            (1e-6 and below) that Keras' default of 1e-7 would slow the training down.
        schedule: ``"step"`` multiplies by 0.1 at each milestone; ``"cosine"`` falls to 1 % along a half cosine.
        milestones: shares of the epochs at which ``"step"`` steps (published: 120 and 150 of 170).
        warmup: share of the steps over which the learning rate first rises from zero; ``"cosine"`` falls after it,
            ``"step"`` steps where it would without.
        ema: momentum, at its maximum, of the moving average of the weights, which is what is validated and saved, with
            batch-norm statistics recomputed for it, see `training.optimization`; 0 is no average. It grows with the
            updates made, see `optimizers.Adam`.
        ohkm_topk: the loss is over this many joints of each person, those with the highest loss; 0 is over all.
        frozen_stages: this many stages of the backbone, with the stem, keep the weights and the batch norm statistics
            that they start with: 1 is up to C2, 4 is the whole backbone; 0 trains everything.
        precision: Keras dtype policy; heatmaps are always float32.
        sync_batch_norm: batch norms take their statistics over the people of all devices, not of each device's share.
        teacher: a trained network whose heatmaps are learnt, too, see `models.distillation`: the name of a preset or a
            ``.keras`` file, which has to stay as it is while the training goes on; None is none.
        teacher_share: of the teacher in the loss, above 0 and at most 1; the labels have the rest.
        seed: of initial weights, order and augmentation.
    """

    epochs: int = 170
    batch_size: int = 64
    gradient_accumulation_steps: int = 1
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    epsilon: float = 1e-8
    schedule: str = "step"
    milestones: tuple[float, ...] = (120 / 170, 150 / 170)
    warmup: float = 0.0
    ema: float = 0.0
    ohkm_topk: int = 0
    frozen_stages: int = 0
    precision: str = "float32"
    sync_batch_norm: bool = False
    teacher: str | None = None
    teacher_share: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for name in ("epochs", "batch_size", "gradient_accumulation_steps"):
            value = getattr(self, name)
            require(isinstance(value, int) and value > 0, "recipe", name, value, "a positive whole number")
        valid_topk = isinstance(self.ohkm_topk, int) and self.ohkm_topk >= 0
        require(valid_topk, "recipe", "ohkm_topk", self.ohkm_topk, "a number of joints, or 0 for all")
        valid_stages = isinstance(self.frozen_stages, int) and 0 <= self.frozen_stages <= 4
        require(valid_stages, "recipe", "frozen_stages", self.frozen_stages, "a number of stages, 0 to 4")
        require(self.optimizer in OPTIMIZERS, "recipe", "optimizer", self.optimizer, " or ".join(OPTIMIZERS))
        if self.optimizer == "adamw":
            require(
                0 < self.weight_decay < math.inf,
                "recipe", "weight_decay", self.weight_decay, "a positive number, which adamw needs (or choose adam)",
            )  # fmt: skip
        else:
            require(
                self.weight_decay == 0, "recipe", "weight_decay", self.weight_decay, "0, or choose the optimizer adamw"
            )
        require(0 < self.learning_rate < math.inf, "recipe", "learning_rate", self.learning_rate, "a positive number")
        require(self.schedule in SCHEDULES, "recipe", "schedule", self.schedule, " or ".join(SCHEDULES))
        require(self.precision in PRECISIONS, "recipe", "precision", self.precision, ", ".join(PRECISIONS))
        require(0 <= self.warmup < 1, "recipe", "warmup", self.warmup, "a share from 0 to below 1")
        require(0 <= self.ema < 1, "recipe", "ema", self.ema, "a momentum from 0 to below 1")
        require(
            all(0 < m < 1 for m in self.milestones) and list(self.milestones) == sorted(self.milestones),
            "recipe", "milestones", self.milestones, "rising shares of the epochs between 0 and 1",
        )  # fmt: skip
        share = self.teacher_share
        require(0 < share <= 1, "recipe", "teacher_share", share, "a share above 0 and at most 1")
        valid_seed = isinstance(self.seed, int) and 0 <= self.seed < 2**32  # what NumPy's generator takes
        require(valid_seed, "recipe", "seed", self.seed, "a whole number from 0 to below 2**32")


@dataclass(frozen=True)
class Experiment:
    """One training: the network, the skeleton of the people, and the recipe.

    Args:
        name: of the experiment, and of its run folder unless another is given.
        model: one of `keras_mrpose.list_models()`.
        backbone: one of `keras_mrpose.list_backbones()`.
        skeleton: of the data: ``"coco"``, ``"mpii"``, ``"lsp"``, or a `Skeleton`.
        input_size: ``(height, width)`` of the crop in pixels, multiples of 32.
        sigma: of the target heatmaps, in heatmap pixels.
        codec: encodes joints to heatmaps and decodes them: ``"gaussian"`` (published), ``"dark"`` or ``"udp"``.
        augmentation: of training crops.
        recipe: of the training.
        backbone_weights: initial weights of the backbone, ``"imagenet"`` or a file; None is random.
        weights: initial weights of the whole network, a file.
        map_joints: `weights` may be of another skeleton; joints that both have are kept.
        sources: of the people, if they come from several data sets.
        crops_per_epoch: from these sources; None is as many as there are people.
        train_split: of the data set, see `data.load`; written down, not read.
        val_split: likewise; what the commands evaluate on if no other split is named.
    """

    name: str
    model: str = "mrfeanet2"
    backbone: str = "resnet50"
    skeleton: str | Skeleton = "coco"
    input_size: tuple[int, int] = (256, 192)
    sigma: float = 2.0
    codec: str = "gaussian"
    augmentation: Augmentation = field(default_factory=Augmentation)
    recipe: Recipe = Recipe()
    backbone_weights: str | None = None
    weights: str | None = None
    map_joints: bool = False
    sources: tuple[Source, ...] = ()
    crops_per_epoch: int | None = None
    train_split: str = "train"
    val_split: str = "val"

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", tuple(self.input_size))
        if self.skeleton in SKELETONS.values():  # equal experiments compare equal
            object.__setattr__(self, "skeleton", self.skeleton.name)
        require(
            len(self.input_size) == 2 and all(n > 0 and n % 32 == 0 for n in self.input_size),
            "experiment", "input_size", self.input_size, "a height and a width, both multiples of 32",
        )  # fmt: skip
        object.__setattr__(self, "sources", tuple(self.sources))
        names = [source.name for source in self.sources]
        require(len(set(names)) == len(names), "experiment", "sources", names, "each source a name of its own")
        crops = self.crops_per_epoch
        valid_crops = crops is None or (isinstance(crops, int) and crops > 0)
        require(valid_crops, "experiment", "crops_per_epoch", crops, "a positive whole number, or nothing")
        require(0 < self.sigma < math.inf, "experiment", "sigma", self.sigma, "a positive number of heatmap pixels")

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Experiment:
        """Read what `save` wrote; a missing, unknown or wrong file or field is an `InputError` that names it."""
        try:
            values = json.loads(Path(path).read_text())
            values = {"train_split": "train", "val_split": "val", **values}  # which older runs all had
            values["augmentation"] = _from_dict(Augmentation, values["augmentation"])
            without = {"teacher": None, "teacher_share": 0.5}  # as older runs
            values["recipe"] = _from_dict(Recipe, {**without, **values["recipe"]})
            values["sources"] = tuple(_from_dict(Source, source) for source in values["sources"])
            if isinstance(values["skeleton"], dict):
                values["skeleton"] = Skeleton.from_dict(values["skeleton"])
            return _from_dict(cls, values)
        except FileNotFoundError:
            raise InputError(f"{path} is not there; give the folder of a run made by `train`.") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path} is not the config of a run ({short_message(error)}); use one written by `train`."
            ) from error
