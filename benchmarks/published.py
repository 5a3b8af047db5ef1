"""The published networks and their input, in PyTorch: what `peers.py` measures this library against.

Made from the paper's description and the facts that this library is held to, with the published names of tensors, so
that both sides compute with the same weights. No TensorFlow here: the loader's processes import this module.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import nn

RESNETS = {"resnet50_v1b": ((3, 4, 6, 3), 64, 256), "tiny_v1b": ((1, 1, 1, 1), 8, 16)}  # blocks, filters, head's width
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolution, added to the input."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, filters, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv2, self.bn2 = nn.Conv2d(filters, filters, 3, stride, 1, bias=False), nn.BatchNorm2d(filters)
        self.conv3, self.bn3 = nn.Conv2d(filters, 4 * filters, 1, bias=False), nn.BatchNorm2d(4 * filters)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride > 1 or channels != 4 * filters:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * filters, 1, stride, bias=False), nn.BatchNorm2d(4 * filters)
            )

    def forward(self, x):
        """Same sides, or half of them; 4 x filters channels."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)) + shortcut)


def deconvolution(channels: int, filters: int) -> list[nn.Module]:
    """4x4 transposed convolution of stride 2, batch norm, ReLU."""
    up = nn.ConvTranspose2d(channels, filters, 4, 2, 1, bias=False)
    return [up, nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]


class PoseNetwork(nn.Module):
    """SimpleBaseline, or MRFeaNet2: normalised images ``(n, 3, h, w)`` -> heatmaps ``(n, joints, h / 4, w / 4)``."""

    def __init__(self, network: str, backbone: str, joints: int):
        super().__init__()
        blocks, base, width = RESNETS[backbone]
        self.conv1, self.bn1 = nn.Conv2d(3, base, 7, 2, 3, bias=False), nn.BatchNorm2d(base)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        channels, of_level = base, []
        for stage, count in enumerate(blocks):
            layers = []
            for block in range(count):
                layers.append(Bottleneck(channels, base * 2**stage, 2 if stage and not block else 1))
                channels = 4 * base * 2**stage
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            of_level.append(channels)
        self.baseline = network == "simplebaseline"
        if self.baseline:
            first, *rest = (deconvolution(before, width) for before in (channels, width, width))
            self.deconv_layers = nn.Sequential(*first, *(layer for one in rest for layer in one))
        else:
            if of_level[0] != width:
                self.c2_projection = nn.Sequential(nn.Conv2d(of_level[0], width, 1, bias=False), nn.BatchNorm2d(width))
            for names, before in (
                (("deconv3",), of_level[1]),
                (("deconv21", "deconv22"), of_level[2]),
                (("deconv11", "deconv12", "deconv13"), of_level[3]),
            ):
                for left, name in zip(reversed(range(len(names))), names, strict=True):
                    self.add_module(name, nn.Sequential(*deconvolution(before, width * 2**left)))
                    before = width * 2**left
        self.final_layer = nn.Conv2d(width, joints, 1)

    def forward(self, x):
        """Heatmaps."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        if self.baseline:
            return self.final_layer(self.deconv_layers(c5))
        if hasattr(self, "c2_projection"):
            c2 = self.c2_projection(c2)
        up = self.deconv13(self.deconv12(self.deconv11(c5))), self.deconv22(self.deconv21(c4)), self.deconv3(c3)
        return self.final_layer((c2 + sum(up)) / 4)


def loss_of(heatmaps, target, weight):
    """Half the mean squared error of the labelled joints: `weight` is ``(n, joints)``."""
    return 0.5 * ((heatmaps - target).square().mean(dim=(2, 3)) * weight).mean()


class Crops(torch.utils.data.Dataset):
    """Augmented crops and target maps as the published loader makes them, in NumPy and OpenCV.

    Args:
        paths: of the images.
        boxes: ``(people, 4)`` x, y, w, h.
        joints: ``(people, joints, 3)`` x, y, v.
        flip_indices: which joint each becomes in a mirrored image.
        size: ``(height, width)`` of the crops.
        length: of an epoch; people come again and again.
    """

    def __init__(self, paths, boxes, joints, flip_indices, size: tuple[int, int], length: int):
        self.paths, self.boxes, self.joints, self.flip_indices = paths, boxes, joints, list(flip_indices)
        self.size, self.length = size, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int):
        """Normalised crop ``(3, h, w)``, target ``(joints, h / 4, w / 4)`` and weights ``(joints,)``, float32."""
        index %= len(self.boxes)
        height, width = self.size
        image = cv2.cvtColor(cv2.imread(self.paths[index]), cv2.COLOR_BGR2RGB)
        x, y, w, h = self.boxes[index]
        centre, joints = np.array([x + w / 2, y + h / 2]), self.joints[index].copy()
        window = 1.25 * max(w, h * width / height) * np.clip(1 + 0.3 * np.random.randn(), 0.7, 1.3)
        angle = np.clip(40 * np.random.randn(), -80, 80) if np.random.rand() <= 0.6 else 0.0
        if np.random.rand() <= 0.5:
            image, joints = image[:, ::-1], joints[self.flip_indices]
            joints[:, 0], centre[0] = image.shape[1] - 1 - joints[:, 0], image.shape[1] - 1 - centre[0]
        matrix = cv2.getRotationMatrix2D(centre.tolist(), angle, width / window)
        matrix[:, 2] += np.array([width, height]) / 2 - centre
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        points = joints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
        target, weights = self.target(points, joints[:, 2] > 0)
        crop = (crop.astype(np.float32) / 255 - MEAN) / STD
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))), target, weights

    def target(self, points, labelled):
        """A Gaussian patch of 3 sigma around each joint's nearest pixel."""
        height, width = self.size[0] // 4, self.size[1] // 4
        maps, weights = np.zeros((len(points), height, width), np.float32), labelled.astype(np.float32)
        reach = 6
        offset = np.arange(2 * reach + 1) - reach
        patch = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 2**2))
        for joint, (x, y) in enumerate(np.floor(points / 4 + 0.5).astype(int)):
            if not -reach <= x < width + reach or not -reach <= y < height + reach:
                weights[joint] = 0
            elif weights[joint]:
                left, top, right, bottom = max(0, x - reach), max(0, y - reach), x + reach + 1, y + reach + 1
                here = maps[joint, top:bottom, left:right]
                rows, columns = top - y + reach, left - x + reach
                here[:] = patch[rows : rows + here.shape[0], columns : columns + here.shape[1]]
        return torch.from_numpy(maps), torch.from_numpy(weights)


