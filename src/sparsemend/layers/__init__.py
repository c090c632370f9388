"""Which layers a network has: discovery, the traced graph, what depends on a layer's kind."""

from sparsemend.layers.access import (
    layer_biases,
    layer_gradient,
    layer_modules,
    layer_parameter,
    layer_weight,
    present_bias,
    run_layer,
    set_weight,
)
from sparsemend.layers.branches import Branch, residual_branches
from sparsemend.layers.calls import LayerCalls
from sparsemend.layers.channels import Channels, find_channels
from sparsemend.layers.coverage import Coverage, LeftOut
from sparsemend.layers.discovery import NORMALISATIONS, LayerSet, layer_weights
from sparsemend.layers.graph import Graph, Node
from sparsemend.layers.joins import (
    Addend,
    Path,
    Shortcut,
    Surroundings,
    in_passing,
    surroundings,
)
from sparsemend.layers.kinds import Axis, Call, LayerKind, kind_named, kind_of
from sparsemend.layers.layer import Layer
from sparsemend.layers.matrices import (
    arranged,
    batched,
    channel_last,
    channel_shape,
    count_positions,
    mean_patch,
    pad_input,
    per_input,
    stored_weight,
    unfold,
    weight_matrix,
)
from sparsemend.layers.multiplications import count_multiplications, kept_multiplications
from sparsemend.layers.selection import CLASSES, EMBEDDING, LayerFilter, discover, select_layers

__all__ = [
    "CLASSES",
    "EMBEDDING",
    "NORMALISATIONS",
    "Addend",
    "Axis",
    "Branch",
    "Call",
    "Channels",
    "Coverage",
    "Graph",
    "Layer",
    "LayerCalls",
    "LayerFilter",
    "LayerKind",
    "LayerSet",
    "LeftOut",
    "Node",
    "Path",
    "Shortcut",
    "Surroundings",
    "arranged",
    "batched",
    "channel_last",
    "channel_shape",
    "count_multiplications",
    "count_positions",
    "discover",
    "find_channels",
    "in_passing",
    "kept_multiplications",
    "kind_named",
    "kind_of",
    "layer_biases",
    "layer_gradient",
    "layer_modules",
    "layer_parameter",
    "layer_weight",
    "layer_weights",
    "mean_patch",
    "pad_input",
    "per_input",
    "present_bias",
    "residual_branches",
    "run_layer",
    "select_layers",
    "set_weight",
    "stored_weight",
    "surroundings",
    "unfold",
    "weight_matrix",
]
