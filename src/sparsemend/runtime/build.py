"""Compile the kernels: ``python -m sparsemend.runtime.build``.

The build of the package runs this file by itself, so that it imports nothing but the standard
library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent / "native"
LIBRARY = SOURCES / f"libsparsemend{'.dylib' if sys.platform == 'darwin' else '.so'}"
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-ffp-contract=fast", "-Wno-psabi")


def compiler() -> list[str] | None:
    """The C compiler's command: ``$CC``, else what Python was built with, else cc, gcc, clang."""
    configured = sysconfig.get_config_var("CC") or ""
    for command in (os.environ.get("CC", ""), configured, "cc", "gcc", "clang"):
        words = command.split()
        if words and shutil.which(words[0]):
            return words
    return None


def build(target: Path = LIBRARY) -> Path:
    """Compile the library; the file appears whole or not at all.

    Raises
    ------
    RuntimeError
        If there is no compiler, or it fails; says what it said.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("there is no C compiler: install gcc or clang")
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        source = str(SOURCES / "runtime.c")
        words = [*command, *FLAGS, source, "-o", str(made), "-lm", "-lpthread"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr}")
        made.replace(target)
    return target


if __name__ == "__main__":
    try:
        print(f"built {build()}")
    except (RuntimeError, OSError) as error:
        sys.exit(f"error: {error}")
