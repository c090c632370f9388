"""Which layers a network has: discovery, the traced graph, weights and inputs as matrices."""

from sparsemend.layers.discovery import LayerSet, discover, layer_weights
from sparsemend.layers.graph import Graph, Node
from sparsemend.layers.joins import Shortcut, Surroundings, surroundings
from sparsemend.layers.layer import Layer
from sparsemend.layers.matrix import (
    channel_last,
    channel_shape,
    mean_patch,
    pad_input,
    stored_weight,
    unfold,
    weight_matrix,
)
from sparsemend.layers.selection import CLASSES, select_layers

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
