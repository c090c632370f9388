"""The same command again: the same bytes."""

import os
import subprocess
import sys
from pathlib import Path

COMMAND = [
    *("compress", "--model", "digits", "--data", "digits", "--sparsity", "0.9", "--rule", "rr"),
    *(
        "--repair",
        "variance+batchnorm",
        "--calibration-size",
        "48",
        "--heldout-size",
        "32",
        "--batch-size",
        "16",
    ),
    *("--limit", "50", "--no-report"),
]


def test_two_processes_write_the_same_checkpoint(digits_cache, tmp_path):
    running = []
    for name in ("1", "2"):  # sets and dictionaries of texts have another order in each
        environment = {**os.environ, "SPARSEMEND_CACHE": str(digits_cache)}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": name}
        out = ["--out", str(tmp_path / f"{name}.safetensors")]
        running.append(
            subprocess.Popen(
                [sys.executable, "-m", "sparsemend", *COMMAND, *out],
                stdout=subprocess.DEVNULL, env=environment, cwd=Path(__file__).parents[2],
            )
        )  # fmt: skip
    assert [process.wait() for process in running] == [0, 0]
    one, two = (file.read_bytes() for file in sorted(tmp_path.iterdir()))
    assert one == two
