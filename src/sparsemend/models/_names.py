"""Keys of a state dict with and without what wrappers of the network add to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

Rename = Callable[[str], str]

# In front of every key: DataParallel, DistributedDataParallel and AveragedModel; Lightning and
# other training programs.
_WRAPPERS = ("module.", "model.", "net.", "network.")
# Anywhere, as nothing else has such names: torch.compile, FSDP, activation checkpoints.
_WITHIN = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\."
)
_COUNTER = "n_averaged"  # of AveragedModel, beside the network

# Key → what the weights were written as, and how they are written plainly.
_WRITTEN_AS = (
    (r"\.?parametrizations\.", "a parametrization",
     "torch.nn.utils.parametrize.remove_parametrizations(module, name)"),
    (r"_mask$", "a weight and its mask by torch.nn.utils.prune",
     "torch.nn.utils.prune.remove(module, name)"),
    (r"weight_u$", "a spectral norm", "torch.nn.utils.remove_spectral_norm(module)"),
    (r"weight_g$", "a weight norm", "torch.nn.utils.remove_weight_norm(module)"),
    (r"lora_[AB]\b|\bbase_layer\.", "adapters beside the weights", "model.merge_and_unload()"),
    (r"_packed_params|fake_quant|zero_point$", "quantised weights",
     "the network before it was quantised"),
)  # fmt: skip


def plain_names(keys: Iterable[str]) -> Rename:
    """Return what takes a key to the network's own name for it, without wrappers' parts."""
    found = [key for key in keys if not _is_counter(key)]
    bare = [_WITHIN.sub("", key) for key in found]
    prefix = ""
    while bare:
        more = next((w for w in _WRAPPERS if all(key.startswith(w) for key in bare)), None)
        if more is None:
            break
        prefix += more
        bare = [key.removeprefix(more) for key in bare]
    if len(set(bare)) < len(bare):
        return _as_it_is
    return lambda key: _WITHIN.sub("", key).removeprefix(prefix)


def matching_names(theirs: Iterable[str], ours: Iterable[str]) -> tuple[Rename, Rename]:
    """Return what takes the keys of a file, and those of a network, to common names.

    As they are, or without wrappers' parts: whatever makes more of them agree.
    """
    theirs, ours = list(theirs), list(ours)

    def agreeing(renames: tuple[Rename, Rename]) -> int:
        return len(set(map(renames[0], theirs)) & set(map(renames[1], ours)))

    return max(((_as_it_is, _as_it_is), (plain_names(theirs), plain_names(ours))), key=agreeing)


def module_path(path: str, rename: Rename) -> str:
    """A module's path as a key is renamed; a network that is one layer has the path ''."""
    key = rename(f"{path}.bias" if path else "bias")
    return key.removesuffix("bias").removesuffix(".")


def assign(
    state: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    names: tuple[Rename, Rename],
    metadata: Mapping[str, str],
) -> tuple[dict[str, Tensor], list[str]]:
    """Give every key of a network its tensor.

    Parameters
    ----------
    state
        Of the file.
    own
        State dict of the network.
    names
        Of :func:`matching_names`.
    metadata
        Of the file: ``safetensors.save_model`` says there which keys it left out for which.

    Returns
    -------
    tuple
        Own key → tensor, as far as there is one; and the keys of the file that were not used.
    """
    theirs, ours = names
    there = {theirs(key): value for key, value in state.items()}
    duplicates = {theirs(key): theirs(other) for key, other in metadata.items()}
    shared: dict[object, str] = {}
    found, used, missing = {}, set(), []
    for key, value in own.items():
        name = ours(key)
        if name in there:
            found[key] = there[name]
            used.add(name)
        elif (masked := _masked(there, name)) is not None:
            found[key] = masked
            used |= {f"{name}_orig", f"{name}_mask"}
        elif _is_counter(key):
            found[key] = value
        else:
            missing.append(key)
            continue
        shared.setdefault(_memory(value), key)
    for key in missing:
        if _memory(own[key]) in shared:
            found[key] = found[shared[_memory(own[key])]]
        elif duplicates.get(ours(key)) in there:
            found[key] = there[duplicates[ours(key)]]
    unused = [name for name in there if name not in used and not _is_counter(name)]
    return found, unused


def shared_keys(own: Mapping[str, Tensor]) -> list[list[str]]:
    """Groups of keys that are one tensor in memory."""
    groups: dict[object, list[str]] = {}
    for key, value in own.items():
        groups.setdefault(_memory(value), []).append(key)
    return [keys for keys in groups.values() if len(keys) > 1]


def written_as(keys: Iterable[str]) -> tuple[str, str] | None:
    """Return what such keys are signs of, and how to write the weights plainly; None if nothing."""
    keys = list(keys)
    for pattern, what, instead in _WRITTEN_AS:
        if any(re.search(pattern, key) for key in keys):
            return what, instead
    return None


def _as_it_is(key: str) -> str:
    return key


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == _COUNTER


def _masked(state: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The weight that torch.nn.utils.prune keeps as two tensors."""
    weight, mask = state.get(f"{name}_orig"), state.get(f"{name}_mask")
    if weight is None or mask is None or weight.shape != mask.shape:
        return None
    # Not a product alone: that would turn pruned weights into -0.
    return (weight * mask).to(weight.dtype).masked_fill(mask == 0, 0)


def _memory(value: Tensor) -> object:
    """The same for tensors that are one; no two tensors without elements are."""
    place = (value.data_ptr(), value.dtype, value.shape, value.stride())
    return place if value.numel() else object()


def differ(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors of one shape hold different values; NaN equals NaN."""
    return not torch.equal(one, other) and not bool(
        ((one == other) | ((one != one) & (other != other))).all()
    )
