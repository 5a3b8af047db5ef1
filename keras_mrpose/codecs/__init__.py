"""Codecs: encode joint positions as heatmaps, decode heatmaps to positions, merge a flip test.

A codec owns both directions, the scale between crop and heatmap, and the rule that merges a flip test, because they
only fit together. Positions are in heatmap pixels, ``(x, y)``, the centre of the top-left pixel at (0, 0).

- `gaussian`: the published one; positions are rounded to a heatmap pixel.
- `unbiased`: DARK and UDP; nothing is rounded.
"""

from __future__ import annotations

import difflib

from keras_mrpose.codecs.base import Codec, peaks
from keras_mrpose.codecs.gaussian import GaussianCodec
from keras_mrpose.codecs.unbiased import DarkCodec, UDPCodec
from keras_mrpose.errors import InputError

__all__ = ["CODECS", "Codec", "DarkCodec", "GaussianCodec", "UDPCodec", "codec", "name_of", "peaks"]

CODECS: dict[str, type[Codec]] = {"gaussian": GaussianCodec, "dark": DarkCodec, "udp": UDPCodec}


def name_of(codec: Codec) -> str:
    """Name of a codec's class, a key of `CODECS`."""
    return next(name for name, kind in CODECS.items() if type(codec) is kind)


def codec(which: str | Codec, sigma: float = 2.0) -> Codec:
    """Codec of that name with this sigma, or the given one itself.

    Raises:
        InputError: an unknown name, or an impossible sigma.
    """
    if isinstance(which, Codec):
        return which
    name = str(which).lower()
    if name not in CODECS:
        near = difflib.get_close_matches(name, CODECS, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"Unknown codec {which!r}.{hint} Known are: {', '.join(CODECS)}.")
    return CODECS[name](sigma)
