"""Published weights, fetched once into Keras' cache (`~/.keras`, or the environment's `KERAS_HOME`)."""

from __future__ import annotations

import hashlib
from pathlib import Path

import keras

from keras_mrpose.errors import InputError, short_message
from keras_mrpose.presets import Preset

CACHE = "models/keras_mrpose"  # in Keras' cache


def download(name: str, preset: Preset) -> Path:
    """The file of a preset in Keras' cache, fetched if it is not there, its SHA-256 checked each time.

    Args:
        name: of the preset, for messages.
        preset: its row, which has an address.

    Raises:
        InputError: it cannot be fetched, or is not the published file; such a file has been deleted from the cache.
    """
    try:
        path = Path(keras.utils.get_file(origin=preset.address, cache_subdir=CACHE))
    except Exception as error:  # Keras raises a bare one for a failed download
        raise InputError(
            f"The preset {name!r} could not be downloaded ({short_message(error.__context__ or error)}); check the "
            f"connection, or fetch {preset.address} in another way and give the file as weights."
        ) from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(preset.sha256):
        path.unlink()
        raise InputError(
            f"{path}, the file of the preset {name!r}, was spoilt (its SHA-256 begins with {digest[:8]}, not "
            f"{preset.sha256}) and has been deleted; try again to download it, or ask {preset.address} for it by hand."
        )
    return path
