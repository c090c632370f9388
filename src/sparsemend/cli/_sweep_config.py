"""What a sweep varies, from a TOML file and from flags; flags override the file."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sparsemend as sm

Values = dict[str, Any]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return value


def _number(value: Any) -> str:
    """As written, so that decimals and ranges stay exact."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise TypeError("a number, or a range such as '0.80:0.98:0.01'")
    return str(value)


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a whole number")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _channels(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_number(part) for part in value)
    return _text(value)


def _several(read: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    """One value or a list of them."""
    return lambda value: [read(part) for part in (value if isinstance(value, list) else [value])]


_NETWORK: dict[str, Callable[[Any], Any]] = {
    "name": _text,
    "model": _text,
    "weights": _text,
    "data": _text,
    "num_classes": _count,
    "width": _count,
    "mean": _channels,
    "std": _channels,
}
_SWEEP: dict[str, Callable[[Any], Any]] = {
    "rule": _several(_text),
    "mask": _several(_text),
    "repair": _several(_text),
    "sparsity": _several(_number),
    "seed": _several(_count),
    "scope": _text,
    "budget": _number,
    "new_biases": _flag,
    "calibration_size": _count,
    "heldout_size": _count,
    "batch_size": _count,
    "limit": _count,
    "device": _text,
    "store": _text,
    "workers": _count,
    "ray": _text,
}


def sweep_values(path: Path | None, flags: Mapping[str, Any]) -> tuple[Values, list[Values]]:
    """The values that were given, by the flags' names, and those of each network.

    Parameters
    ----------
    path
        TOML file: keys are the flags without dashes in front, values single or lists, and one
        ``[[network]]`` table for each network unless there is only one. Paths in it are taken
        from its own folder.
    flags
        Values of flags that were given; None and empty lists were not.
    """
    given = {key: value for key, value in flags.items() if value is not None and value != []}
    values, networks = _read(path) if path is not None else ({}, [])
    values |= {key: value for key, value in given.items() if key in _SWEEP}
    own = {key: value for key, value in given.items() if key in _NETWORK}
    if own and len(networks) > 1:
        raise sm.SparsemendError(
            f"--{next(iter(own)).replace('_', '-')} is for one network, and {str(path)!r} has",
            [network.get("name", network.get("model")) for network in networks],
            fix="change the file instead",
        )
    networks = [network | own for network in networks or [{}]]
    for network in networks:
        for key in ("model", "data"):
            if key not in network:
                raise sm.SparsemendError(f"--{key} is missing", fix=f"pass --{key} or --config")
        default = Path(network["weights"]).stem if "weights" in network else network["model"]
        network.setdefault("name", default)
    return values, networks


def _read(path: Path) -> tuple[Values, list[Values]]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)
    except OSError as error:
        raise sm.SparsemendError(
            f"--config cannot be read ({error.strerror})", str(path), "a TOML file"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise sm.SparsemendError(f"--config is no TOML ({error})", str(path)) from error
    tables = content.pop("network", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise sm.SparsemendError(
            "networks are written wrong", tables, f"[[network]] tables in {str(path)!r}"
        )
    top = _checked(content, _SWEEP if tables else _SWEEP | _NETWORK, path)
    values = {key: value for key, value in top.items() if key in _SWEEP}
    single = {key: value for key, value in top.items() if key in _NETWORK}
    networks = [_checked(table, _NETWORK, path) for table in tables] or ([single] if single else [])
    for holder in (values, *networks):
        for key in ("weights", "data", "store"):
            if key in holder and holder[key] != "digits":
                holder[key] = str(path.parent / holder[key])
    return values, networks


def _checked(
    table: Mapping[str, Any], known: Mapping[str, Callable[[Any], Any]], path: Path
) -> Values:
    values: Values = {}
    for written, value in table.items():
        key = written.replace("-", "_")
        names = [name.replace("_", "-") for name in known]
        if key not in known:
            close = difflib.get_close_matches(written, names, n=1)
            raise sm.SparsemendError(
                f"unknown key in {str(path)!r}",
                written,
                ", ".join(names),
                f"did you mean {close[0]!r}?" if close else "",
            )
        try:
            values[key] = known[key](value)
        except TypeError as error:
            raise sm.SparsemendError(
                f"key {written!r} in {str(path)!r} is written wrong", value, str(error)
            ) from None
    return values