class Boxes(Crops):
    """The same without augmentation, each person once: a crop ``(3, h, w)`` and its centre and window."""

    def __getitem__(self, index: int):
        """Normalised crop, and ``(4,)`` centre x, y, window width and height in image pixels."""
        height, width = self.size
        image = cv2.cvtColor(cv2.imread(self.paths[index]), cv2.COLOR_BGR2RGB)
        x, y, w, h = self.boxes[index]
        centre, window = np.array([x + w / 2, y + h / 2]), 1.25 * max(w, h * width / height)
        matrix = cv2.getRotationMatrix2D(centre.tolist(), 0, width / window)
        matrix[:, 2] += np.array([width, height]) / 2 - centre
        crop = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
        crop = (crop.astype(np.float32) / 255 - MEAN) / STD
        placed = np.float32([*centre, window, window * height / width])
        return torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1))), placed


def joints_of(heatmaps: np.ndarray, placed: np.ndarray) -> np.ndarray:
    """Peaks ``(n, joints, 3)``, moved by a quarter towards the higher neighbour, in image pixels; and their heights."""
    count, joints, height, width = heatmaps.shape
    flat = heatmaps.reshape(count, joints, -1)
    index, scores = flat.argmax(-1), flat.max(-1)
    points = np.stack([index % width, index // width], axis=-1).astype(np.float32) * (scores > 0)[..., None]
    for person in range(count):
        for joint in range(joints):
            x, y = (points[person, joint] + 0.5).astype(int)
            if 1 < x < width - 1 and 1 < y < height - 1:
                one = heatmaps[person, joint]
                slope = np.array([one[y, x + 1] - one[y, x - 1], one[y + 1, x] - one[y - 1, x]])
                points[person, joint] += 0.25 * np.sign(slope)
    scale = placed[:, None, 2:] / np.float32([width, height])
    points = (points - np.float32([width, height]) / 2) * scale + placed[:, None, :2]
    return np.concatenate([points, scores[..., None]], axis=-1)


def one_thread(_: int) -> None:
    """For each process of a loader: OpenCV's own threads only get into each other's way there."""
    cv2.setNumThreads(0)
