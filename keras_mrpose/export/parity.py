"""How near an exported network is to the one it was made from, on the same crops."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from keras_mrpose.errors import InputError

SURE = 0.3  # scores from here on: joints that a network is not confident of may jump


@dataclass(frozen=True)
class Parity:
    """Differences of two networks; those of heatmaps are None where there are only joints.

    Attributes:
        crops: looked at.
        joints: of these crops, that the original is confident of.
        shift_median: distance of the confident joints, in crop pixels.
        shift_95: below which 95 % of these lie.
        shift_worst: the largest.
        correlation: mean over the confident joints of the two heatmaps' correlation; 0 with a map that is constant.
        correlation_least: the worst of these.
        same_peak: share of the confident joints whose highest cell is the same.
        largest: difference of any two heatmap cells.
    """

    crops: int
    joints: int
    shift_median: float
    shift_95: float
    shift_worst: float
    correlation: float | None = None
    correlation_least: float | None = None
    same_peak: float | None = None
    largest: float | None = None

    def to_dict(self) -> dict:
        """Ready for JSON."""
        return asdict(self)


def parity(points, exported_points, scores, heatmaps=None, exported_heatmaps=None, confident: float = SURE) -> Parity:
    """Compare what two networks make of the same crops.

    Args:
        points: ``(n, joints, 2)`` of the original, in crop pixels.
        exported_points: the same of the other network.
        scores: ``(n, joints)`` of the original.
        heatmaps: ``(n, height, width, joints)`` of the original; None if the other network makes none.
        exported_heatmaps: the same of the other network.
        confident: joints of this score or more are compared.

    Raises:
        InputError: outputs of different shape, or no joint that the original is confident of.
    """
    for original, exported in ((points, exported_points), (heatmaps, exported_heatmaps)):
        if np.shape(original) != np.shape(exported):
            raise InputError(
                f"The exported network makes {np.shape(exported)} of what the original makes {np.shape(original)}."
            )
    counted = np.asarray(scores) >= confident
    if not counted.any():
        raise InputError(
            f"The network is confident of no joint of these {len(counted)} crops (no score of {confident:g}): train "
            "it, or give crops of people."
        )
    shift = np.linalg.norm(np.asarray(points, np.float64) - exported_points, axis=-1)[counted]
    of_maps = {} if heatmaps is None else _of_maps(heatmaps, exported_heatmaps, counted)
    return Parity(
        crops=len(counted),
        joints=int(counted.sum()),
        shift_median=float(np.median(shift)),
        shift_95=float(np.percentile(shift, 95)),
        shift_worst=float(shift.max()),
        **of_maps,
    )


def _of_maps(heatmaps: np.ndarray, exported: np.ndarray, counted: np.ndarray) -> dict:
    """The differences of maps, crop by crop: the maps of all crops are large."""
    correlations, same, largest = [], [], []
    for one, other, confident in zip(heatmaps, exported, counted, strict=True):
        joints = one.shape[-1]
        one, other = (np.asarray(maps, np.float64).reshape(-1, joints).T for maps in (one, other))
        largest.append(np.abs(one - other).max())
        one, other = one[confident], other[confident]
        same.append(one.argmax(axis=1) == other.argmax(axis=1))
        one, other = (maps - maps.mean(axis=1, keepdims=True) for maps in (one, other))
        norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        correlations.append((one * other).sum(axis=1) / np.maximum(norms, 1e-12))
    correlations = np.concatenate(correlations)
    return {
        "correlation": float(correlations.mean()),
        "correlation_least": float(correlations.min()),
        "same_peak": float(np.concatenate(same).mean()),
        "largest": float(max(largest)),
    }
