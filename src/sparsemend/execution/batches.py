"""Feed batches of any common form to a model, in evaluation mode, without labels.

A batch is a tensor, a mapping (keyword arguments), a tuple or list of tensors (positional
arguments), or a pair ``(args, kwargs)`` of a tuple and a dictionary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from sparsemend.boundary import callers_device
from sparsemend.errors import RAISED, SparsemendError, raised_by
from sparsemend.execution.exact import exact_products
from sparsemend.execution.offload import device_for, is_offloaded, streamed
from sparsemend.execution.restoring import buffers_kept
from sparsemend.finite import is_finite

Batch = Any
Batches = Iterable[Any]

_TENSOR_BATCH_SIZE = 128
LABELS = ("label", "labels", "label_ids")
"""Columns that hold them."""


def iterate(batches: Batches) -> Iterator[Batch]:
    """Iterate over batches; one tensor is a data set of its own, cut into batches of 128."""
    if not isinstance(batches, Iterable) or (isinstance(batches, Tensor) and not batches.dim()):
        raise SparsemendError(
            "the batches are none",
            batches,
            "an iterable of batches of inputs, or one tensor [N, ...]",
        )
    if isinstance(batches, Tensor):
        _check_plain(batches, "batches")
        yield from batches.split(_TENSOR_BATCH_SIZE) if len(batches) else ()
    else:
        yield from map(as_tensors, batches)


def as_tensors(batch: Batch) -> Batch:
    """The batch with tensors in the place of arrays; without arrays, the batch itself."""
    if not any(isinstance(leaf, np.ndarray) for leaf in tree_leaves(plain(batch))):
        return batch
    return tree_map(
        lambda leaf: as_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, plain(batch)
    )


def as_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    """An array as a tensor, which shares its memory where PyTorch can."""
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.as_tensor(array)


def materialise(batches: Batches, argument: str = "batches") -> list[Batch]:
    """Hold all batches in a list, checked: for work that passes over them several times.

    Raises
    ------
    SparsemendError
        If there is no batch, or a batch is empty, carries labels, or holds NaN or infinity.
    """
    held = list(iterate(batches))
    if not held:
        raise no_batches(argument)
    for index, batch in enumerate(held):
        check_unlabelled(batch, f"{argument}[{index}]")
    return held


def no_batches(argument: str) -> SparsemendError:
    return SparsemendError(
        f"{argument} is empty",
        allowed="an iterable of at least one batch of inputs",
        fix="a generator can be used only once: pass a list or a data loader",
    )


def check_unlabelled(batch: Batch, where: str) -> None:
    """Refuse a batch of (inputs, labels), an empty one, and inputs that are not finite.

    Raises
    ------
    SparsemendError
        Naming ``where``.
    """
    if is_labelled(batch):
        shapes = " and ".join(f"{t.dtype} {list(t.shape)}" for t in batch)
        raise SparsemendError(
            f"{where} carries labels: a pair of {shapes}",
            allowed="unlabelled inputs",
            fix="pass only the inputs, for example [x for x, _ in loader]; where the network takes "
            "both, [(batch, {}) for batch in batches]",
        )
    if not batch_size(batch):
        raise SparsemendError(
            f"{where} holds no inputs: {describe(batch)}", allowed="batches of at least one input"
        )
    for leaf in tree_leaves(plain(batch)):
        if not isinstance(leaf, Tensor):
            continue
        _check_plain(leaf, where)
        if not is_finite(leaf):
            raise SparsemendError(
                f"{where} holds NaN or infinite values",
                allowed="finite inputs",
                fix="check the preprocessing of the calibration data",
            )


def _check_plain(tensor: Tensor, where: str) -> None:
    """Refuse tensors of which no part can be taken as it is."""
    if tensor.layout != torch.strided:
        raise SparsemendError(
            f"{where} holds a sparse tensor", tensor.layout, "dense tensors", "use .to_dense()"
        )
    if tensor.is_meta:
        raise SparsemendError(
            f"{where} holds a tensor without values (device meta)", allowed="tensors with values"
        )


def is_labelled(batch: Batch) -> bool:
    """Whether a batch is a pair of inputs and as many integer labels."""
    if not isinstance(batch, Sequence) or isinstance(batch, str):
        return False
    if len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        return False
    inputs, labels = batch
    return bool(
        labels.dim() <= 1
        and not labels.is_floating_point()
        and inputs.dim() >= 1
        and labels.numel() == inputs.shape[0]
    )


def split_labels(batch: Batch, where: str) -> tuple[Batch, Tensor]:
    """Take a labelled batch apart into inputs and integer labels [N].

    Arrays become tensors. Of a mapping the labels are what is called so.
    """
    kind = type(batch).__name__
    named = [name for name in LABELS if isinstance(batch, Mapping) and name in batch]
    if named:
        batch = ({key: batch[key] for key in batch if key not in LABELS}, batch[named[0]])
    if isinstance(batch, tuple | list):
        batch = [as_tensors(part) for part in batch]
    if isinstance(batch, Sequence) and len(batch) == 2 and isinstance(batch[1], Tensor):
        inputs, labels = batch
        _check_plain(labels, where)
        if labels.is_floating_point() or labels.is_complex():
            raise SparsemendError(
                f"{where} has labels of type {labels.dtype}", allowed="integer class numbers"
            )
        return inputs, labels
    raise SparsemendError(
        f"{where} has no labels: {kind}",
        allowed="pairs (inputs, labels) with integer labels of shape [N], or mappings with labels",
        fix="use sparsemend.agreement where there are no labels",
    )


def call(model: nn.Module, batch: Batch, *, copies: bool = True) -> Any:
    """Run the model on one batch, moved to where the model computes and to its floating dtype.

    Parameters
    ----------
    model
        The network.
    batch
        Stays as it is, where the network gets copies of its tensors: some change their inputs in
        place.
    copies
        Whether it gets copies, also of what need not be moved.

    Raises
    ------
    SparsemendError
        If the batch does not fit the model; the original error is chained.
    """
    try:
        args, kwargs = arguments(_to_model(batch, model, copies))
        with callers_device():
            return model(*args, **kwargs)
    except RAISED as error:
        # The network's own error about shapes is precise but says nothing about the batch.
        if isinstance(error, SparsemendError | MemoryError) or "out of memory" in str(error):
            raise
        plain_type = isinstance(error, RuntimeError | TypeError | ValueError | IndexError)
        raise SparsemendError(
            f"the network cannot run on this batch ({describe(batch)}): "
            f"{raised_by(error, name=not plain_type)}",
            allowed="batches that model(batch), model(*batch) or model(**batch) accepts",
            fix="check the shape and type of the inputs, whose first dimension is that of the batch"
            + (
                "; where the network takes the mapping itself, pass [(batch,) for batch in batches]"
                if isinstance(batch, Mapping)
                else ""
            )
            + (", and whether it runs without offload" if is_offloaded() else ""),
        ) from error


def padding_of(batch: Batch) -> Tensor | None:
    """Which positions [N, T] of a batch of sequences hold data; None where nothing says so.

    A mapping says it by ``attention_mask``, as tokenizers do: 0 is padding, which counts neither
    in moments nor in judges.
    """
    mask = plain(batch).get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    return None if bool(mask.all()) else mask != 0


def describe(batch: Batch) -> str:
    """Shapes and types of the tensors of a batch, for messages."""
    tensors = [leaf for leaf in tree_leaves(plain(batch)) if isinstance(leaf, Tensor)]
    shapes = [f"{str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for t in tensors]
    return ", ".join(shapes) or "without tensors"


def batch_count(batches: Batches) -> int | None:
    """Number of batches, where it is known before the end."""
    if isinstance(batches, Tensor):
        return -(-len(batches) // _TENSOR_BATCH_SIZE)
    try:
        return len(batches) if isinstance(batches, Sized) else None
    except TypeError:  # a data loader over a stream has no length
        return None


def batch_size(batch: Batch) -> int:
    """Number of inputs in a batch: the first dimension of its first tensor."""
    for leaf in tree_leaves(plain(batch)):
        if isinstance(leaf, Tensor):
            return int(leaf.shape[0]) if leaf.dim() else 1
    return 1


def cut(batch: Batch, start: int, stop: int) -> Batch:
    """Some inputs of a batch: every tensor of as many rows as the first is cut."""
    size = batch_size(batch)

    def part(leaf: Any) -> Any:
        if isinstance(leaf, Tensor) and leaf.dim() and leaf.shape[0] == size:
            return leaf[start:stop]
        return leaf

    return tree_map(part, plain(batch))


def first_inputs(batches: Sequence[Batch], count: int) -> list[Batch]:
    """The first inputs of some batches, as many as there are."""
    chosen: list[Batch] = []
    for batch in batches:
        size = batch_size(batch)
        if count <= 0:
            break
        chosen.append(batch if size <= count else cut(batch, 0, count))
        count -= size
    return chosen


def spread_inputs(batches: Sequence[Batch], count: int) -> list[Batch]:
    """So many inputs, or all where there are fewer, the same share of every batch.

    Batches are often in some order, such as that of lengths.
    """
    total, before, chosen = count_inputs(batches), 0, []
    for batch in batches:
        after = before + batch_size(batch)
        share = min(count, total) * after // total - min(count, total) * before // total
        if share:
            chosen.append(cut(batch, 0, share))
        before = after
    return chosen


def count_inputs(batches: Sequence[Batch]) -> int:
    """Number of inputs in some batches."""
    return sum(map(batch_size, batches))


def check_batched(model: nn.Module, batch: Batch) -> None:
    """Refuse a single input in the place of a batch.

    The network runs on it, but not on a part of it, and gives the same of it in a further first
    dimension. A network of one batch size gives something else then.

    Raises
    ------
    SparsemendError
        If that is so.
    """

    def shapes(batch: Batch) -> list[tuple[int, ...]] | None:
        try:
            with evaluation_mode(model):
                output = call(model, batch)
        except SparsemendError:
            return None
        return [tuple(leaf.shape) for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]

    if shapes(cut(batch, 0, 1)) is not None:
        return
    further = tree_map(lambda x: x.unsqueeze(0) if isinstance(x, Tensor) else x, plain(batch))
    bare, wrapped = shapes(batch), shapes(further)
    if wrapped and (bare is None or wrapped == [(1, *shape) for shape in bare]):
        raise SparsemendError(
            "the inputs have no batch dimension",
            describe(batch),
            "batches [N, ...] of inputs",
            "stack single inputs, as in torch.stack(inputs), or pass x.unsqueeze(0)",
        )


def all_alike(batches: Sequence[Batch]) -> bool:
    """Whether there are several inputs, and all are the same; ends at the first that differs."""
    if count_inputs(batches) < 2:
        return False
    first = tree_leaves(plain(cut(batches[0], 0, 1)))
    for batch in batches:
        leaves, size = tree_leaves(plain(batch)), batch_size(batch)
        if len(leaves) != len(first):
            return False
        for leaf, other in zip(leaves, first, strict=True):
            if not isinstance(leaf, Tensor) or not leaf.dim() or len(leaf) != size:
                continue
            if leaf.shape[1:] != other.shape[1:] or bool((leaf != other).any()):
                return False
    return True


def split_inputs(
    batches: Sequence[Batch], first: Callable[[int], int]
) -> tuple[list[Batch], list[Batch]]:
    """The first inputs and the rest, which may be none.

    Parameters
    ----------
    batches
        Several are split between batches, a single one between its inputs.
    first
        Of so many batches or inputs, how many come first.
    """
    if len(batches) > 1:
        count = first(len(batches))
        return list(batches[:count]), list(batches[count:])
    size = batch_size(batches[0])
    count = first(size)
    rest = [cut(batches[0], count, size)] if count < size else []
    return [cut(batches[0], 0, count)], rest


def plain(batch: Batch) -> Batch:
    """The batch with mappings of other types, as tokenizers return them, as dictionaries.

    PyTorch's tree functions see through dictionaries, but not through those.
    """
    if isinstance(batch, Mapping) and not isinstance(batch, dict):
        return dict(batch)
    if type(batch) in (tuple, list):
        return type(batch)(plain(part) for part in batch)
    return batch


def arguments(batch: Batch) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Positional and keyword arguments that a network gets of a batch."""
    if isinstance(batch, Mapping):
        return (), batch
    if isinstance(batch, tuple | list):
        if len(batch) == 2 and isinstance(batch[0], tuple) and isinstance(batch[1], Mapping):
            return batch[0], batch[1]
        return tuple(batch), {}
    return (batch,), {}


