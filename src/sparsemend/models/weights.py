"""Reading and writing files of weights, and putting them into a network, strictly.

Files are safetensors, or what ``torch.load(weights_only=True)`` reads; code is never unpickled.
"""

from __future__ import annotations

import json
import math
import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from sparsemend.errors import SparsemendError
from sparsemend.files import atomic_write, check_archive, parse_json
from sparsemend.models._names import (
    Rename,
    assign,
    differ,
    matching_names,
    module_path,
    shared_keys,
    written_as,
)
from sparsemend.models._nesting import find_state

ADDED_BIASES = "added_biases"
"""Metadata key: a JSON list of the modules that got a bias parameter the plain network lacks."""

_SHOWN = 3
_LONGEST = 160
_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def read_weights(path: str | Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a state dict and its metadata.

    Parameters
    ----------
    path
        A safetensors file, or a file of ``torch.save`` that holds a state dict, plain or
        under a key: the first there is of ``"state_dict"``, ``"model_state_dict"``, ``"model"``,
        ``"net"``, ``"network"``, ``"weights"``, ``"params"``, then of the names for averaged
        weights, ``"state_dict_ema"``, ``"model_ema"``, ``"ema_state_dict"``, ``"ema_model"``,
        ``"ema"``, then the only one there is.

    Returns
    -------
    tuple of dict
        Tensors on the CPU by key, as the file has them; and the metadata of the safetensors
        header (empty for other files).

    Raises
    ------
    SparsemendError
        If the file is missing, incomplete, or holds anything but tensors.

    Warns
    -----
    SparsemendWarning
        If there are averaged weights beside the others.
    """
    path = Path(path)
    if not path.is_file():
        raise SparsemendError(
            f"weights file {str(path)!r} {'is no file' if path.exists() else 'does not exist'}",
            fix="pass the path of a .safetensors file or of a saved state dict",
        )
    if path.suffix == ".safetensors" or _begins_as_safetensors(path):
        return _read_safetensors(path)
    return _read_torch(path), {}


def _begins_as_safetensors(path: Path) -> bool:
    """Whether a file of another ending has the length of a header, and a header of JSON."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


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
        check_archive(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they advise to run the program in the file
            content = torch.load(path, map_location="cpu", weights_only=True)
    # torch.load raises whatever its zip, tar and pickle readers do.
    except Exception as error:
        raise SparsemendError(
            f"weights file {str(path)!r} cannot be read as tensors alone ({_reason(error)})",
            allowed="a state dict, in safetensors or as torch.load(weights_only=True) reads it",
            fix="it may be half-written, or hold a pickled model, which is never loaded: "
            "save model.state_dict() instead",
        ) from error
    return find_state(content, source=str(path))


def _reason(error: Exception) -> str:
    """Why torch.load failed. Its own texts advise to run the code in the file."""
    text = str(error).strip()
    code = _GLOBAL.search(text)
    if code:
        return f"it holds a {code[1]}, which is code"
    if "TorchScript" in text:
        return "it is a TorchScript program"
    line = text.partition("\n")[0]
    name = type(error).__name__
    return name if not line or "weights_only" in line or "trust" in line else f"{name}: {line}"


def save_weights(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a state dict as safetensors: the whole file appears at once, or nothing does.

    The same tensors and metadata give the same bytes.

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
        If the folder does not exist or cannot be written, or the state has more than tensors.
    """
    others = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise SparsemendError(
            "the state dict holds more than tensors", others[:_SHOWN], fix="leave these keys out"
        )
    tensors = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in state.items()
    }
    content = safetensors.torch.save(tensors, dict(metadata) or None)
    header, rest = _ordered_header(content)

    def write(file: IO[bytes]) -> None:
        file.write(header)
        file.write(rest)

    atomic_write(path, write)


def _ordered_header(content: bytes) -> tuple[bytes, memoryview]:
    """Header of a safetensors file with the metadata in alphabetical order, and the tensors.

    safetensors orders metadata by a hash that is random in every process. Offsets count from
    the end of the header, so they stay as they are.
    """
    (length,) = struct.unpack_from("<Q", content)
    start = struct.calcsize("<Q") + length
    described = json.loads(content[struct.calcsize("<Q") : start])
    metadata = described.pop("__metadata__", {})
    ordered = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    text = json.dumps(ordered | described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text, memoryview(content)[start:]


def load_weights(
    model: nn.Module,
    state: Mapping[str, Tensor],
    *,
    source: str,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Put a state dict into a model; every key and every shape must fit.

    Parts of keys that wrappers add (``module.``, ``model.``, ``net.``, ``network.`` in front of
    all, ``_orig_mod.`` anywhere) may differ between the two, as may the counter of an
    ``AveragedModel``. A weight and its mask by ``torch.nn.utils.prune`` are multiplied, and
    tensors that the model shares need be there only once.

    Parameters
    ----------
    model
        Changed in place, or not at all. Modules that the metadata's ``added_biases`` names get a
        bias first.
    state
        Tensors by key.
    source
        The file the state came from, for the error's text.
    metadata
        Of that file.

    Raises
    ------
    SparsemendError
        Naming the first keys that are missing, unexpected, of another shape or kind.
    """
    metadata = metadata or {}
    names = matching_names(state, _own(model))
    with _unless_failed(model):
        _add_named_biases(model, added_biases(metadata, source=source), names)
        own = _own(model)
        found, unused = assign(state, own, names, metadata)
        problems, keys = _misfits(found, own), list(unused)
        if not problems:
            found = {key: value.to_dense() for key, value in found.items()}
            problems = _disagreements(found, own)
        if not problems:
            missing, unexpected = _copy(model, found, state, unused, source)
            problems += [_first("missing keys", missing)] if missing else []
            problems += [_first("unexpected keys", unexpected)] if unexpected else []
            keys = [*unexpected, *missing]
        if problems:
            raise _does_not_fit(problems, keys, source, metadata)


def _own(model: nn.Module) -> dict[str, Tensor]:
    """State dict of a model whose tensors all have values."""
    state = model.state_dict()  # which may also hold what modules keep besides tensors
    own = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    without = [key for key, value in own.items() if is_lazy(value) or value.is_meta]
    if without:
        raise SparsemendError(
            "the model has layers without values, so nothing can be loaded into it",
            without[:_SHOWN],
            fix="build it on the CPU, and run it once where it has lazy layers",
        )
    return own


def _copy(
    model: nn.Module,
    found: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    unused: list[str],
    source: str,
) -> tuple[list[str], list[str]]:
    """Copy what was found; return missing and unexpected keys.

    Keys that were not used go along: a model may have hooks that know older names.
    """
    rest = {key: state[key] for key in unused if key in state and key not in found}
    try:
        # strict=False reports all keys at once.
        result = model.load_state_dict({**found, **rest}, strict=False)
    except RuntimeError as error:
        raise SparsemendError(
            f"the weights in {source!r} cannot be copied into the model ({error})",
            fix="choose the model they were trained with",
        ) from error
    others = [key for key in unused if key not in rest]
    return list(result.missing_keys), [*result.unexpected_keys, *others]


def _misfits(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Tensors that cannot be copied."""
    shapes = [
        f"{key} has shape {tuple(value.shape)} in place of {tuple(own[key].shape)}"
        for key, value in found.items()
        if value.shape != own[key].shape
    ]
    kinds = [
        f"{key} has {value.dtype} in place of {own[key].dtype}"
        for key, value in found.items()
        if not _converts(value, own[key])
    ]
    problems = [_first("other shapes", shapes)] if shapes else []
    return problems + ([_first("other types", kinds)] if kinds else [])


def _disagreements(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Tensors that are one in the model and several in the file."""
    pairs = [
        f"{one} and {other}"
        for one, *others in shared_keys(own)
        for other in others
        if one in found and other in found and differ(found[one], found[other])
    ]
    return [_first("different values for what the model shares", pairs)] if pairs else []


def _converts(value: Tensor, own: Tensor) -> bool:
    """Whether values survive: whole numbers are no weights, complex ones would lose a part."""
    if value.is_quantized or (value.is_complex() and not own.is_complex()):
        return False
    inexact = own.is_floating_point() or own.is_complex()
    return not inexact or value.is_floating_point() or value.is_complex()


def _does_not_fit(
    problems: list[str], keys: list[str], source: str, metadata: Mapping[str, str]
) -> SparsemendError:
    said = metadata.get("architecture")
    hint = f" (the file says architecture {_shortened(said)!r})" if said else ""
    fix = f"choose the model they were trained with{hint}"
    written = written_as(keys)
    if written is not None:
        what, instead = written
        fix = f"they are written as {what}: before saving and loading, use {instead}"
    return SparsemendError(
        f"the weights in {source!r} do not fit the model: {'; '.join(problems)}", fix=fix
    )


def _first(what: str, items: list[str]) -> str:
    more = f" and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{what}: {', '.join(map(_shortened, items[:_SHOWN]))}{more}"


def _shortened(text: str) -> str:
    """For an error: files may hold names of any length."""
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


@contextmanager
def _unless_failed(model: nn.Module) -> Iterator[None]:
    """What is done to the model is undone if it raises: values, and biases that it lacked."""
    kept = {key: value.clone() for key, value in _own(model).items()}
    modules = list(model.modules())
    without = [m for m in modules if "bias" in m._parameters and m._parameters["bias"] is None]
    try:
        yield
    except BaseException:
        for module in without:
            module._parameters["bias"] = None
        with torch.no_grad():
            for key, value in _own(model).items():
                if differ(value, kept[key]):
                    value.copy_(kept[key])
        raise


def added_biases(metadata: Mapping[str, str], *, source: str) -> tuple[str, ...]:
    """Return the module names that the metadata's ``added_biases`` lists, () if it has none."""
    text = metadata.get(ADDED_BIASES, "[]")
    try:
        listed = parse_json(text)
    except ValueError:
        listed = None
    if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
        raise SparsemendError(
            f"metadata {ADDED_BIASES!r} of {source!r} does not fit",
            _shortened(text),
            "a JSON list of module names",
        )
    return tuple(listed)


def _add_named_biases(
    model: nn.Module, modules: Iterable[str], names: tuple[Rename, Rename]
) -> None:
    """Add biases under the names of a file."""
    theirs, ours = names
    known = {module_path(path, ours): path for path, _ in model.named_modules()}
    plain = [module_path(path, theirs) for path in modules]
    add_biases(model, [known.get(path, path) for path in plain])


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
        If a path leads to no convolution or linear module; then none has got a bias.
    """
    known = dict(model.named_modules())
    missing: list[tuple[Any, nn.Parameter]] = []
    for name in dict.fromkeys(modules):
        module: Any = known.get(name)
        outputs = getattr(module, "out_channels", getattr(module, "out_features", None))
        weight = getattr(module, "weight", None)
        if not (
            isinstance(outputs, int) and isinstance(weight, Tensor) and hasattr(module, "bias")
        ):
            raise SparsemendError(
                "a bias cannot be added to module",
                _shortened(name),
                "a convolution or linear module of the model",
                "choose the model that the checkpoint was made from",
            )
        if module.bias is None:
            zeros = torch.zeros(outputs, dtype=weight.dtype, device=weight.device)
            missing.append((module, nn.Parameter(zeros)))
    for module, bias in missing:
        module.bias = bias


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
