"""Importing what is not this library's: optional packages, and the code of users."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import operator
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle

from sparsemend.errors import RAISED, SparsemendError, raised_by


def require(module: str, *, purpose: str, extra: str) -> Any:
    """Import and return a module of an optional package.

    Parameters
    ----------
    module
        Its full name.
    purpose
        What needs it, for the error's text.
    extra
        Which extra of sparsemend installs it.

    Raises
    ------
    SparsemendError
        If it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SparsemendError(
            f"{purpose} needs the package {module.partition('.')[0]!r}, which is not installed",
            fix=f"pip install 'sparsemend[{extra}]'",
        ) from error


def find_object(spec: str, *, what: str, name: str = "factory") -> tuple[Any, Path]:
    """Import what ``package.module:name`` or ``path/mynet.py:name`` stands for.

    Parameters
    ----------
    spec
        As written; modules may be installed or in the current folder.
    what
        What it is to give, and ``name`` how it is called in texts.

    Returns
    -------
    tuple
        The object, and the folder from which its module may import.

    Raises
    ------
    SparsemendError
        If it is written wrong or cannot be imported.
    """
    allowed = (
        f"'package.module:{name}', installed or in the current folder, or 'path/mynet.py:{name}'"
    )
    place, _, attribute = spec.rpartition(":")
    if not place or not attribute:
        raise SparsemendError(f"{what} is written wrong", spec, allowed)
    file = Path(place) if place.endswith(".py") else None
    if file is not None and not file.is_file():
        raise SparsemendError(f"{what} {spec!r}: there is no file {place!r}")
    folder = Path.cwd() if file is None else file.resolve().parent
    with importable(folder):
        try:
            module = importlib.import_module(place) if file is None else _import_file(file)
            return operator.attrgetter(attribute)(module), folder
        except RAISED as error:
            raise SparsemendError(
                f"{what} {spec!r} cannot be imported: {raised_by(error)}",
                allowed=allowed,
            ) from error


def _import_file(file: Path) -> ModuleType:
    """The module of a file, imported once; its classes travel to other processes by value."""
    digest = hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]
    name = f"{file.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None, "the name ends in .py"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    cloudpickle.register_pickle_by_value(module)
    return module


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Let imports see a folder, as ``python -m`` does with the current one."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)
