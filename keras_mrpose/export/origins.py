"""Which layers the operations of a converted network come from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence

import keras

from keras_mrpose.errors import InputError
from keras_mrpose.export.outputs import Decoder
from keras_mrpose.runtime.interpreter import Node, nodes


def nodes_of(model: keras.Model, content: bytes, wanted: Sequence[str]) -> list[str]:
    """Names of the tensors that some layers compute.

    Raises:
        InputError: one computes none.
    """
    owners = {node.tensor: layers_of(model, node) for node in nodes(content)}
    for name in wanted:
        if not any(name in layers for layers in owners.values()):
            raise InputError(
                f"float_layers names {name!r}, which has become a part of the operations around it; name these."
            )
    return [tensor for tensor, layers in owners.items() if any(name in layers for name in wanted)]


def layers_of(model: keras.Model, node: Node) -> tuple[str, ...]:
    """Names of the layers that a node comes from.

    Its tensor is called after all operations that became one: ``net_1/relu_1/Relu;net_1/conv1_1/convolution``, where
    the numbers after the layers' names count the calls of a layer. The model's output is called ``Identity``; its
    kernel tells where that comes from.
    """
    names, found = {layer.name for layer in _layers(model)}, []
    parts = re.split("[/;]", node.tensor)
    if parts == ["Identity"]:
        parts = [_last(model), *re.split("[/;]", ";".join(node.constants))]
    for part in parts:
        bare = re.sub(r"_\d+$", "", part)
        found += [name for name in (bare, part) if name in names][:1]
    return tuple(dict.fromkeys(found))


def float_layers_of(model: keras.Model, float_layers: Sequence[str]) -> tuple[str, ...]:
    """The layers that int8 leaves in float."""
    names = [layer.name for layer in _layers(model)]
    for name in float_layers:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else "`summary(expand_nested=True)` shows them."
            raise InputError(f"float_layers names {name!r}, which is no layer of {model.name}; {hint}")
    decoders = (layer.name for layer in _layers(model) if isinstance(layer, Decoder))
    return tuple(dict.fromkeys([*float_layers, *decoders]))


def _layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a model, also those of models in it."""
    for layer in model.layers:
        yield from _layers(layer) if isinstance(layer, keras.Model) else [layer]


def _last(model: keras.Model) -> str:
    """The name of the layer that gives the output."""
    layer = model.get_layer(model.output_names[0])
    return _last(layer) if isinstance(layer, keras.Model) else layer.name
