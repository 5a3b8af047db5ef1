"""The same work by PyTorch and by this library, in turn, with the same weights: who is faster, and how sure that is."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path

import keras
import numpy as np
import published
import tensorflow as tf
import torch
from measure import made_photographs, people_of, random_batch, training_step
from rich.table import Table
from timing import Spread, console, in_a_process, machine, seconds

from keras_mrpose import build, save_state_dict
from keras_mrpose.data import pipeline
from keras_mrpose.data.augmentation import Augmentation
from keras_mrpose.data.people import People
from keras_mrpose.evaluation import predictions
from keras_mrpose.models import fuse, networks
from keras_mrpose.predict.predictor import Predictor

NETWORKS = ("simplebaseline", "mrfeanet2")
PRECISIONS = ("float32", "mixed_bfloat16")
PUBLISHED = "PyTorch, as published"
PHOTOGRAPHS = (("640x480", (480, 640), 48), ("12 megapixels", (3000, 4000), 8))  # and how many
WAITING = 4  # batches that PyTorch's loader of two processes has ready at most; ours has three
EVALUATED = 8  # batches of an evaluation, so that tracing the graphs, a second, is little of it
AGREE = 2e-3  # of the highest peak: float32 sums in another order, through some 60 layers


def measure_peers(arguments) -> dict:
    """Milliseconds of each work by everybody who does it, and the ratio of PyTorch's best to ours."""
    facts = {**machine(arguments.threads), "pytorch": torch.__version__}
    console.print(", ".join(f"{name} {value}" for name, value in facts.items()), style="dim")
    backbone = "tiny_v1b" if arguments.backbone == "tiny_v1b" else "resnet50_v1b"
    rows = []
    for network in (name for name in NETWORKS if name in arguments.networks):
        parts = (_measure_prediction, _measure_training, _measure_evaluation)
        for part in parts if network == NETWORKS[0] else parts[:2]:  # an evaluation is twice the prediction
            rows += in_a_process(_measure, part, network, backbone, arguments)
    rows += in_a_process(_measure_loaders, arguments)
    table = Table(
        title=f"PyTorch and keras_mrpose, {backbone}, {'x'.join(map(str, arguments.input_size))}, ms per image",
        caption="median (min..max) of rounds in which everybody has a turn; ratio: PyTorch / ours, round by round",
    )
    for column in ("work", "published", "PyTorch's best", "ours", "best / ours", "published / ours"):
        table.add_column(column, justify="left" if column == "work" else "right")
    for row in rows:
        times = row["milliseconds"]
        best, ours = row["best_of_pytorch"], row["ours"]
        table.add_row(
            row["work"],
            str(Spread(**times[PUBLISHED])),
            f"{Spread(**times[best])}\n{best.partition(', ')[2]}",
            f"{Spread(**times[ours])}\n{ours.partition(', ')[2]}",
            str(Spread(**row["ratio"])),
            str(Spread(**row["ratio_to_published"])),
        )
    console.print(table)
    return {"machine": facts, "peers": rows}


def _row(
    work: str,
    actions: dict[str, Callable],
    images: int,
    repetitions: int,
    before: dict[str, Callable] | None = None,
    **facts,
) -> dict:
    """Time actions of so many images in turn, each after what is to be done `before` it; the first two rounds, which
    compile and warm up, do not count.
    """
    times = {name: [] for name in actions}
    for number in range(2 + repetitions):
        for name, action in actions.items():
            if before:
                before[name]()
            took = seconds(action, 1, warm_up=0)[0]
            if number > 1:
                times[name].append(1e3 * took / images)
    spreads = {name: Spread.of(some) for name, some in times.items()}
    torch, ours = (
        min((name for name in spreads if name.startswith("PyTorch") == peer), key=lambda name: spreads[name].median)
        for peer in (True, False)
    )

    def ratio(peer):
        return asdict(Spread.of([one / other for one, other in zip(times[peer], times[ours], strict=True)]))

    console.print(f"{work}: " + "; ".join(f"{name} {spread}" for name, spread in spreads.items()), style="dim")
    return {
        "work": work,
        "milliseconds": {name: asdict(spread) for name, spread in spreads.items()},
        "best_of_pytorch": torch,
        "ours": ours,
        "ratio": ratio(torch),
        "ratio_to_published": ratio(PUBLISHED),
        **facts,
    }


# --- networks


def _measure(part: Callable, network: str, backbone: str, arguments) -> list[dict]:
    """One of the following parts, with a network that all have with the same weights."""
    keras.utils.set_random_seed(0)
    size, ours = tuple(arguments.input_size), {}
    for precision in PRECISIONS:
        with networks.precision(precision):
            ours[precision] = build(network, backbone=backbone, input_shape=(*size, 3), preprocessing="torchvision")
    _vary_norms(ours["float32"])
    ours["mixed_bfloat16"].set_weights(ours["float32"].get_weights())
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.npz"
        save_state_dict(ours["float32"], file)
        with np.load(file) as content:
            weights = {name: value for name, value in content.items() if name != "preprocessing"}
    joints = ours["float32"].skeleton.num_joints
    peer = partial(_Peer, network=network, backbone=backbone, joints=joints, weights=weights)
    return part(network, peer, ours, arguments)


