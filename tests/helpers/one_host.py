"""One process of a training on several machines, for test_hosts: `python one_host.py '{"index": 0, ...}'`.

It trains the network of micro.py with all that a training can carry along, and writes down what it has at the end.
"""

import json
import logging
import os
import signal
import sys
import time
from dataclasses import replace

import keras
import numpy as np
from micro import EXPERIMENT_OF_ALL, micro, people_of

from keras_mrpose.errors import InputError
from keras_mrpose.training import callbacks, distributed, train


class Dying(callbacks.TimeLimit):
    """Sends its process a signal, or fails, at the beginning of a batch of the second epoch."""

    signal, batch = None, None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        if (self.epoch, batch) == (1, self.batch):
            if self.signal == "error":
                raise InputError("a mistake of one process")
            os.kill(os.getpid(), signal.Signals[self.signal])
            time.sleep(4)  # JAX looks for signals once a second


def main(folder, run, result, addresses="", index=0, die=None, timeout=120, rate=3e-3, **options):
    """Train; the exit code is the command line's."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train.networks.build = micro
    if die is not None:
        Dying.signal, Dying.batch = die
        train.TimeLimit = Dying
    built, models = train.build, []
    train.build = lambda *arguments: models.append(built(*arguments)) or models[-1]
    people, validation = people_of(folder)
    experiment = replace(EXPERIMENT_OF_ALL, recipe=replace(EXPERIMENT_OF_ALL.recipe, learning_rate=rate))
    try:
        with distributed.join(addresses, index, timeout) if addresses else distributed.ProcessGroup() as joined:
            history = train.train(experiment, people, validation.take(slice(7)), run, process_group=joined, **options)
            values = {variable.path: keras.ops.convert_to_numpy(variable) for variable in models[0].variables}
            values |= {v.path: keras.ops.convert_to_numpy(v) for v in models[0].optimizer.variables}
            np.savez(result, history=json.dumps(history), **values)
    except InputError as mistake:
        print(f"error: {mistake}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(stopped, file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(**json.loads(sys.argv[1])))
