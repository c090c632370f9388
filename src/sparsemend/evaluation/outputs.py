"""A network's output taken apart: the floating-point tensors in it, by name, and as rows.

Outputs may be nested in any way out of tensors, mappings, dataclasses, tuples and lists.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch


@dataclass(frozen=True)
class Output:
    """One floating-point tensor of a network's output.

    Attributes
    ----------
    path
        Keys, attributes and places that lead to it, joined by dots; empty for the whole output.
    tensor
        [N, ...].
    first
        Whether it is the first of the output.
    """

    path: str
    tensor: Tensor
    first: bool = True

    @property
    def name(self) -> str:
        """The last key or attribute that leads to it; empty where only places do."""
        return next((part for part in reversed(self.path.split(".")) if not part.isdigit()), "")


def floating_outputs(output: Any, path: str = "") -> tuple[Output, ...]:
    """The floating-point tensors of an output, in its order.

    Left out are tensors of other types, empty ones, those without dimensions (such as a loss),
    and all that is no tensor.

    Parameters
    ----------
    output
        What the network returned, or a part of it.
    path
        Where that part is.
    """
    found = [
        (where, leaf)
        for where, leaf in _walk(output, path)
        if leaf.is_floating_point() and leaf.dim() and leaf.numel()
    ]
    return tuple(Output(where, leaf, index == 0) for index, (where, leaf) in enumerate(found))


def pick(output: Any, path: str) -> Any:
    """The part of an output at a dotted path of keys, attributes and places.

    Raises
    ------
    SparsemendError
        If there is none; names those that there are.
    """
    part, left = output, path
    while left:
        parts = dict(_parts(part))
        # A key may have dots in it: the longest that fits.
        key = max((k for k in parts if f"{left}.".startswith(f"{k}.")), key=len, default=None)
        if key is None:
            known = dict.fromkeys(where for where, _ in _walk(output, "") if where)
            raise SparsemendError(
                "the network's output has no such part",
                path,
                ", ".join(known) or f"none: it is a {type(output).__name__}",
            )
        part, left = parts[key], left[len(key) + 1 :]
    return part


def rows(tensor: Tensor, batch: Batch = None) -> Tensor:
    """An output as [samples, features]: what is judged, and averaged over.

    [N] has one feature; features are the last dimension of [N, D] and of tokens [N, T, D], and
    dimension 1 of maps [N, D, *spatial].

    Parameters
    ----------
    tensor
        [N, ...].
    batch
        The inputs. Where they have an ``attention_mask`` [N, T], and the tensor is
        [N, T, ...], positions with mask 0 are left out.
    """
    if tensor.dim() == 1:
        return tensor.unsqueeze(1)
    mask = _attention_mask(batch)
    if mask is not None and tensor.dim() > 2 and tensor.shape[:2] == mask.shape:
        return tensor.flatten(2)[mask.to(tensor.device)]
    last: Tensor = tensor.movedim(1, -1) if tensor.dim() > 3 else tensor
    return last.reshape(-1, last.shape[-1])


def _attention_mask(batch: Batch) -> Tensor | None:
    if isinstance(batch, tuple | list) and len(batch) == 2 and isinstance(batch[1], Mapping):
        batch = batch[1]  # a pair (args, kwargs)
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    return mask != 0 if isinstance(mask, Tensor) and mask.dim() == 2 else None


def _walk(part: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(part, Tensor):
        yield path, part
        return
    for key, value in _parts(part):
        yield from _walk(value, f"{path}.{key}" if path else key)


def _parts(part: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of everything in a container; nothing for all else."""
    if isinstance(part, Mapping):
        yield from ((str(key), value) for key, value in part.items())
    elif isinstance(part, tuple) and hasattr(part, "_fields"):
        yield from zip(part._fields, part, strict=True)
    elif isinstance(part, tuple | list):
        yield from ((str(place), value) for place, value in enumerate(part))
    elif dataclasses.is_dataclass(part) and not isinstance(part, type):
        yield from ((field.name, getattr(part, field.name)) for field in dataclasses.fields(part))
    elif hasattr(part, "logits") and not isinstance(part, torch.nn.Module):
        names = [name for name in getattr(part, "__dict__", {}) if not name.startswith("_")]
        yield from ((name, getattr(part, name)) for name in dict.fromkeys(("logits", *names)))
