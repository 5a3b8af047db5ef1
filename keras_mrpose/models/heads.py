"""Heads: one heatmap per joint, at stride 4, from a backbone's feature maps.

SimpleBaseline upsamples the last feature map three times; MRHeatNet adds up heatmaps of three resolutions; MRFeaNet
averages features of four. All are one block, the 4x4 transposed convolution with stride 2, wired differently.

A layer is named as the published module with underscores for dots (`deconv1.0.weight` belongs to `deconv1_0`), so
that published checkpoints map one to one. Whatever makes or sums heatmaps is float32 under every dtype policy: maps
are small and their peaks are compared.
"""

from __future__ import annotations

import keras
from keras import layers

from keras_mrpose.models.normalization import BN_MOMENTUM, BatchNorm
from keras_mrpose.models.winograd import WinogradConv2DTranspose

_FLOAT32 = "float32"


def _small_normal():
    """Initializer of a head's kernels, as in the published training."""
    return keras.initializers.RandomNormal(stddev=0.001)


def _bare_deconv(x, filters: int, name: str, dtype=None):
    """Transposed convolution 4x4, stride 2, no bias; "same" crops a pixel on each side, as PyTorch's padding=1."""
    kwargs = {"use_bias": False, "kernel_initializer": _small_normal(), "name": name, "dtype": dtype}
    return WinogradConv2DTranspose(filters, **kwargs)(x)


def _bn_relu(x, name: str, first: int, dtype=None):
    x = BatchNorm(momentum=BN_MOMENTUM, epsilon=1e-5, name=f"{name}_{first}", dtype=dtype)(x)
    return layers.ReLU(name=f"{name}_{first + 1}", dtype=dtype)(x)


def _deconv(x, filters: int, name: str, first: int = 0, dtype=None):
    """Transposed convolution, batch norm and ReLU, named `name`_`first`, +1 and +2."""
    return _bn_relu(_bare_deconv(x, filters, f"{name}_{first}", dtype), name, first + 1, dtype)


def _to_joints(x, joints: int, name: str):
    """1x1 convolution with bias, one filter per joint, float32."""
    return layers.Conv2D(joints, 1, kernel_initializer=_small_normal(), name=name, dtype=_FLOAT32)(x)


def _side_branch(x, joints: int, name: str):
    """Heatmaps of a lower resolution: 1x1 convolution, batch norm, ReLU."""
    return _bn_relu(_to_joints(x, joints, f"{name}_0"), name, 1, _FLOAT32)


def _add(maps: list, name: str):
    return layers.Add(name=name, dtype=_FLOAT32)(maps)


def _output(x):
    """The output, named "heatmaps" as training and export expect."""
    return layers.Activation("linear", name="heatmaps", dtype=_FLOAT32)(x)


def simple_baseline(features: dict, joints: int, width: int):
    """SimpleBaseline: C5, three deconvolutions, 1x1 convolution."""
    x = features["C5"]
    for first in (0, 3, 6):  # one Sequential in the published module, hence the running index
        x = _deconv(x, width, "deconv_layers", first)
    return _output(_to_joints(x, joints, "final_layer"))


def multi_resolution_heatmaps(features: dict, joints: int, width: int, *, sequential: bool):
    """MRHeatNet: heatmaps at strides 16, 8 and 4, brought to stride 4 and added.

    Args:
        features: C2..C5, of which C5 is used.
        joints: number of heatmaps.
        width: filters of the three deconvolutions.
        sequential: True is MRHeatNet1, where the stride-16 maps join those of stride 8 and go up with them; False is
            MRHeatNet2, where each goes up on its own.
    """
    d1 = _deconv(features["C5"], width, "deconv1")
    d2 = _deconv(d1, width, "deconv2")
    d3 = _deconv(d2, width, "deconv3")
    side1 = _deconv(_side_branch(d1, joints, "s_conv1"), joints, "s_deconv1", dtype=_FLOAT32)  # now at stride 8
    side2 = _side_branch(d2, joints, "s_conv2")
    maps = [_to_joints(d3, joints, "final_layer")]
    if sequential:
        maps += [_bare_deconv(_add([side2, side1], "s_add"), joints, "s_deconv2", _FLOAT32)]
    else:
        maps += [
            _bare_deconv(side1, joints, "s_deconv12", _FLOAT32),
            _bare_deconv(side2, joints, "s_deconv2", _FLOAT32),
        ]
    return _add(maps, "heatmaps")


def multi_resolution_features(features: dict, joints: int, width: int, *, halving: bool):
    """MRFeaNet: C3, C4 and C5 go up to stride 4; their mean with C2 goes through one 1x1 convolution.

    Args:
        features: C2..C5. C2 gets a 1x1 convolution and batch norm if it has not `width` channels (ResNet-50 has).
        joints: number of heatmaps.
        width: channels of the mean.
        halving: False is MRFeaNet1, where every deconvolution has `width` filters; True is MRFeaNet2, where a path
            starts wide and halves step by step towards `width`.
    """
    branches = [_project(features["C2"], width)]
    for level, names in (
        ("C3", ("deconv3",)),
        ("C4", ("deconv21", "deconv22")),
        ("C5", ("deconv11", "deconv12", "deconv13")),
    ):
        x = features[level]
        for left, name in zip(reversed(range(len(names))), names, strict=True):
            x = _deconv(x, width * 2**left if halving else width, name)
        branches.append(x)
    mean = layers.Average(name="mean", dtype=_FLOAT32)(branches)
    return _output(_to_joints(mean, joints, "final_layer"))


def _project(x, width: int):
    if x.shape[-1] == width:
        return x
    x = layers.Conv2D(width, 1, use_bias=False, name="c2_projection_0")(x)
    return BatchNorm(momentum=BN_MOMENTUM, epsilon=1e-5, name="c2_projection_1")(x)
