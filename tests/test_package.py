import ast
import importlib
import pkgutil
import types
from importlib.metadata import version
from pathlib import Path

import pytest

import sparsemend

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(sparsemend.__path__, "sparsemend.")
)


def public_packages():
    return [sparsemend, *(importlib.import_module(name) for name in MODULES)]


@pytest.mark.parametrize("name", MODULES)
def test_every_module_imports(name):
    assert importlib.import_module(name).__doc__, "a module says what it is for"


def test_no_module_is_missed():
    folder = Path(sparsemend.__file__).parent
    paths = (path.relative_to(folder.parent).with_suffix("") for path in folder.rglob("*.py"))
    names = {".".join(path.parts).removesuffix(".__init__") for path in paths}
    assert names == {"sparsemend", *MODULES}


def test_public_names_are_complete_and_sorted():
    names = [name for name in sparsemend.__all__ if name != "__version__"]
    assert "__version__" in sparsemend.__all__
    assert len(set(names)) == len(names)
    assert sparsemend.__all__ == [*sorted(n for n in sparsemend.__all__ if n < "_"),
                                  "__version__", *sorted(n for n in names if n > "_")]  # fmt: skip
    # What __init__ imports on purpose is public, and nothing else is.
    tree = ast.parse(Path(sparsemend.__file__).read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparsemend")
        for alias in node.names
    }
    assert set(names) == imported


@pytest.mark.parametrize("package", public_packages(), ids=lambda package: package.__name__)
def test_all_names_exist_once(package):
    names = getattr(package, "__all__", [])
    assert sorted(set(names)) == sorted(names)
    assert all(hasattr(package, name) for name in names)


@pytest.mark.parametrize("name", [n for n in sparsemend.__all__ if n != "__version__"])
def test_public_things_are_documented(name):
    thing = getattr(sparsemend, name)
    assert isinstance(thing, types.ModuleType | type | types.FunctionType)
    assert thing.__doc__


def test_version_is_that_of_the_distribution():
    assert sparsemend.__version__ == version("sparsemend")


def test_types_are_shipped():
    assert (Path(sparsemend.__file__).parent / "py.typed").is_file()
