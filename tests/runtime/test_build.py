from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import pytest

from sparsemend.runtime import build, steps


def test_structures_are_those_of_the_header(kernels, tmp_path):
    """Sizes and places of every field, as a compiler sees them."""
    compiler = build.compiler()
    if compiler is None:
        pytest.skip("no C compiler")
    names = {"input": "in", "output": "out"}
    fields = [(name, names.get(name, name)) for name, *_ in steps.Step._fields_]
    prints = "".join(f'printf("%zu\\n", offsetof(struct step, {c}));' for _, c in fields)
    source = tmp_path / "offsets.c"
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "{build.SOURCES / "steps.h"}"\n'
        f"int main(void) {{ {prints} return 0; }}"
    )
    program = tmp_path / "offsets"
    subprocess.run([*compiler, str(source), "-o", str(program)], check=True)
    lines = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout
    expected = [getattr(steps.Step, name).offset for name, _ in fields]
    assert list(map(int, lines.split())) == expected
    assert kernels._handle.sparsemend_step_size() == ctypes.sizeof(steps.Step)


def test_without_a_compiler_the_build_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RuntimeError, match="no C compiler"):
        build.build(tmp_path / "library.so")
    assert not list(tmp_path.iterdir())


def test_what_the_compiler_says_is_passed_on(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "compiler", lambda: [sys.executable, "-c", "raise SystemExit(1)"])
    with pytest.raises(RuntimeError, match="failed"):
        build.build(tmp_path / "library.so")
    assert not list(tmp_path.iterdir())