def _vary_norms(model) -> None:
    """Batch norms as a training leaves them: TensorFlow leaves out, say, the addition of an offset that is 0."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for values, low, high in (
                (layer.beta, -0.2, 0.2),
                (layer.moving_mean, -0.2, 0.2),
                (layer.moving_variance, 0.8, 1.2),
            ):
                values.assign(rng.uniform(low, high, values.shape))


def _measure_prediction(network: str, peer: Callable, ours: dict, arguments) -> list[dict]:
    """A batch, and a single crop."""
    images = _batch(ours, arguments)[0].numpy()
    names = (*_PEERS, COMPILED) if arguments.compile else _PEERS
    peers = {name: peer(name) for name in names}
    deviation = _check(peers, ours, images)
    graphs = {f"ours, {name}": _graph(model) for name, model in ours.items()}
    graphs |= {f"ours, {name}, fused": fuse.inference_function(model) for name, model in ours.items()}
    rows = []
    for label, some in ((f"batch {len(images)}", images), ("one crop", images[:1])):
        actions = {name: partial(one.predict, one.images(some)) for name, one in peers.items()}
        actions |= {name: partial(_predict, graph, tf.constant(some)) for name, graph in graphs.items()}
        rows.append(_row(f"{network}, {label}", actions, len(some), arguments.repetitions, deviation=deviation))
    return rows


def _measure_training(network: str, peer: Callable, ours: dict, arguments) -> list[dict]:
    """Forward, backward, Adam and the loss as a number."""
    tensors = _batch(ours, arguments)
    images, target = (tensor.numpy() for tensor in tensors)
    height, width = arguments.input_size
    maps, _ = ours["float32"].codec.encode(target[..., :2], target[..., 2], (height // 4, width // 4))
    maps = keras.ops.convert_to_numpy(maps)
    actions = {name: peer(name).training(images, maps) for name in _PEERS}
    for name, model in ours.items():
        step = training_step(model, *tensors)
        actions[f"ours, {name}"] = lambda step=step: float(step())
    work = f"{network}, training step, batch {len(images)}"
    return [_row(work, actions, len(images), arguments.repetitions)]


def _batch(ours: dict, arguments) -> tuple[tf.Tensor, tf.Tensor]:
    return random_batch(arguments.batch_size, tuple(arguments.input_size), ours["float32"].skeleton.num_joints)


def _measure_evaluation(network: str, peer: Callable, ours: dict, arguments) -> list[dict]:
    """From image files and boxes to joints in the image, with the flip test, as `evaluate` and the published loop go.

    The published loader's processes start anew for each evaluation, as there; the start is left out by taking the first
    batch before the clock starts.
    """
    batch, size = arguments.batch_size, tuple(arguments.input_size)
    peers = {name: peer(name) for name in (PUBLISHED, BEST)}
    with tempfile.TemporaryDirectory() as folder:
        people = made_photographs(Path(folder), (480, 640), EVALUATED * batch)
        data = _published(published.Boxes, people, size, len(people))
        flips, waiting = people.skeleton.flip_indices, {}

        def start(name):
            loader = _loader(data, batch)
            waiting[name] = iter(loader)
            waiting[name] = itertools.chain([next(waiting[name])], waiting[name])
            time.sleep(1)

        def evaluate(name):
            one = peers[name]
            for crops, placed in waiting[name]:
                crops = crops.to(memory_format=one.layout)
                maps, flipped = one.predict(crops), one.predict(crops.flip(3))
                flipped = flipped[:, :, ::-1][..., flips]
                flipped[:, :, 1:] = flipped[:, :, :-1].copy()
                published.joints_of(np.ascontiguousarray(((maps + flipped) / 2).transpose(0, 3, 1, 2)), placed.numpy())

        actions = {name: partial(evaluate, name) for name in peers}
        before = {name: partial(start, name) for name in actions}
        for name, model in ours.items():
            predictor = Predictor(model, batch_size=batch)
            actions[f"ours, {name}"] = partial(predictions.predict, predictor, people)
            before[f"ours, {name}"] = partial(time.sleep, 1)
        return [_row(f"{network}, evaluation, flip test", actions, len(people), arguments.repetitions, before)]


def _published(kind: type, people: People, size: tuple[int, int], length: int):
    """The published data set of these people."""
    paths = [str(path) for path in people.paths()]
    return kind(paths, people.boxes, people.keypoints, people.skeleton.flip_indices, size, length)


def _loader(data, batch: int):
    """The published loader with as many processes as cores."""
    return torch.utils.data.DataLoader(
        data,
        batch,
        num_workers=min(2, os.cpu_count() or 1),
        worker_init_fn=published.one_thread,
        multiprocessing_context="spawn",
    )


BEST = "PyTorch, channels_last, bfloat16"
COMPILED = f"{BEST}, compiled"  # predicts only: compiling a training takes many minutes, and did not make it faster
_PEERS = (PUBLISHED, "PyTorch, channels_last", BEST)


class _Peer:
    """A PyTorch network as one of `_PEERS` runs it, or `COMPILED`."""

    def __init__(self, name: str, network: str, backbone: str, joints: int, weights: dict):
        self.layout = torch.channels_last if "channels_last" in name else torch.contiguous_format
        self.half = "bfloat16" in name
        model = published.PoseNetwork(network, backbone, joints)
        model.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in weights.items()})
        self.model = model.to(memory_format=self.layout)
        self.run = torch.compile(self.model) if name == COMPILED else self.model
        self.mean, self.std = (
            torch.from_numpy(255 * values.reshape(1, 3, 1, 1)) for values in (published.MEAN, published.STD)
        )

    def images(self, images: np.ndarray):
        """Images ``(n, h, w, 3)`` 0..255 as its loader would give them."""
        found = (torch.from_numpy(images.transpose(0, 3, 1, 2).copy()) - self.mean) / self.std
        return found.to(memory_format=self.layout)

    def _autocast(self):
        return torch.autocast("cpu", torch.bfloat16) if self.half else nullcontext()

    def predict(self, images) -> np.ndarray:
        """Heatmaps ``(n, h / 4, w / 4, joints)``."""
        self.model.eval()
        with torch.inference_mode(), self._autocast():
            return self.run(images).float().numpy().transpose(0, 2, 3, 1)

    def training(self, images: np.ndarray, maps: np.ndarray) -> Callable[[], float]:
        """A training step."""
        images = self.images(images)
        target = torch.from_numpy(maps.transpose(0, 3, 1, 2).copy())
        weight = torch.ones(target.shape[:2])
        optimizer = torch.optim.Adam(self.model.parameters(), 1e-3)

        def step():
            self.model.train()
            with self._autocast():
                loss = published.loss_of(self.run(images).float(), target, weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.item()

        return step


def _graph(model) -> Callable:
    return tf.function(lambda images: model(images, training=False))


def _predict(graph: Callable, images: tf.Tensor) -> np.ndarray:
    return graph(images).numpy()


def _check(peers: dict, ours: dict, images: np.ndarray) -> dict[str, float]:
    """How far everybody's heatmaps lie from ours in float32, as a share of the highest; float32 ones must agree."""
    wanted = keras.ops.convert_to_numpy(ours["float32"](images, training=False))
    found = {name: peer.predict(peer.images(images)) for name, peer in peers.items()}
    found |= {
        f"ours, {name}": keras.ops.convert_to_numpy(model(images, training=False)) for name, model in ours.items()
    }
    deviation = {name: float(np.abs(maps - wanted).max() / np.abs(wanted).max()) for name, maps in found.items()}
    for name, share in deviation.items():
        if "bfloat16" not in name and share > AGREE:
            raise RuntimeError(f"{name} is not the same network: its heatmaps differ by {share:.2%} of the highest.")
    return deviation


