"""The command line: parse, run one command, turn mistakes into one sentence and an exit code."""

from __future__ import annotations

import argparse
import contextlib
import errno
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import NoReturn

from keras_mrpose.cli import (
    calibrate,
    compare,
    demo,
    doctor,
    evaluate,
    evaluate_results,
    export,
    import_,
    list_,
    predict,
    results,
    study,
    synthesize,
    train,
    upper_bound,
    web,
)
from keras_mrpose.cli.saved_models import SAVED
from keras_mrpose.errors import InputError, install_command

COMMANDS = (
    demo, doctor, train, study, evaluate, evaluate_results, compare, results, upper_bound, calibrate, predict, export,
    web, import_, synthesize, list_,
)  # fmt: skip
# What the library's messages speak of, and what it is called here.
OPTIONS = {
    "resume=True": "--resume",
    "overwrite=True": "--overwrite",
    "map_joints=True": "--map-joints",
    "flip_test=False": "--no-flip",
    "flip_probability=0": "--augment flip_probability=0",
    "val_share=0.1": "--val-share 0.1",
    "skeleton=FILE": "--skeleton FILE",
}
# Errors of a file or a disk and not of the program.
REFUSED = {
    errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
}  # fmt: skip
OLD_SPELLINGS = {"draw": "synthesize", "score": "evaluate-results", "ceiling": "upper-bound"}


def main(argv: Sequence[str] | None = None, program: str = "mrpose") -> int:
    """Run one command; returns the exit code.

    Args:
        argv: command and options, by default those of the process.
        program: how it was started, for the help and for hints at other commands.

    Returns:
        0, 1 if `doctor` finds errors, or `predict` or `export` did without some images, 2 for a user's mistake, 130 for
        Ctrl-C, 143 for a training that SIGTERM has stopped.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in OLD_SPELLINGS:
        argv[0] = OLD_SPELLINGS[argv[0]]
    arguments = make_parser(program).parse_args(argv)
    arguments.command_line = " ".join([program, *argv])  # results say how they were made
    try:
        if arguments.needs_tensorflow(arguments):
            _import_quietly()
        with _messages_on_the_terminal():
            return arguments.handle(arguments) or 0
    except InputError as mistake:
        print(f"error: {with_options(str(mistake))}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] in ("", "keras_mrpose"):
            raise  # a bug of ours
        print(f"error: {missing}; install with: {install_command()}", file=sys.stderr)
        return 2
    except OSError as refused:
        if refused.filename is None or refused.errno not in REFUSED:
            raise
        print(f"error: {refused.filename}: {refused.strerror}.", file=sys.stderr)  # where results should go
        return 2
    except KeyboardInterrupt as stop:
        print(with_options(str(stop)) or "stopped", file=sys.stderr)
        return 128 + getattr(stop, "signal", signal.SIGINT)


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaint is one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        """Print the complaint and exit with 2."""
        self.exit(2, f"error: {message}; see: {self.prog} --help\n")


def make_parser(program: str = "mrpose") -> argparse.ArgumentParser:
    """All commands and their options."""
    top = OneLineParser(
        prog=program,
        description="Multi-resolution human pose estimation in Keras 3. Without a command: demo.",
        epilog=f"`{program} COMMAND --help` lists a command's options.",
    )
    top.set_defaults(program=program, handle=demo.handle, quick=False, run=SAVED / "demo")
    top.set_defaults(needs_tensorflow=lambda arguments: True)  # a command may know better
    subparsers = top.add_subparsers(metavar="COMMAND")
    for command in COMMANDS:
        command.register_parser(subparsers)
    return top


def with_options(message: str) -> str:
    """A message of the library, arguments such as `overwrite=True` replaced by the options that set them."""
    for argument, option in OPTIONS.items():
        message = re.sub(rf"(?<!\w){argument}(?!\w)", option, message)
    return message


class _PlainFormatter(logging.Formatter):
    """The message alone, in the words of the command line."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The text before a traceback, if there is one."""
        return with_options(record.message)


def _import_quietly() -> None:
    """Import TensorFlow without the lines that its C++ start-up writes past every log level."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        import tensorflow

        tensorflow.get_logger().setLevel(logging.ERROR)  # its warnings are for programmers: "retracing"
        if os.environ.get("KERAS_BACKEND") == "jax":  # else both reserve all of a GPU's memory
            tensorflow.config.set_visible_devices([], "GPU")
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


@contextlib.contextmanager
def _messages_on_the_terminal() -> Iterator[None]:
    """Print what the library logs: INFO to stdout, warnings and errors to stderr, the message alone."""
    logger = logging.getLogger("keras_mrpose")
    information, warnings = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    information.addFilter(lambda record: record.levelno < logging.WARNING)
    warnings.setLevel(logging.WARNING)
    for handler in (information, warnings):
        handler.setFormatter(_PlainFormatter())
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(information)
    logger.addHandler(warnings)
    try:
        yield
    finally:
        logger.removeHandler(information)
        logger.removeHandler(warnings)
        logger.level, logger.propagate = before
