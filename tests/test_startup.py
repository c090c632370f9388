"""An interrupt while the program is being loaded, which PyTorch stands for here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sparsemend

TORCH = """
import os, signal, time
os.kill(os.getpid(), signal.SIGINT)
time.sleep(60)
"""


@pytest.fixture
def interrupted(tmp_path):
    """Run Python where importing torch is interrupted."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(TORCH)
    source = str(Path(sparsemend.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{source}"}

    def run(*arguments):
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
        )  # fmt: skip

    return run


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize("way", ["module", "script"])
def test_the_program_says_one_line(interrupted, tmp_path, way):
    script = tmp_path / "sparsemend"
    script.write_text("from sparsemend.cli import main\nmain()\n")
    arguments = ["-m", "sparsemend"] if way == "module" else [str(script)]
    done = interrupted(*arguments, "evaluate")
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted; nothing was written\n"


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
def test_other_programs_get_the_interrupt_as_always(interrupted):
    done = interrupted("-c", "import sparsemend")
    assert done.stderr.endswith("KeyboardInterrupt\n")
