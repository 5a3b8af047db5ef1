"""The command line `mrpose`: one file per command, each with `register_parser(subparsers)` and `handle(args)`.

Importing these modules imports nothing heavy, so that `--help` answers at once: TensorFlow and whatever stands on it
are imported inside the functions that need them.
"""
