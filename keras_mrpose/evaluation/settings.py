"""What can still be chosen after a network has run: how its heatmaps are read, merged, and people selected."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_mrpose.codecs import CODECS, Codec
from keras_mrpose.errors import InputError
from keras_mrpose.evaluation.suppression import SUPPRESSIONS


@dataclass(frozen=True)
class Settings:
    """Defaults are the published ones.

    Args:
        codec: that reads the heatmaps, a key of `heatmaps.CODECS`.
        flip_test: whether the heatmaps of the mirrored crop are averaged in.
        flip_shift: whether these are moved to where the codec says that they belong.
        suppression: COCO; ``"hard"``, ``"soft"`` or ``"none"``, see `selection.select`.
        oks_threshold: COCO; of the suppression.
        joint_threshold: COCO; joints above this score make a person's score.
        threshold: PCK; share of the torso that a joint may be off. (PCKh's is 0.5 of the head size.)
    """

    codec: str = "gaussian"
    flip_test: bool = True
    flip_shift: bool = True
    suppression: str = "hard"
    oks_threshold: float = 0.9
    joint_threshold: float = 0.2
    threshold: float = 0.2

    def __post_init__(self) -> None:
        if self.suppression not in SUPPRESSIONS:
            raise InputError(f"Unknown suppression {self.suppression!r}; give one of {', '.join(SUPPRESSIONS)}.")
        if not self.oks_threshold > 0:
            raise InputError(f"The OKS threshold is {self.oks_threshold}; give a positive number, such as 0.9.")
        if not self.threshold > 0:
            raise InputError(f"The PCK threshold is {self.threshold}; give a positive share of the torso, such as 0.2.")

    @property
    def decoding(self) -> str:
        """Which of the saved joints these settings read, a key of `Predictions.joints`."""
        flip = "flip+shift" if self.flip_shift else "flip"
        return f"{self.codec}/{flip if self.flip_test else 'single'}"


def decode_variants(codec: Codec, flip_test: bool) -> dict[str, tuple[Codec, bool]]:
    """All ways to read a network's heatmaps.

    Args:
        codec: one that can read them; the other ones that measure heatmaps alike, with its sigma, can too.
        flip_test: whether there are heatmaps of mirrored crops.

    Returns:
        `Settings.decoding` -> codec, and whether it merges a flip test.
    """
    found = {}
    for name, kind in CODECS.items():
        reader = codec if type(codec) is kind else kind(codec.sigma)
        if not np.array_equal(reader.scale((96, 64)), codec.scale((96, 64))):
            continue
        found[f"{name}/single"] = reader, False
        config = reader.get_config()
        shifts = (False, True) if "flip_shift" in config else (None,)
        for shift in shifts if flip_test else ():
            merging = reader if shift is None else kind.from_config({**config, "flip_shift": shift})
            found[f"{name}/flip+shift" if shift else f"{name}/flip"] = merging, True
    return found
