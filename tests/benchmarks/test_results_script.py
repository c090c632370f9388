"""The script behind docs/results; a program in the place of sparsemend keeps what it is told."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from sparsemend.models import names
from sparsemend.sweeps import make_grid

SCRIPT = Path(__file__).parents[2] / "docs" / "results" / "run.sh"
WIDE = {f"cifar{n}_{net}" for n in (10, 100) for net in ("resnet18", "resnet34", "vgg16_bn")}


@pytest.fixture
def run(tmp_path):
    program = tmp_path / "sparsemend"
    log = tmp_path / "log"
    program.write_text(
        f'#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >> {shlex.quote(str(log))}\n'
        f"echo >> {shlex.quote(str(log))}\n"
        'echo "3 cells are done, 4 to do: about 5 minutes"\necho "  more"\nexit ${CODE:-0}\n'
    )
    program.chmod(0o755)

    def run(*words, code=0):
        log.unlink(missing_ok=True)
        done = subprocess.run(
            ["sh", SCRIPT, "data", "stores", *words],
            env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CODE": str(code)},
            capture_output=True,
            text=True,
            check=False,
        )
        return done, [call.split("\n") for call in log.read_text().strip().split("\n\n")]

    return run


def asked(call):
    """Option → its values."""
    found = {}
    for flag, value in zip(call[1::2], call[2::2], strict=True):
        found.setdefault(flag, []).append(value)
    return found


def test_what_matters_most_comes_first_and_nothing_twice(run):
    done, calls = run()
    assert done.returncode == 0
    commands = [(call[0], asked(call)) for call in calls]
    for network, (_, options) in zip(("resnet18", "vgg16_bn"), commands, strict=False):
        assert options["--store"] == [f"stores/band_cifar100_{network}.sqlite"]
        assert options["--sparsity"] == ["0.94:0.955:0.005"]
        assert options["--repair"] == ["batchnorm"]
    cells = []
    for command, options in commands:
        (weights,) = options["--weights"]
        network = Path(weights).stem
        assert options["--data"] == [f"data/{network.split('_')[0]}"]
        (model,) = options["--model"]
        assert model in names()
        assert model.removeprefix("cifar_") == network.split("_", 1)[1]
        if command == "sweep":
            seeds = [int(seed) for seed in options.get("--seed", [0])]
            grid = (options["--sparsity"], options["--rule"], None, options["--repair"], seeds)
            cells += [(options["--store"][0], cell) for cell in make_grid(*grid).cells(network)]
    wide = [(store, cell) for store, cell in cells if cell.network in WIDE]
    assert len(wide) == len(set(wide)) > 1000
    assert {cell.network for _, cell in wide} == WIDE


def test_failed_cells_do_not_stop_it_but_an_interrupt_does(run):
    done, calls = run(code=1)
    assert done.returncode == 0
    assert len(calls) > 50
    done, calls = run(code=130)
    assert done.returncode != 0
    assert len(calls) == 1


def test_it_says_what_is_left(run):
    done, calls = run("band_cifar100_vgg16_bn", "forced_cifar10_resnet18", "--dry-run")
    assert all(call[-1] == "--dry-run" for call in calls)
    *lines, total = done.stdout.splitlines()
    assert len(lines) == len(calls) > 2
    assert lines[0] == "band_cifar100_vgg16_bn: 3 cells are done, 4 to do: about 5 minutes"
    assert total == f"all: {3 * len(calls)} cells are done, {4 * len(calls)} to do"
