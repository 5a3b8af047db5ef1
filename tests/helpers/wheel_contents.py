"""What a wheel has to hold: `python tests/wheel_contents.py FILE.whl`, run by `.ci/wheel`."""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def missing(wheel):
    """Files of the package that a wheel lacks, and files that it should not have."""
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "keras_mrpose").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as file:
        packed = {name for name in file.namelist() if ".dist-info/" not in name}
        facts = {Path(name).name: name for name in file.namelist() if ".dist-info/" in name}
        scripts = file.read(facts["entry_points.txt"]).decode()
    assert "mrpose = keras_mrpose.cli.main:main" in scripts
    assert "LICENSE" in facts
    assert {"keras_mrpose/py.typed", "keras_mrpose/paper/mpii.csv", "keras_mrpose/cli/main.py"} <= packed
    return package ^ packed


if __name__ == "__main__":
    if wrong := missing(sys.argv[1]):
        sys.exit(f"the wheel and the package differ: {', '.join(sorted(wrong))}")