def _to_model(batch: Batch, model: nn.Module, copies: bool) -> Batch:
    parameter = next(model.parameters(), None)
    if parameter is None:
        return plain(batch)
    floating, device = parameter.is_floating_point(), device_for(parameter)

    def move(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        dtype = parameter.dtype if floating and leaf.is_floating_point() else leaf.dtype
        return leaf.to(device=device, dtype=dtype, copy=copies)

    return tree_map(move, plain(batch))


def _uncompiled() -> AbstractContextManager[object]:
    stance = getattr(torch.compiler, "set_stance", None)
    # Where the compiler is not loaded, nothing was compiled, and to load it takes seconds.
    if stance is None or "torch._dynamo.eval_frame" not in sys.modules:
        return nullcontext()
    found: AbstractContextManager[object] = stance("force_eager")
    return found


@contextmanager
def evaluation_mode(*models: nn.Module) -> Iterator[None]:
    """Switch models to evaluation mode without gradients; restore flags and buffers after.

    On a GPU, products are exact to float32 and the same in every run (``exact.py``). Networks that
    are offloaded compute on their device (``offload.py``).

    Exported programs stay in the mode in which they were exported. Functions that a network has
    compiled run as they are written, so that what they do can be seen.
    """
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        for model in models:
            with suppress(NotImplementedError):
                model.eval()
        with (
            torch.no_grad(),
            buffers_kept(*models),
            _uncompiled(),
            exact_products(*models),
            streamed(),
        ):
            yield
    finally:
        for module, training in flags:
            module.training = training
