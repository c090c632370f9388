"""The networks of this library, in the size of the weights; ``digits`` has weights of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.models import digits
from sparsemend.models.registry import architecture, create
from sparsemend.models.sources.source import Request, Source, Supply

_SIZES = ("num_classes", "width")


def supply(request: Request) -> Supply:
    """Build a built-in network, or take the trained ``digits``.

    Raises
    ------
    SparsemendError
        For an unknown name, and without weights for all networks but ``digits``.
    """
    entry = architecture(request.name)
    strange = [name for name in request.arguments if name not in _SIZES]
    if strange:
        raise SparsemendError(
            f"model {request.spec!r} takes no {strange[0]}", allowed=" and ".join(_SIZES)
        )
    if request.state is not None:
        rows = (_rows(request.state, layer) for layer in (entry.classifier, entry.stem))
        sizes = dict(zip(_SIZES, rows, strict=True)) | dict(request.arguments)
        # Weights without these layers belong to another network: the defaults do for the error.
        classes = 10 if sizes["num_classes"] is None else sizes["num_classes"]
        return Supply(create(request.name, classes, sizes["width"]))
    if request.name == "digits":
        _require_trained_size(request.arguments)
        network, metadata = digits.pretrained_with_metadata(progress=request.progress)
        return Supply(network, metadata)
    raise SparsemendError(
        f"model {request.spec!r} has no weights of its own",
        fix="pass a file of trained weights; models.create builds it with random ones",
    )


def _rows(state: Mapping[str, Tensor], module: str) -> int | None:
    # The second is how torch.nn.utils.prune names it.
    weight = state.get(f"{module}.weight", state.get(f"{module}.weight_orig"))
    if weight is None or weight.ndim == 0 or len(weight) == 0:
        return None
    return len(weight)


def _require_trained_size(sizes: Mapping[str, Any]) -> None:
    trained = {"num_classes": digits.NUM_CLASSES, "width": architecture("digits").width}
    if any(trained[name] != value for name, value in sizes.items()):
        raise SparsemendError(
            "model 'digits' is trained in one size",
            dict(sizes),
            f"num_classes={trained['num_classes']} and width={trained['width']}",
            "pass your own weights for another size",
        )


BUILT_IN = Source(
    "a built-in name", lambda spec: spec if ":" not in spec and "/" not in spec else None, supply
)
