"""The five networks as a table, and `build`.

A network is a head on a backbone. Input: RGB in [0, 255]; the first layer, one `keras.layers.Rescaling`, brings it into
the range that the weights were trained for. The model carries its skeleton and its codec, so that a saved `.keras` file
is all that a prediction needs.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import keras

from keras_mrpose import skeletons
from keras_mrpose.calibration import Calibration
from keras_mrpose.codecs import Codec
from keras_mrpose.codecs import codec as codec_of
from keras_mrpose.errors import InputError, lookup
from keras_mrpose.losses import HeatmapMSE
from keras_mrpose.models import agreement, heads, pretrained
from keras_mrpose.models.backbones import (
    BACKBONES,
    LEVELS,
    PREPROCESSING,
    WIDTH,
    attach,
    build_backbone,
    feature_layers,
)
from keras_mrpose.models.distillation import Distillation
from keras_mrpose.models.fuse import DepthToSpace
from keras_mrpose.models.hardware import on_cpu
from keras_mrpose.models.normalization import BatchNorm
from keras_mrpose.optimizers import Adam
from keras_mrpose.presets import PRESETS
from keras_mrpose.skeletons import Skeleton

_LOG = logging.getLogger(__name__)
SHUFFLE_PLACE = 7  # of the argument of `fit`, behind x and y
INPUT_MULTIPLE = 32  # of C5: sides must be multiples of it, else the branches of a network do not meet

NETWORKS: dict[str, Callable] = {
    "simplebaseline": heads.simple_baseline,
    "mrheatnet1": partial(heads.multi_resolution_heatmaps, sequential=True),
    "mrheatnet2": partial(heads.multi_resolution_heatmaps, sequential=False),
    "mrfeanet1": partial(heads.multi_resolution_features, halving=False),
    "mrfeanet2": partial(heads.multi_resolution_features, halving=True),
}
PUBLISHED_NAMES = {
    "pose_resnet": "simplebaseline",
    "mrheat1_pose_resnet": "mrheatnet1",
    "mrheat2_pose_resnet": "mrheatnet2",
    "mrfea1_pose_resnet": "mrfeanet1",
    "mrfea2_pose_resnet": "mrfeanet2",
}


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """What is built inside has this policy of Keras, such as ``"mixed_bfloat16"``; afterwards all is as before."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def xla_pays() -> bool:
    """Whether XLA should compile the steps of a network where nobody says: not those of TensorFlow on a CPU.

    There oneDNN's kernels take an eighth of its time (MRFeaNet1 on MobileNetV2, AVX2: training 147 against 1,180 ms a
    crop, prediction 41 against 300), and it compiles for a minute. JAX has no other way.
    """
    return not on_cpu()


