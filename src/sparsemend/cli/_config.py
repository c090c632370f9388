"""What a sweep varies, from a TOML file and from flags; flags override the file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sparsemend as sm
from sparsemend.cli._options import DATA, NETWORK, RUN, STORE, WEIGHTS
from sparsemend.errors import did_you_mean
from sparsemend.files import read_file
from sparsemend.recipe.options import INPUT, RECIPE, TARGETS, Option

Values = dict[str, Any]

_NETWORK = {option.name: option for option in NETWORK}
_SWEEP = {option.name: option for option in (*RECIPE, *TARGETS, *INPUT, *RUN)}
_PATHS = tuple(option.name for option in (WEIGHTS, DATA, STORE))


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
            f"{_NETWORK[next(iter(own))].spelling} is for one network, and {str(path)!r} has",
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
    content = read_file(path, "configuration", _toml)
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
        for key in _PATHS:
            if key in holder and holder[key] != "digits":
                holder[key] = str(path.parent / holder[key])
    return values, networks


def _toml(path: Path) -> Values:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=str)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"no TOML: {error}") from error


def _checked(table: Mapping[str, Any], known: Mapping[str, Option], path: Path) -> Values:
    values: Values = {}
    for written, value in table.items():
        key = written.replace("-", "_")
        names = [option.dashed for option in known.values()]
        if key not in known:
            raise sm.SparsemendError(
                f"unknown key in {str(path)!r}",
                written,
                ", ".join(names),
                did_you_mean(written, names),
            )
        try:
            values[key] = known[key].read_value(value)
        except TypeError as error:
            raise sm.SparsemendError(
                f"key {written!r} in {str(path)!r} is written wrong", value, str(error)
            ) from None
    return values
