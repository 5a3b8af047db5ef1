"""What an experiment is: frozen dataclasses that are written beside every run and can be read again."""

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


def _filled(kind: type, values: dict):
    """The dataclass with exactly these values; a missing one does not silently become today's default."""
    if differing := {field.name for field in fields(kind)} ^ set(values):
        raise ValueError(f"missing or unknown: {', '.join(sorted(differing))}")
    for name, wanted in get_type_hints(kind).items():
        if not _fits(values[name], wanted):
            raise ValueError(f"{name} is {reprlib.repr(values[name])}")
    return kind(**values)


def _fits(value, kind) -> bool:
    """Whether a value out of a file is of a field's type; a whole number does for a float, true for neither."""
    if kind in (int, float):
        return isinstance(value, int | kind) and not isinstance(value, bool) and abs(value) < 2**63
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(_fits(item, get_args(kind)[0]) for item in value)
    return any(_fits(value, one) for one in get_args(kind)) if get_args(kind) else isinstance(value, kind)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained (defaults: published, COCO and MPII).

    Args:
        epochs: passes over the training people.
        batch_size: people per step, over all devices.
        accumulate: steps whose gradients are averaged before the weights are updated once, so that an update sees
            ``accumulate * batch_size`` people. Epochs and schedule go on counting steps; an epoch may end between two
            updates, and the next one goes on with what is accumulated.
        optimizer: ``"adam"``, or ``"adamw"``, which also lets the weights decay.
        learning_rate: Adam's, at its highest.
        weight_decay: AdamW's: an update takes ``learning_rate * weight_decay`` of each kernel away; not of biases and
            batch norms.
        epsilon: Adam's. The loss is a mean over all heatmap pixels, most of them empty, so its gradients are so small
            (1e-6 and below) that Keras' default of 1e-7 would slow the training down.
        schedule: ``"step"`` multiplies by 0.1 at each milestone; ``"cosine"`` falls to 1 % along a half cosine.
        milestones: shares of the epochs at which ``"step"`` steps (published: 120 and 150 of 170).
        warmup: share of the steps over which the learning rate first rises from zero; ``"cosine"`` falls after it,
            ``"step"`` steps where it would without.
        ema: momentum, at its highest, of the moving average of the weights, which is what is validated and saved, with
            batch-norm statistics recomputed for it, see `training.averaging`; 0 is no average. It grows with the
            updates made, see `optimizers.Adam`.
        ohkm_topk: the loss is that of so many joints of each person, those with the highest; 0 is of all.
        frozen_stages: so many stages of the backbone, with what comes before them, keep the weights and the batch norm
            statistics that they start with: 1 is up to C2, 4 is all of it; 0 trains everything.
        precision: Keras dtype policy; heatmaps are float32 in all of them.
        sync_batch_norm: batch norms take their statistics over the people of all devices, not over each one's share.
        seed: of initial weights, order and augmentation.
    """

    epochs: int = 170
    batch_size: int = 64
    accumulate: int = 1
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
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for name in ("epochs", "batch_size", "accumulate"):
            value = getattr(self, name)
            require(isinstance(value, int) and value > 0, "recipe", name, value, "a positive whole number")
        counts = isinstance(self.ohkm_topk, int) and self.ohkm_topk >= 0
        require(counts, "recipe", "ohkm_topk", self.ohkm_topk, "a number of joints, or 0 for all")
        stages = isinstance(self.frozen_stages, int) and 0 <= self.frozen_stages <= 4
        require(stages, "recipe", "frozen_stages", self.frozen_stages, "a number of stages, 0 to 4")
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
        seed_fits = isinstance(self.seed, int) and 0 <= self.seed < 2**32  # what NumPy's generator takes
        require(seed_fits, "recipe", "seed", self.seed, "a whole number from 0 to below 2**32")


@dataclass(frozen=True)
class Experiment:
    """One training: which network, on people of which skeleton, by which recipe.

    Args:
        name: of the experiment, and of its run folder unless another is given.
        model: one of `keras_mrpose.list_models()`.
        backbone: one of `keras_mrpose.list_backbones()`.
        skeleton: of the data: ``"coco"``, ``"mpii"``, ``"lsp"``, or a `Skeleton` of one's own.
        input_size: ``(height, width)`` of the crop in pixels, multiples of 32.
        sigma: of the target heatmaps, in heatmap pixels.
        codec: how joints become heatmaps and heatmaps joints: ``"gaussian"`` (published), ``"dark"`` or ``"udp"``.
        augmentation: of training crops.
        recipe: of the training.
        backbone_weights: what the backbone started from, ``"imagenet"`` or a file; None is random.
        weights: what the whole network started from, a file.
        map_joints: `weights` may be of another skeleton; joints that both name are kept.
        sources: of the people, if they are of several data sets.
        crops_per_epoch: of these; None is as many as there are people.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", tuple(self.input_size))
        if self.skeleton in SKELETONS.values():  # one experiment, one form
            object.__setattr__(self, "skeleton", self.skeleton.name)
        require(
            len(self.input_size) == 2 and all(n > 0 and n % 32 == 0 for n in self.input_size),
            "experiment", "input_size", self.input_size, "a height and a width, both multiples of 32",
        )  # fmt: skip
        object.__setattr__(self, "sources", tuple(self.sources))
        names = [source.name for source in self.sources]
        require(len(set(names)) == len(names), "experiment", "sources", names, "each source a name of its own")
        crops = self.crops_per_epoch
        whole = crops is None or (isinstance(crops, int) and crops > 0)
        require(whole, "experiment", "crops_per_epoch", crops, "a positive whole number, or nothing")
        require(0 < self.sigma < math.inf, "experiment", "sigma", self.sigma, "a positive number of heatmap pixels")

    def save(self, path: str | Path) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Experiment:
        """Read what `save` wrote; a missing, unknown or wrong file or field is an `InputError` that names it."""
        try:
            values = json.loads(Path(path).read_text())
            values["augmentation"] = _filled(Augmentation, values["augmentation"])
            values["recipe"] = _filled(Recipe, values["recipe"])
            values["sources"] = tuple(_filled(Source, source) for source in values["sources"])
            if isinstance(values["skeleton"], dict):
                values["skeleton"] = Skeleton.from_dict(values["skeleton"])
            return _filled(cls, values)
        except FileNotFoundError:
            raise InputError(f"{path} is not there; give the folder of a run made by `train`.") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{path} is not the config of a run ({short_message(error)}); use one written by `train`."
            ) from error
