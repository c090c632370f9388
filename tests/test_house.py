"""The rules of the house that hold for every folder; CONTRIBUTING.md says why.

Which folder may import which is the contract in pyproject.toml (``make contracts``).
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsemend
from sparsemend.cli import app

MOST_PARAMETERS = 8

SOURCE = Path(sparsemend.__file__).parent
REPOSITORY = Path(__file__).parents[1]
GUIDES = [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]

# In nested functions a name lacks the "<locals>" of __qualname__; no public one is nested.
Function = ast.FunctionDef | ast.AsyncFunctionDef


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


PATHS = {module_name(path): path for path in sorted(SOURCE.rglob("*.py"))}
PACKAGES = [name for name, path in PATHS.items() if path.name == "__init__.py"]


def folder_of(module: str) -> str:
    return module if module in PACKAGES else module.rpartition(".")[0]


def tree(module: str) -> ast.Module:
    return ast.parse(PATHS[module].read_text(encoding="utf-8"))


def functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function, bool]]:
    """Each function below a node: its qualified name, itself, and if it takes self or cls."""
    for child in ast.iter_child_nodes(node):
        name = prefix
        if isinstance(child, Function | ast.ClassDef):
            name = f"{prefix}.{child.name}"
        if isinstance(child, Function):
            decorators = {d.id for d in child.decorator_list if isinstance(d, ast.Name)}
            yield name, child, isinstance(node, ast.ClassDef) and "staticmethod" not in decorators
        yield from functions(child, name)


def parameters(function: Function, bound: bool) -> int:
    of = function.args
    named = len(of.posonlyargs) + len(of.args) + len(of.kwonlyargs)
    return named - bound + (of.vararg is not None) + (of.kwarg is not None)


def imports(module: str) -> Iterator[str]:
    """Full names of what a module imports, wherever in it the import is written."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = folder_of(module).split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def private_folder(name: str) -> str | None:
    """The folder that a private module belongs to, ``None`` for what is not private."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part.startswith("_") and ".".join(parts[: i + 1]) in PATHS and part != "__main__":
            return ".".join(parts[:i])
    return None


def test_only_public_verbs_and_commands_take_many_parameters():
    verbs = [getattr(sparsemend, name) for name in sparsemend.__all__]
    commands = [command.callback for command in app.registered_commands]
    free = {
        f"{function.__module__}.{function.__qualname__}"
        for function in (*verbs, *commands)
        if isinstance(function, types.FunctionType)
    }
    counts = {
        name: parameters(function, bound)
        for module in PATHS
        for name, function, bound in functions(tree(module), module)
    }
    assert free <= set(counts)
    many = [
        f"{name} has {count} parameters"
        for name, count in counts.items()
        if count > MOST_PARAMETERS and name not in free
    ]
    assert not many, "\n".join(many)


def test_a_private_module_is_imported_by_its_own_folder_only():
    wrong = [
        f"{module} imports {name}"
        for module in PATHS
        for name in imports(module)
        if private_folder(name) not in (None, folder_of(module))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_attribute_of_a_folder_hides_a_module(package):
    folder = importlib.import_module(package)
    names = [module.name for module in pkgutil.iter_modules(folder.__path__)]
    modules = {name: importlib.import_module(f"{package}.{name}") for name in names}
    hidden = [name for name, module in modules.items() if getattr(folder, name) is not module]
    assert not hidden, f"{package} hides {', '.join(hidden)}"


def test_the_picture_is_the_contract():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    picture = text.split("```text\n")[1].split("```")[0].splitlines()
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    arrows = settings["tool"]["importlinter"]["contracts"][0]
    layers = [re.sub(r"[()]", "", layer) for layer in arrows["layers"]]
    assert [re.split(" {2,}", line)[0] for line in picture] == layers
    # Nor does the contract leave any module out.
    assert arrows["exhaustive"]


def test_files_that_texts_name_exist():
    # Names that begin with "my" are those of files still to be written.
    pattern = re.compile(r"(?<![\w/.])[\w/]+/(?!my)\w+\.py\b")
    wrong = [
        f"{text.relative_to(REPOSITORY)} names {name}"
        for text in (*GUIDES, *PATHS.values())
        for name in sorted(set(pattern.findall(text.read_text(encoding="utf-8"))))
        if not ((SOURCE / name).exists() or (REPOSITORY / name).exists())
    ]
    assert not wrong, "\n".join(wrong)
