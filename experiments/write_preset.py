"""Write a trained network into the package as a preset: its float16 export, and what Keras needs besides.

    python experiments/write_preset.py RUN people

The export is verified on the crops that come with the preset. A new preset takes a row in `keras_mrpose.presets` and
crops (`preset_crops.py`) first; a calibration should be fitted before (`mrpose calibrate RUN`).
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import keras

from keras_mrpose.export import export_litert
from keras_mrpose.models.preset_weights import KERAS, write_preset
from keras_mrpose.predict.predictor import load_model
from keras_mrpose.presets import LITERT, exported_file, read_crops
from keras_mrpose.runtime.litert import SIDECAR


def main() -> None:
    """Export, add the rest, replace the preset's files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder, or a .keras file")
    parser.add_argument("name", help="of the preset")
    args = parser.parse_args()
    model = load_model(args.run)
    assert isinstance(model, keras.Model), f"{args.run} has been exported already"
    place = exported_file(args.name).parent
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "export"
        crops = read_crops(args.name)
        report = export_litert(model, folder, ["float16"], people=crops)
        write_preset(model, folder)
        print(report.markdown())
        for name in (LITERT, SIDECAR, KERAS):
            shutil.copyfile(folder / name, place / name)


if __name__ == "__main__":
    main()