class PoseModel(keras.Model):
    """A Functional model from images (batch, H, W, 3) to heatmaps (batch, H/4, W/4, joints), made by `build`.

    `compile`, `fit` and `evaluate` are those of Keras, and notice what does not fit together (see
    `keras_mrpose.models.agreement`).

    Args:
        inputs: the image, symbolic.
        outputs: the heatmaps, symbolic.
        name: of the model.
        skeleton: joints of the heatmaps; this and the next two are always to be given.
        codec: encodes points as heatmaps and decodes heatmaps to points.
        spec: arguments that `build` made it with: name, backbone, input_shape, num_joints,
            include_preprocessing, preprocessing.
        calibration: turns scores, the heights of peaks, into probabilities; None if it was not fitted. It holds for the
            weights that it was fitted to: `fit` takes it away.
    """

    def __init__(
        self,
        inputs,
        outputs,
        name: str | None = None,
        *,
        skeleton: Skeleton | None = None,
        codec: Codec | None = None,
        spec: dict | None = None,
        calibration: Calibration | None = None,
        **kwargs,
    ):
        if skeleton is None:  # `keras.models.clone_model` gives inputs, outputs and name
            original = _original_of(outputs)
            skeleton, codec = original.skeleton, original.codec
            spec, calibration = original.spec, original.calibration
        super().__init__(inputs=inputs, outputs=outputs, name=name, **kwargs)
        self.skeleton = skeleton
        self.codec = codec
        self.calibration = calibration
        self._spec = dict(spec)
        if not xla_pays():
            self.jit_compile = False  # `predict` of a network that is not compiled, too

    @classmethod
    def from_preset(cls, preset: str, **arguments) -> PoseModel:
        """A trained network by name: `build(preset=preset, ...)`.

        Args:
            preset: see `list_presets`.
            arguments: others of `build`, such as `input_shape`, or `skeleton` with `map_joints`.
        """
        return build(preset=preset, **arguments)

    @property
    def spec(self) -> dict:
        """A copy of the arguments that `build` made this model with."""
        return {**self._spec, "input_shape": tuple(self._spec["input_shape"])}

    def __repr__(self) -> str:
        (_, height, width, _), (*_, joints) = self.input_shape, self.output_shape
        size = f"{height}x{width}, {joints} joints ({self.skeleton.name}), {self.count_params():,} parameters"
        return f"<{type(self).__name__} {self.name}: {size}>"

    @property
    def backbone(self) -> keras.Model:
        """View of the part from images to {"C2", "C3", "C4", "C5"}, a Functional model; the layers are this network's.

        ``model.backbone.trainable = False``, before `compile`, keeps its weights and batch norm statistics.
        """
        features = self._features()
        view = keras.Model(self.input, features, name=self._spec["backbone"])
        if _is_frozen(view.layers):
            view.trainable = False
        return view

    @property
    def head(self) -> Head:
        """View of the part from {"C2", "C3", "C4", "C5"} to heatmaps; the layers are this network's."""
        names = {layer.name for layer in self.backbone.layers}
        of_head = [layer for layer in self.layers if layer.name not in names]
        return Head(self._features(), self.output, of_head, name=f"{self._spec['name']}_head")

    def _features(self) -> dict:
        """Symbolic C2..C5."""
        if not {"name", "backbone"} <= self._spec.keys():
            raise InputError(f"{self.name} was not made by keras_mrpose.build, which says what its backbone is.")
        of_levels = zip(LEVELS, feature_layers(self._spec["backbone"]), strict=True)
        return {level: self.get_layer(name).output for level, name in of_levels}

    def compile(
        self,
        optimizer=None,
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        *,
        teacher: PoseModel | None = None,
        teacher_share: float = 0.5,
        **kwargs,
    ):
        """Compile as Keras does; what is left out is this network's own.

        Args:
            optimizer: None is Adam as published: 1e-3, with an epsilon that suits the small gradients of heatmaps.
            loss: None is `HeatmapMSE`; also by name, ``"heatmap_mse"``.
            loss_weights: as in Keras.
            metrics: of a network without a loss of the caller's None is PCK with the torso of the skeleton (OKSAP for
                one without a torso), ``[]`` is none; also by names: ``"pck"``, ``"pckh"``, ``"oks_ap"``, for this
                network's skeleton.
            weighted_metrics: likewise, and None is none.
            teacher: a trained network to learn from as well, see `models.distillation`; it is not saved with this one.
            teacher_share: of the teacher in the loss of training; the labels have the rest.
            kwargs: others of Keras. ``jit_compile="auto"``, the default, is False for TensorFlow on a CPU (`xla_pays`).

        Losses and metrics of this package without a codec get the network's.

        Raises:
            InputError: one has another codec, the skeleton no torso, which PCK divides by, or the teacher does not fit.
        """
        if loss is None and metrics is None:
            metrics = agreement.own_metrics(self.skeleton)
        loss, metrics, weighted_metrics = (
            agreement.named(parts, self.skeleton) for parts in (loss or HeatmapMSE(), metrics, weighted_metrics)
        )
        agreement.give_codec(self.codec, [loss, metrics, weighted_metrics])
        self._distillation = None if teacher is None else Distillation(teacher, self, teacher_share)
        self._compile(optimizer or Adam(epsilon=1e-8), loss, loss_weights, metrics, weighted_metrics, **kwargs)

    def _compile(
        self, optimizer="rmsprop", loss=None, loss_weights=None, metrics=None, weighted_metrics=None, **kwargs
    ):
        if not xla_pays() and kwargs.get("jit_compile", "auto") == "auto":
            kwargs["jit_compile"] = False
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)
        self._lengths = agreement.lengths_of([metrics, weighted_metrics])

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The loss as Keras computes it; in training with the teacher's part, if there is a teacher."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        distillation = getattr(self, "_distillation", None)
        return distillation(loss, x, y_pred) if training and distillation else loss

    def compile_from_config(self, config: dict) -> None:
        """Compile with what `get_compile_config` returned; files of old may have another codec, and are warned of."""
        config = keras.saving.deserialize_keras_object(config)
        try:
            self.compile(**config)
        except InputError as mismatch:
            _LOG.warning("%s", mismatch)
            self._compile(**config)
        if self.optimizer:
            self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *args, **kwargs):
        """Train as Keras does; data of `data.pipeline.batches` without end say how many steps an epoch has.

        Raises:
            InputError: data of another size, of other joints or for another codec, or without end and length.
        """
        validation = kwargs.get("validation_data")
        if validation is not None:
            data = validation if isinstance(validation, tuple | list) else (validation,)
            self._meet(kwargs, "validation_steps", *data[:2])
        self._meet(kwargs, "steps_per_epoch", x, y)
        if hasattr(x, "element_spec") and len(args) < SHUFFLE_PLACE:
            kwargs.setdefault("shuffle", False)  # a data set has shuffled itself; Keras warns that it cannot
        self.calibration = None
        if self.compiled and not self.optimizer.built:  # else TensorFlow traces the first step twice
            with self.distribute_strategy.scope() if hasattr(self, "distribute_strategy") else nullcontext():
                self.optimizer.build(self.trainable_variables)
        return super().fit(x, y, *args, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Loss and metrics as Keras counts them; raises what `fit` does."""
        self._meet(kwargs, "steps", x, y)
        return super().evaluate(x, y, *args, **kwargs)

    def _meet(self, kwargs: dict, argument: str, data, target=None) -> None:
        """Check data, and set the number of steps where they have no end."""
        agreement.check_data(self, self.codec, getattr(self, "_lengths", {}), data, target)
        if kwargs.get(argument) is None and (steps := agreement.steps_of(data, argument)):
            kwargs[argument] = steps

    def save(self, filepath, overwrite=True, zipped=None, **kwargs) -> None:
        """Save as Keras does: a `.keras` file (or an `.h5`, which Keras calls legacy)."""
        kind = type(self)
        if kind is PoseModel and str(filepath).endswith(".keras"):
            self.__class__ = _PoseModelInFile
        try:
            super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
        finally:
            self.__class__ = kind

    def get_config(self) -> dict:
        """Config of the graph as a plain Functional model, with skeleton, codec, spec and calibration."""
        graph = keras.Model(self.input, self.output, name=self.name, trainable=self.trainable)
        return {
            "graph": graph.get_config(),
            "skeleton": self.skeleton.to_dict(),
            "codec": keras.saving.serialize_keras_object(self.codec),
            "spec": {**self._spec, "input_shape": list(self._spec["input_shape"])},
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }

    def _run_through_graph(self, *args, **kwargs):
        """What the graph makes of inputs; symbolic outputs remember whose it is, for `keras.models.clone_model`."""
        outputs = super()._run_through_graph(*args, **kwargs)
        if isinstance(outputs, keras.KerasTensor):
            outputs.graph_of = weakref.ref(self)
        return outputs

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> PoseModel:
        """The model of a config, with random weights."""
        own_layers = {"BatchNorm": BatchNorm, "DepthToSpace": DepthToSpace}  # which an `.h5` has by these names
        graph = keras.Model.from_config(config["graph"], custom_objects={**own_layers, **(custom_objects or {})})
        return cls(
            graph.input,
            graph.output,
            skeleton=Skeleton.from_dict(config["skeleton"]),
            codec=keras.saving.deserialize_keras_object(config["codec"], custom_objects=custom_objects),
            spec=config["spec"],
            calibration=Calibration.from_dict(config["calibration"]) if config.get("calibration") else None,
            name=graph.name,
            trainable=graph.trainable,
        )


def _original_of(outputs) -> PoseModel:
    """The model whose graph made these outputs."""
    original = getattr(outputs, "graph_of", lambda: None)()
    if original is None:
        raise InputError(
            "A PoseModel has no skeleton; give skeleton, codec and spec, or let keras_mrpose.build make it."
        )
    return original


class Head(keras.Model):
    """View of the part of a network that makes heatmaps of feature maps; it shares the layers.

    Call it with {"C2", "C3", "C4", "C5"}, as `PoseModel.backbone` returns them; what it returns are the heatmaps.
    (A Functional model from feature maps on would call the layers once more, after which they have no `output`.)
    """

    def __init__(self, features: dict, heatmaps, of_head: list[keras.layers.Layer], name: str):
        super().__init__(name=name, trainable=not _is_frozen(of_head))
        self.parts = of_head
        self._graph = keras.Function(features, heatmaps)
        self.built = True

    def call(self, features, training=None):
        """Heatmaps ``(batch, H/4, W/4, joints)`` of the feature maps."""
        return self._graph(features)


def _is_frozen(of_view: list[keras.layers.Layer]) -> bool:
    """Whether none of the layers that have weights is to be trained."""
    return not any(layer.trainable for layer in of_view if layer.weights)


class _PoseModelInFile(PoseModel):
    """`PoseModel` while it is saved: Keras writes class and module beside the registered name, by which it loads it.

    Without our classes it can only quote them: it imports no modules but those of its own packages (since 3.11). For
    another package's class its error has the whole config, 84 kB; for one that its own module lacks, only the name.
    """


_PoseModelInFile.__module__, _PoseModelInFile.__name__ = "keras", "PoseModel (first: from keras_mrpose import build)"
keras.saving.register_keras_serializable("keras_mrpose", "PoseModel")(_PoseModelInFile)
keras.saving.register_keras_serializable("keras_mrpose", "PoseModel")(PoseModel)  # the last is what Keras makes
keras.saving.get_custom_objects()["PoseModel"] = PoseModel  # an `.h5` has no other name


def list_models() -> list[str]:
    """Names that `build` takes (it takes the published names, such as `mrfea2_pose_resnet`, as well)."""
    return list(NETWORKS)


def build(
    name: str | None = None,
    backbone: str | keras.Model | None = None,
    input_shape: tuple[int, int, int] | None = None,
    num_joints: int | None = None,
    *,
    preset: str | None = None,
    skeleton: str | Skeleton | None = None,
    weights: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    include_preprocessing: bool = True,
    preprocessing: str | None = None,
    map_joints: bool = False,
    codec: str | Codec | None = None,
) -> PoseModel:
    """Build one of the five networks, or a trained one by the name of its preset.

    Args:
        name: see `list_models`; any case; published names too. With a preset it can be left out.
        backbone: see `list_backbones`; by default the preset's, and "resnet50" without one. Or a Functional keras.Model
            of your own with feature maps at strides 4, 8, 16 and 32 as its outputs or its `pyramid_outputs`
            (KerasHub's backbones). The network gets a copy of it, with its weights; say with `preprocessing` or
            `include_preprocessing` what images it was trained on.
        input_shape: (height, width, 3), sides multiples of 32; by default the preset's, and (256, 192, 3) without one.
        num_joints: number of heatmaps; by default as many as the skeleton has joints, and 17 without one.
        skeleton: name of a skeleton or one of your own; by default the one with `num_joints` joints.
        preset: name of a trained network, see `list_presets`: `weights` of that name, with its network, backbone and
            input size. The published ones are downloaded, once, into Keras' cache.
        weights: the whole network's, loaded last: the name of a preset, a `.keras` or `.weights.h5` file of this
            library, or a state dict of the published network or of MMPose (a PyTorch file such as `.pth.tar`, or a
            `.npz` with the same names). A preset, a `.keras` file and a state dict bring their preprocessing (and their
            joints, if neither `num_joints` nor `skeleton` is given); their input size may be another. A `.weights.h5`
            file holds numbers only: give the same `backbone_weights` as for the model that wrote it.
        backbone_weights: None (random), a state dict with torchvision's names, a `.npz` with folded batch norms
            (`LAYER.kernel`, `LAYER.bias`, layers named as in `keras.applications`; before training see
            `normalization.match_statistics`), a Keras `.h5` file without classifier, or "imagenet", which downloads
            Keras' own; nothing else touches the network. ResNet files in "caffe" layout
            (stride on the first 1x1 of a block) are for `resnet50`, torchvision's own (stride on the 3x3) for
            `resnet50_v1b`: the names in the file are the same.
        include_preprocessing: False leaves the first layer out; the input is then what that layer would have made of
            RGB 0..255, for example (x / 255 - mean) / std.
        preprocessing: what the first layer does; None takes what the weights were trained with. "torchvision":
            (x / 255 - mean) / std; "published": the same with blue's and red's numbers exchanged, as the published
            training on BGR had it; "caffe": minus (123.68, 116.779, 103.939); "symmetric": x / 127.5 - 1.
        map_joints: `weights` may be of another skeleton: joints whose names both have keep their part of the head,
            the others start random, to be trained.
        codec: "gaussian" (published; the default), "dark" or "udp", with sigma 2, or 3 from a height of 384 on; or a
            codec of your own sigma, such as `DarkCodec(1.5)`. By default that of a preset or of a `.keras` file.

    Returns:
        A Functional model: RGB 0..255, (batch, H, W, 3), to float32 heatmaps, (batch, H/4, W/4, joints).

    Raises:
        InputError: a name, size, number or file is wrong, or a preset cannot be downloaded.
    """
    defaults = None, "resnet50", (256, 192, 3)
    if preset is not None:
        if weights is not None:
            raise InputError(f"The preset {preset!r} brings its weights; give preset or weights, not both.")
        weights = lookup("preset", preset, PRESETS)
        row = PRESETS[weights]
        defaults = row.network, row.backbone, (*row.input_size, 3)
    name, backbone, input_shape = (
        default if given is None else given
        for given, default in zip((name, backbone, input_shape), defaults, strict=True)
    )
    if name is None:
        raise InputError(
            f"The network's name is None; give one of {', '.join(NETWORKS)}, or preset, one of list_presets()."
        )
    name = lookup("network", name, [*NETWORKS, *PUBLISHED_NAMES])
    name = PUBLISHED_NAMES.get(name, name)
    own = backbone if isinstance(backbone, keras.Model) else None
    backbone = lookup("backbone", backbone, BACKBONES) if own is None else f"own_{own.name}"
    if own is not None and backbone_weights is not None:
        raise InputError("backbone_weights are for backbones by name; load those of your own model before.")
    input_shape = _checked_shape(input_shape)
    asked = {"name": name, "backbone": backbone, "include_preprocessing": bool(include_preprocessing)}
    whole = pretrained.pose_weights(weights, asked)
    if codec is None:
        codec = whole.codec or "gaussian"
    codec = codec_of(codec, sigma=3.0 if input_shape[0] >= 384 else 2.0)
    skeleton = _checked_skeleton(skeleton, num_joints, whole.skeleton)
    preprocessing = _preprocessing(preprocessing, whole, backbone, backbone_weights)

    image = x = keras.Input(input_shape, name="image")
    if include_preprocessing:
        scale, offset = PREPROCESSING[preprocessing]
        x = keras.layers.Rescaling(scale, offset, name="preprocessing", dtype="float32")(x)
    if own is None:
        features_model, features = build_backbone(backbone, x)
        if backbone_weights is not None:
            pretrained.load_backbone(features_model, backbone, backbone_weights, preprocessing)
    else:
        features = attach(own, x)
    heatmaps = NETWORKS[name](features, skeleton.num_joints, BACKBONES[backbone].width if own is None else WIDTH)
    spec = {
        "name": name,
        "backbone": backbone,
        "input_shape": input_shape,
        "num_joints": skeleton.num_joints,
        "include_preprocessing": bool(include_preprocessing),
        "preprocessing": preprocessing,
    }
    model = PoseModel(image, heatmaps, skeleton=skeleton, codec=codec, spec=spec, name=f"{name}_{backbone}")
    whole.assign(model, map_joints)
    return model


def _preprocessing(asked: str | None, whole: pretrained.PoseWeights, backbone: str, backbone_weights) -> str:
    """Key of `PREPROCESSING`: what was asked for if the weights allow it, else what they were trained with."""
    if asked is not None:
        asked = lookup("preprocessing", asked, PREPROCESSING)
    needed = whole.preprocessing(asked)
    if needed is None:
        of_keras = BACKBONES[backbone].keras_preprocessing if backbone in BACKBONES else None
        if of_keras and pretrained.source_kind(backbone_weights) in ("keras", "folded"):
            needed = of_keras
        else:
            needed = asked or "torchvision"  # random weights take any
    if asked not in (None, needed):
        raise InputError(f"The weights were trained with {needed!r} preprocessing, but {asked!r} is asked for.")
    return lookup("preprocessing", needed, PREPROCESSING)


def _checked_skeleton(skeleton: str | Skeleton | None, num_joints: int | None, known: Skeleton | None) -> Skeleton:
    """The skeleton that was asked for, else that of the weights, else the one that has so many joints."""
    if num_joints is not None and (isinstance(num_joints, bool) or not isinstance(num_joints, int) or num_joints < 1):
        raise InputError(f"num_joints is {num_joints!r}; give a whole number of at least 1.")
    if skeleton is None:
        of_weights = known is not None and num_joints in (None, known.num_joints)
        skeleton = known if of_weights else skeletons.for_joint_count(17 if num_joints is None else num_joints)
    skeleton = skeletons.get(skeleton)
    if num_joints not in (None, skeleton.num_joints):
        raise InputError(
            f"num_joints is {num_joints}, but the skeleton {skeleton.name!r} has {skeleton.num_joints} joints; "
            "leave num_joints out."
        )
    return skeleton


def _checked_shape(input_shape) -> tuple[int, int, int]:
    try:
        height, width, channels = (int(side) for side in input_shape)
    except (TypeError, ValueError):
        raise InputError(f"input_shape is {input_shape!r}; give (height, width, 3).") from None
    if channels != 3:
        raise InputError(
            f"input_shape {tuple(input_shape)} has {channels} channels; the networks take RGB, 3 channels."
        )
    for side, value in (("height", height), ("width", width)):
        if value < INPUT_MULTIPLE or value % INPUT_MULTIPLE:
            below, above = (
                max(INPUT_MULTIPLE, value // INPUT_MULTIPLE * INPUT_MULTIPLE),
                max(INPUT_MULTIPLE, -(-value // INPUT_MULTIPLE) * INPUT_MULTIPLE),
            )
            sizes = f"{below} or {above}" if below != above else f"{below}"
            raise InputError(
                f"The input {side} is {value}, which is no positive multiple of {INPUT_MULTIPLE}; take {sizes}."
            )
    return height, width, channels
