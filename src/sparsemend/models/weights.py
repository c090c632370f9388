"""Reading and writing files of weights, and putting them into a network, strictly.

Files are safetensors, or what ``torch.load(weights_only=True)`` reads; code is never unpickled.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from sparsemend.errors import SparsemendError
from sparsemend.files import atomic_write

ADDED_BIASES = "added_biases"
"""Metadata key: a JSON list of the modules that got a bias parameter the plain network lacks."""

# Where training scripts put the state dict inside a checkpoint, and what wrappers put before
# every key (DataParallel, torch.compile).
_NESTED_KEYS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")
_SHOWN = 3


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a state dict and its metadata.

    Parameters
    ----------
    path
        A ``.safetensors`` file, or a file of ``torch.save`` that holds a state dict, plain or
        under ``"state_dict"``, ``"model_state_dict"`` or ``"model"``.

    Returns
    -------
    tuple of dict
        Tensors on the CPU by key, without the ``module.`` or ``_orig_mod.`` that wrappers put
        before every key; and the metadata of the safetensors header (empty for other files).

    Raises
    ------
    SparsemendError
        If the file is missing, incomplete, or holds anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise SparsemendError(
            f"weights file {str(path)!r} does not exist",
            fix="pass the path of a .safetensors file or of a saved state dict",
        )
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_torch(path), {}
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state, metadata


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise SparsemendError(
            f"weights file {str(path)!r} is not a complete safetensors file ({error})",
            fix="it may be half-written: copy or download it again",
        ) from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever its zip, tar and pickle readers do.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise SparsemendError(
            f"weights file {str(path)!r} cannot be read as tensors alone "
            f"({type(error).__name__}: {reason})",
            allowed="a state dict, in safetensors or as torch.load(weights_only=True) reads it",
            fix="it may be half-written, or hold a pickled model, which is never loaded: "
            "save model.state_dict() instead",
        ) from error
    if isinstance(content, dict):
        for key in _NESTED_KEYS:
            if isinstance(content.get(key), dict):
                content = content[key]
                break
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise SparsemendError(
            f"weights file {str(path)!r} holds no state dict",
            allowed='a mapping from names to tensors, plain or under "state_dict" or "model"',
            fix="save model.state_dict()",
        )
    return dict(content)


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors: the whole file appears at once, or nothing does.

    Parameters
    ----------
    path
        The file to write.
    state
        Tensors by key, on any device; those that share memory are each written in full.
    metadata
        Goes into the header.

    Raises
    ------
    SparsemendError
        If the folder does not exist or cannot be written.
    """
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in state.items()
    }
    content = safetensors.torch.save(tensors, dict(metadata))
    atomic_write(path, lambda file: file.write(content))


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Put a state dict into a model; every key and every shape must fit.

    Parameters
    ----------
    model
        Changed in place. Modules that the metadata's ``added_biases`` names get a bias first.
    state
        Tensors by key.
    source
        The file the state came from, for the error's text.
    metadata
        Of that file.

    Raises
    ------
    SparsemendError
        Naming the first keys that are missing, unexpected or of another shape.
    """
    metadata = metadata or {}
    add_biases(model, added_biases(metadata, source=source))
    own = model.state_dict()
    problems = [
        f"{key} has shape {tuple(state[key].shape)} in place of {tuple(value.shape)}"
        for key, value in own.items()
        if key in state and state[key].shape != value.shape
    ]
    problems = [_first("other shapes", problems)] if problems else []
    if not problems:
        # strict=False reports all keys at once; a model that did not fit is given up anyway.
        result = model.load_state_dict(dict(state), strict=False)
        if result.missing_keys:
            problems.append(_first("missing keys", result.missing_keys))
        if result.unexpected_keys:
            problems.append(_first("unexpected keys", result.unexpected_keys))
    if problems:
        said = metadata.get("architecture")
        hint = f" (the file says architecture {said!r})" if said else ""
        raise SparsemendError(
            f"the weights in {source!r} do not fit the model: {'; '.join(problems)}",
            fix=f"choose the model they were trained with{hint}",
        )


def _first(what: str, items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{what}: {', '.join(items[:_SHOWN])}{more}"


def added_biases(metadata: Mapping[str, str], *, source: str) -> tuple[str, ...]:
    """Return the module names that the metadata's ``added_biases`` lists, () if it has none."""
    text = metadata.get(ADDED_BIASES, "[]")
    try:
        listed = json.loads(text)
    except json.JSONDecodeError:
        listed = None
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise SparsemendError(
            f"metadata {ADDED_BIASES!r} of {source!r} does not fit",
            text,
            "a JSON list of module names",
        )
    return tuple(listed)


def add_biases(model: nn.Module, modules: Iterable[str]) -> None:
    """Give convolution and linear modules that have no bias one of zeros, in place.

    Parameters
    ----------
    model
        The network.
    modules
        Module paths, as in ``named_modules``; a module that has a bias keeps it.

    Raises
    ------
    SparsemendError
        If a path leads to no convolution or linear module.
    """
    known = dict(model.named_modules())
    for name in modules:
        module = known.get(name)
        outputs = getattr(module, "out_channels", getattr(module, "out_features", None))
        weight = getattr(module, "weight", None)
        if module is None or not isinstance(outputs, int) or not isinstance(weight, Tensor):
            raise SparsemendError(
                "a bias cannot be added to module",
                name,
                "a convolution or linear module of the model",
                "choose the model that the checkpoint was made from",
            )
        if module.bias is None:
            zeros = torch.zeros(outputs, dtype=weight.dtype, device=weight.device)
            module.bias = nn.Parameter(zeros)


def channel_values(
    metadata: Mapping[str, str], key: str, *, source: str
) -> tuple[float, ...] | None:
    """Return the per-channel numbers of a metadata entry such as ``mean``, None if it has none.

    The entry is written ``.4914,.4822,.4465``.
    """
    if key not in metadata:
        return None
    try:
        values = tuple(float(part) for part in metadata[key].split(","))
    except ValueError:
        values = (math.nan,)
    if not all(math.isfinite(value) for value in values):
        raise SparsemendError(
            f"metadata {key!r} of {source!r} does not fit",
            metadata[key],
            "one number per channel, separated by commas",
        )
    return values
