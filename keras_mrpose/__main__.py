"""`python -m keras_mrpose`: the command line."""

import sys

from keras_mrpose.cli.main import main

sys.exit(main(program="python -m keras_mrpose"))
