"""What an experiment is: frozen dataclasses that are written beside every run and can be read again."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from keras_mrpose.errors import InputError

SCHEDULES = ("step", "cosine")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def _require(condition: bool, what: str, field: str, value, wanted: str) -> None:
    if not condition:
        raise InputError(f"The {what}'s {field} is {value!r}; give {wanted}.")


def _filled(kind: type, values: dict):
    """The dataclass with exactly these values; a missing one does not silently become today's default."""
    if differing := {field.name for field in fields(kind)} ^ set(values):
        raise ValueError(f"missing or unknown: {', '.join(sorted(differing))}")
    return kind(**values)


@dataclass(frozen=True)
class Augmentation:
    """How far a training crop may differ from the annotated one (defaults: published, COCO).

    Args:
        scale: the crop window is scaled by clip(1 + scale * normal, 1 - scale, 1 + scale).
        rotation: degrees; the angle is clip(rotation * normal, -2 * rotation, 2 * rotation).
        rotation_probability: share of the crops that are rotated at all.
        flip_probability: share of the crops that are mirrored.
    """

    scale: float = 0.3
    rotation: float = 40.0
    rotation_probability: float = 0.6
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("scale", 0, 0.99),  # at 1 the crop window could shrink to nothing
            ("rotation", 0, 180),
            ("rotation_probability", 0, 1),
            ("flip_probability", 0, 1),
        ):
            _require(low <= getattr(self, name) <= high, "augmentation", name, getattr(self, name), f"{low} to {high}")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained (defaults: published, COCO and MPII).

    Args:
        epochs: passes over the training people.
        batch_size: people per step, over all devices.
        learning_rate: Adam's, at its highest.
        epsilon: Adam's. The loss is a mean over all heatmap pixels, most of them empty, so its gradients are so small
            (1e-6 and below) that Keras' default of 1e-7 would slow the training down.
        schedule: ``"step"`` multiplies by 0.1 at each milestone; ``"cosine"`` falls to 1 % along a half cosine.
        milestones: shares of the epochs at which ``"step"`` steps (published: 120 and 150 of 170).
        warmup: share of the steps over which ``"cosine"`` first rises from zero.
        precision: Keras dtype policy; heatmaps are float32 in all of them.
        seed: of initial weights, order and augmentation.
    """

    epochs: int = 170
    batch_size: int = 64
    learning_rate: float = 1e-3
    epsilon: float = 1e-8
    schedule: str = "step"
    milestones: tuple[float, ...] = (120 / 170, 150 / 170)
    warmup: float = 0.05
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            _require(isinstance(value, int) and value > 0, "recipe", name, value, "a positive whole number")
        _require(0 < self.learning_rate < math.inf, "recipe", "learning_rate", self.learning_rate, "a positive number")
        _require(self.schedule in SCHEDULES, "recipe", "schedule", self.schedule, " or ".join(SCHEDULES))
        _require(self.precision in PRECISIONS, "recipe", "precision", self.precision, ", ".join(PRECISIONS))
        _require(0 <= self.warmup < 1, "recipe", "warmup", self.warmup, "a share from 0 to below 1")
        _require(
            all(0 < m < 1 for m in self.milestones) and list(self.milestones) == sorted(self.milestones),
            "recipe", "milestones", self.milestones, "rising shares of the epochs between 0 and 1",
        )  # fmt: skip
        seed_fits = isinstance(self.seed, int) and 0 <= self.seed < 2**32  # what NumPy's generator takes
        _require(seed_fits, "recipe", "seed", self.seed, "a whole number from 0 to below 2**32")


@dataclass(frozen=True)
class Experiment:
    """One training: which network, on people of which skeleton, by which recipe.

    Args:
        name: of the experiment, and of its run folder unless another is given.
        model: one of `keras_mrpose.list_models()`.
        backbone: one of `keras_mrpose.list_backbones()`.
        skeleton: name of the skeleton of the data (``"coco"``, ``"mpii"``, ``"lsp"``).
        input_size: ``(height, width)`` of the crop in pixels, multiples of 32.
        sigma: of the target heatmaps, in heatmap pixels.
        codec: how joints become heatmaps and heatmaps joints: ``"gaussian"`` (published), ``"dark"`` or ``"udp"``.
        augmentation: of training crops.
        recipe: of the training.
        backbone_weights: what the backbone started from, ``"imagenet"`` or a file; None is random.
        weights: what the whole network started from, a file.
        map_joints: `weights` may be of another skeleton; joints that both name are kept.
    """

    name: str
    model: str = "mrfeanet2"
    backbone: str = "resnet50"
    skeleton: str = "coco"
    input_size: tuple[int, int] = (256, 192)
    sigma: float = 2.0
    codec: str = "gaussian"
    augmentation: Augmentation = Augmentation()
    recipe: Recipe = Recipe()
    backbone_weights: str | None = None
    weights: str | None = None
    map_joints: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "input_size", tuple(self.input_size))
        _require(
            len(self.input_size) == 2 and all(n > 0 and n % 32 == 0 for n in self.input_size),
            "experiment", "input_size", self.input_size, "a height and a width, both multiples of 32",
        )  # fmt: skip
        _require(0 < self.sigma < math.inf, "experiment", "sigma", self.sigma, "a positive number of heatmap pixels")

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
            return _filled(cls, values)
        except FileNotFoundError:
            raise InputError(f"{path} is not there; give the folder of a run made by `train`.") from None
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is not the config of a run ({error}); use one written by `train`.") from error
