"""Which layers a network has: discovery, the traced graph, weights and inputs as matrices."""

from sparsemend.layers._discover import LayerSet, discover, layer_weights
from sparsemend.layers._graph import Graph, Node
from sparsemend.layers._joins import Shortcut, Surroundings, surroundings
from sparsemend.layers._layer import Layer
from sparsemend.layers._matrix import (
    channel_last,
    channel_shape,
    mean_patch,
    pad_input,
    stored_weight,
    unfold,
    weight_matrix,
)
from sparsemend.layers._select import CLASSES, select_layers

__all__ = [
    "CLASSES",
    "Graph",
    "Layer",
    "LayerSet",
    "Node",
    "Shortcut",
    "Surroundings",
    "channel_last",
    "channel_shape",
    "discover",
    "layer_weights",
    "mean_patch",
    "pad_input",
    "select_layers",
    "stored_weight",
    "surroundings",
    "unfold",
    "weight_matrix",
]
