"""Average trained networks of one kind into a new one, weight by weight (Wortsman et al. 2022, "model soups").

    python experiments/average_networks.py mean.keras people saved_models/people-288 --parts 1 1

Worth a try where one was trained on from the other: far apart, the mean is worse than each. It has the first one's
input size, skeleton and codec, and no calibration (`mrpose calibrate`).
"""

from __future__ import annotations

import argparse

import keras
import numpy as np

from keras_mrpose.errors import InputError
from keras_mrpose.models.networks import PoseModel
from keras_mrpose.predict.predictor import load_model
from keras_mrpose.presets import PRESETS


def main() -> None:
    """Read, average, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", help="new .keras file")
    parser.add_argument("networks", nargs="+", help="run folders, .keras files, or networks of the package")
    parser.add_argument("--parts", type=float, nargs="+", help="of each in the mean (default: one each)")
    args = parser.parse_args()
    parts = args.parts or [1.0] * len(args.networks)
    if len(parts) != len(args.networks) or min(parts) < 0 or sum(parts) <= 0:
        parser.error(f"--parts are {parts}; give one of at least 0 for each of the {len(args.networks)} networks")
    first, *others = map(load, args.networks)
    for name, other in zip(args.networks[1:], others, strict=True):
        if kind(other) != kind(first):
            parser.error(f"{name} is {other!r}, no network of the same kind as {first!r}")
    each = zip(*(network.get_weights() for network in (first, *others)), strict=True)
    first.set_weights([np.average(weights, axis=0, weights=parts) for weights in each])
    first.calibration = None
    first.save(args.out)
    print(f"{first!r} written to {args.out}")


def kind(network: PoseModel) -> tuple:
    """What two networks have in common if the mean of their weights is one, too."""
    return network.spec["name"], network.skeleton.joints, [weight.shape for weight in network.weights]


def load(name: str) -> PoseModel:
    """The network in Keras."""
    model = PoseModel.from_preset(name) if name in PRESETS else load_model(name)
    if not isinstance(model, keras.Model):
        raise InputError(f"{name} has been exported already; give the network that was trained.")
    return model


if __name__ == "__main__":
    main()
