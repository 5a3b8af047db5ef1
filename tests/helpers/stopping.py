"""A micro training through the command line, stopped at given places: `python stopping.py RUN DATA PLACE...`.

A place is ``SIGNAL:EVENT:COUNT``, for example ``SIGTERM:train:3``: the process sends itself that signal at the third
training step; ``test`` counts validation steps, ``write`` the moments at which a state may be half-written. After a
signal that leaves the process alive it starts again with the same command, for the next place, and prints what the
command returned. ``never`` stops nowhere.
"""

import os
import signal
import sys

import micro

from keras_mrpose.cli import main as command_line
from keras_mrpose.paper import experiments
from keras_mrpose.training import checkpointing, train

COMMAND = ("train", "micro", "--save-every", "0", "--resume")


class Trigger:
    """Sends the signal when an event has come so many times."""

    def __init__(self, place):
        if place == "never":
            self.event = None
            return
        name, self.event, count = place.split(":")
        self.signal, self.left = signal.Signals[name], int(count)

    def count(self, event):
        if event == self.event:
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), self.signal)


def watch(trigger):
    """Have these functions tell the trigger, before they do their work and after it."""
    for owner, name, event in (
        (checkpointing.SaveState, "on_train_batch_end", "train"),
        (checkpointing.SaveState, "on_test_batch_end", "test"),
        (checkpointing.np, "savez", "write"),
        (checkpointing.os, "fsync", "write"),
        (checkpointing.os, "replace", "write"),
    ):
        original = getattr(owner, name)

        def told(*arguments, original=original, event=event, **options):
            trigger().count(event)
            result = original(*arguments, **options)
            if event == "write":
                trigger().count(event)
            return result

        setattr(owner, name, told)


def main(run_folder, folder, *places):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it starts in the background
    train.networks.build = micro.micro
    experiments.EXPERIMENTS["micro"] = micro.EXPERIMENT_OF_ALL
    current = Trigger("never")
    watch(lambda: current)
    for place in places:
        current = Trigger(place)
        arguments = [*COMMAND, "--data", folder, "--run", run_folder]
        print(f"\nreturned {command_line.main(arguments)}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