# --- input


def _measure_loaders(arguments) -> list[dict]:
    """Augmented crops from JPEG files: of `--data`, if given, and of made photographs of two sizes."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        if arguments.data:
            rows.append(_measure_loader(Path(arguments.data).name, people_of(arguments.data), arguments))
        for label, size, count in PHOTOGRAPHS:
            (of_size := Path(folder) / label).mkdir()
            people = made_photographs(of_size, size, count)
            rows.append(_measure_loader(f"JPEGs of {label}", people, arguments))
    return rows


def _measure_loader(label: str, people: People, arguments) -> dict:
    """Augmented crops and targets from image files, on all cores."""
    batch, crop = min(arguments.batch_size, 8), tuple(arguments.input_size)
    steps = max(2, arguments.steps) * (8 if len(people) > 8 else 1)
    rounds = 2 + arguments.repetitions
    data = _published(published.Crops, people, crop, (rounds * (steps + WAITING) + 2 * WAITING) * batch)
    theirs = iter(_loader(data, batch))
    own = iter(pipeline.batches(people, crop, batch, augmentation=Augmentation()))

    def take(iterator, batches):
        for _ in range(batches):
            next(iterator)

    def settle(iterator, pause):
        time.sleep(pause)  # the other one fills up what it had given, and rests
        take(iterator, WAITING)  # what had waited costs nothing now

    pause = 2 * seconds(partial(take, theirs, WAITING), 1, warm_up=1)[0]
    before = {name: partial(settle, one, pause) for name, one in ((PUBLISHED, theirs), ("ours", own))}
    actions = {name: partial(take, one, steps) for name, one in ((PUBLISHED, theirs), ("ours", own))}
    return _row(f"augmented crops, {label}", actions, steps * batch, arguments.repetitions, before)
