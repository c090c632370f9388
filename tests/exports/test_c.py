from __future__ import annotations

import platform
import shutil

import pytest
import torch
from tests.graphs.networks import random_network, sparse_
from torch import nn

import sparsemend as sm
from sparsemend.exports.formats.c import run_folder
from sparsemend.runtime.build import compiler

pytestmark = pytest.mark.skipif(
    compiler() is None or shutil.which("make") is None, reason="no C compiler or make"
)


def assert_close(output, expected):
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_the_digits_network_on_images_of_any_architecture(digits, tmp_path):
    model = sparse_(sm.models.create("digits"), 0.1)
    images = torch.cat([batch for batch, _ in digits.test])[:100]
    done = sm.export(model, tmp_path / "net", "c", example=images)
    assert done.error < 1e-4
    with torch.no_grad():
        expected = model(images).reshape(-1)
    plainest = "-O2 -march=x86-64" if platform.machine() == "x86_64" else "-O2"
    (output,) = run_folder(tmp_path / "net", [images], f"CFLAGS={plainest}")
    assert_close(output, expected)


on_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86-64 compilers")
with_aarch64 = pytest.mark.skipif(
    shutil.which("aarch64-linux-gnu-gcc") is None or shutil.which("qemu-aarch64") is None,
    reason="no compiler or emulator for aarch64: Debian's gcc-aarch64-linux-gnu, qemu-user",
)


@pytest.mark.parametrize(
    ("settings", "emulator"),
    [
        pytest.param(["CFLAGS=-O1 -march=native -mno-avx512f"], [], id="no-avx512", marks=on_x86),
        pytest.param(["CFLAGS=-O1 -march=x86-64"], [], id="x86-64", marks=on_x86),
        pytest.param(["CC=aarch64-linux-gnu-gcc", "CFLAGS=-O1 -static"], ["qemu-aarch64"],
                     id="aarch64", marks=with_aarch64),
    ],
)  # fmt: skip
def test_other_machines_compute_the_same(exported, settings, emulator):
    folder, x, expected = exported
    (output,) = run_folder(folder, [x], *settings, emulator=emulator)
    assert_close(output, expected)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A folder of C, an input, and the network's outputs."""
    model, x = random_network(2, known_only=True)
    folder = tmp_path_factory.mktemp("c") / "net"
    sm.export(model, folder, "c", example=x)
    with torch.no_grad():
        return folder, x, model(x).reshape(-1)


def test_a_random_network(tmp_path):
    model, x = random_network(2, known_only=True)
    done = sm.export(model, tmp_path / "net", "c", example=x)
    assert done.error < 1e-4
    names = {file.name for file in (tmp_path / "net").iterdir()}
    assert names == {"network.c", "network.h", "weights.h", "main.c", "Makefile"}


def test_what_c_has_no_code_for_is_named(tmp_path):
    with pytest.raises(sm.SparsemendError, match=r"no code for .*aten\.elu\.default"):
        sm.export(nn.Sequential(nn.Linear(2, 2), nn.ELU()), tmp_path / "net", "c",
                  example=torch.ones(1, 2))  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_an_example_is_needed(tmp_path):
    with pytest.raises(sm.SparsemendError, match="format 'c' needs an example"):
        sm.export(nn.Linear(1, 1), tmp_path / "net", "c")
