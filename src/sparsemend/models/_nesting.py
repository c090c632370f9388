"""Where training programs put the state dict inside what they save."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sparsemend.errors import SparsemendError, SparsemendWarning

# Looked for in this order; running averages of the weights only where there is nothing else.
_PLAIN = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema")
_DEEPEST = 3


def find_state(content: object, *, source: str) -> dict[str, Tensor]:
    """Return the state dict in the content of a file, plain or under a key.

    Raises
    ------
    SparsemendError
        If there is none, or there are several and none of them under a usual key.

    Warns
    -----
    SparsemendWarning
        If there are averaged weights too, which were not taken.
    """
    for _ in range(_DEEPEST):
        if _is_state(content) or not isinstance(content, Mapping):
            break
        content = content[_key_of_state(content, source)]
    if not _is_state(content):
        raise _no_state(content, source)
    return dict(content)  # type: ignore[call-overload,no-any-return]


def _key_of_state(content: Mapping[Any, Any], source: str) -> str:
    inside = [key for key, value in content.items() if isinstance(key, str) and _leads_to(value)]
    for key in _PLAIN:
        if key in inside:
            averaged = [other for other in _AVERAGED if other in inside]
            if averaged:
                warnings.warn(
                    f"weights file {source!r} also holds averaged weights under {averaged[0]!r}; "
                    f"those under {key!r} were taken: to have the others, save them alone",
                    SparsemendWarning,
                    stacklevel=2,
                )
            return key
    for key in _AVERAGED:
        if key in inside:
            return key
    if len(inside) > 1:
        raise SparsemendError(
            f"weights file {source!r} holds several state dicts",
            inside[:5],
            fix="save the one that is meant alone",
        )
    if not inside:
        raise _no_state(content, source)
    return str(inside[0])


def _leads_to(value: object) -> bool:
    """Whether it is a state dict, or has one under a key; optimisers have theirs deeper."""
    if not isinstance(value, Mapping) or not value:
        return False
    return _is_state(value) or any(inner and _is_state(inner) for inner in value.values())


def _is_state(content: object) -> bool:
    return isinstance(content, Mapping) and all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    )


def _no_state(content: object, source: str) -> SparsemendError:
    found = type(content).__name__
    if isinstance(content, Mapping):
        kinds = {str(key): type(v).__name__ for key, v in content.items()}
        others = [f"{key} ({kind})" for key, kind in kinds.items() if kind != "Tensor"]
        found = f"a mapping with {', '.join(others[:3])}"
    return SparsemendError(
        f"weights file {source!r} holds no state dict",
        found,
        "a mapping from names to tensors, plain or under a key such as "
        f"{', '.join(map(repr, _PLAIN[:4]))}",
        "save model.state_dict()",
    )
