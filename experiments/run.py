"""The command line from a checkout, installed or not: `python experiments/run.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from keras_mrpose.cli.main import main

if __name__ == "__main__":
    sys.exit(main(program="python experiments/run.py"))
