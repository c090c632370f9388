"""How fast, how exact and how repeatable all is on one device: one table, with ratios of one run.

benchmarks/gpu.sh --data SHARED/data
benchmarks/gpu.sh --tiny --device cpu  # the same on tiny networks, to try it anywhere

Random weights and inputs will do for times. With ``--data``, what is compared is compared on
trained networks.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor, nn

import sparsemend as sm
from benchmarks._device import add_device, device_name, timed
from benchmarks._network import load
from benchmarks.diagnose import forward, ours, relative_error

SPARSITY = 0.9
# Rows that have not begun by then are left out: the whole is to take less than six minutes.
BEGIN_WITHIN = 300


@dataclass(frozen=True)
class Row:
    """One line of the table: a number, what it is set against, and their ratio."""

    number: str
    beside: str = ""
    ratio: str = ""


@dataclass(frozen=True)
class Bench:
    """Networks and inputs on a device."""

    device: torch.device
    data: Path | None = None
    tiny: bool = False

    def network(self, name: str) -> nn.Module:
        """With random weights, the same on every device."""
        torch.manual_seed(0)
        width = 4 if self.tiny else None
        return sm.models.create(name, width=width).eval().to(self.device)

    def images(self, count: int) -> list[Tensor]:
        """Batches of random images, a sixteenth as many in a tiny run."""
        count, size = (max(8, count // 16), 8) if self.tiny else (count, 32)
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(count, 3, size, size, generator=generator)
        return list(images.to(self.device).split(128))

    @cached_property
    def trained(self) -> tuple[nn.Module, list[Tensor], list[Tensor]]:
        """A ResNet-20, trained where there is data; batches to calibrate with and to judge on."""
        if self.data is None:
            *seen, unseen = self.images(640)
            return self.network("cifar_resnet20"), seen or [unseen], [unseen]
        model, images = load(self.data, "cifar10_resnet20", self.device)
        seen = images.calibration_batches(512, 128)
        return model, seen, images.heldout_batches(256, 128, calibration_size=512)

    def seconds(self, work: Callable[[], object], runs: int = 1) -> float:
        """The least of some runs."""
        found: list[float] = []
        for _ in range(runs):
            timed(work, self.device, found)
        return min(found)

    def forward_seconds(self, model: nn.Module, batches: list[Tensor]) -> float:
        return self.seconds(lambda: forward(model, batches), runs=4)


def diagnosis(bench: Bench) -> Row:
    model, batches = bench.network("cifar_resnet18"), bench.images(1024)
    passed = bench.forward_seconds(model, batches)
    found = bench.seconds(lambda: ours(model, batches), runs=2)
    return Row(f"{found:.3f} s", f"forward pass {passed:.3f} s", f"{found / passed:.1f}")


def reconstruct(bench: Bench) -> Row:
    model, batches = bench.network("cifar_resnet18"), bench.images(512)
    passed = bench.forward_seconds(model, batches)
    found = bench.seconds(partial(_compressed, model, batches, "reconstruct"))
    return Row(f"{found:.2f} s", f"forward pass {passed:.3f} s", f"{found / passed:.0f}")


def best(bench: Bench) -> Row:
    model, seen, unseen = bench.trained
    one = bench.seconds(partial(_compressed, model, seen, "reconstruct"))
    found = bench.seconds(lambda: sm.compress(model, seen, SPARSITY, "erk", heldout=unseen))
    return Row(f"{found:.2f} s", f"reconstruct {one:.2f} s", f"{found / one:.1f}")


def sweep_cell(bench: Bench) -> Row:
    model, batches = bench.network("cifar_resnet18"), bench.images(512)
    rules = ["uniform", "erk", "global", "lamp"]
    cells = partial(sm.sweep, model, batches, [0.8, 0.9], rules=rules, repairs="batchnorm")
    cells(progress=False)
    passed = bench.forward_seconds(model, batches)
    found = bench.seconds(lambda: cells(progress=False)) / 8
    return Row(f"{found:.3f} s", f"forward pass {passed:.3f} s", f"{found / passed:.1f}")


def repeated(bench: Bench) -> Row:
    model, seen, _ = bench.trained
    first, second = (_compressed(model, seen, "reconstruct").model for _ in range(2))
    differing = sum(
        not torch.equal(value.cpu(), second.state_dict()[name].cpu())
        for name, value in first.state_dict().items()
    )
    count = len(first.state_dict())
    return Row("equal" if not differing else f"{differing} of {count} tensors differ", "run again")


def against_cpu_curves(bench: Bench) -> Row:
    model, seen, _ = bench.trained
    there = ours(model, seen[:1])
    here = ours(copy.deepcopy(model).cpu(), [batch.cpu() for batch in seen[:1]])
    return Row(f"{relative_error(there, here):.1e}", "largest relative difference")


def against_cpu_repair(bench: Bench) -> Row:
    model, seen, unseen = bench.trained
    there = _compressed(model, seen, "reconstruct", unseen)
    local, judged = ([batch.cpu() for batch in batches] for batches in (seen, unseen))
    here = _compressed(copy.deepcopy(model).cpu(), local, "reconstruct", judged)
    losses = there.agreement.loss, here.agreement.loss
    return Row(f"loss {losses[0]:.4f}", f"loss {losses[1]:.4f}", f"{losses[0] / losses[1]:.2f}")


def half(dtype: torch.dtype, bench: Bench) -> Row:
    model, seen, unseen = bench.trained
    wide = _compressed(model, seen, "reconstruct", unseen).agreement.loss
    narrow = copy.deepcopy(model).to(dtype)
    found = _compressed(narrow, seen, "reconstruct", unseen).agreement.loss
    return Row(f"loss {found:.4f}", f"float32 {wide:.4f}", f"{found / wide:.2f}")


def two_of_four(bench: Bench) -> Row:
    size = 256 if bench.tiny else 4096
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(size, size, bias=False)).to(bench.device, torch.float16)
    batches = [torch.randn(size, size, device=bench.device, dtype=torch.float16)]
    pruned = sm.compress(model, batches, pattern="2:4", rule="uniform", repair="none").model
    weight, x = pruned[0].weight.detach(), batches[0].t()  # type: ignore[index]
    if bench.device.type != "cuda":
        return Row("not run", "torch.sparse has 2:4 on GPUs only")
    packed = torch.sparse.to_sparse_semi_structured(weight)
    error = float((packed @ x - weight @ x).abs().max() / (weight @ x).abs().max())
    dense = bench.seconds(lambda: [weight @ x for _ in range(50)], runs=3) / 50
    found = bench.seconds(lambda: [packed @ x for _ in range(50)], runs=3) / 50
    return Row(
        f"{1e6 * found:.0f} µs, error {error:.0e}",
        f"dense {1e6 * dense:.0f} µs",
        f"{found / dense:.2f}",
    )


CHECKS: Mapping[str, tuple[Callable[[Bench], Row], str]] = {
    "calibrate + diagnose, ResNet-18, 1,024 images": (diagnosis, "≤ 15"),
    "reconstruct, ResNet-18, 512 images": (reconstruct, "3 s"),
    "best, ResNet-20, 512 images": (best, "5 s"),
    "cell of a sweep, ResNet-18, batchnorm": (sweep_cell, "0.3 s"),
    "the same run twice, reconstruct, ResNet-20": (repeated, "equal"),
    "curves beside the CPU's, ResNet-20": (against_cpu_curves, "1e-3"),
    "reconstruct beside the CPU's, ResNet-20": (against_cpu_repair, "1"),
    "reconstruct in bfloat16, ResNet-20": (partial(half, torch.bfloat16), "1"),
    "reconstruct in float16, ResNet-20": (partial(half, torch.float16), "1"),
    "2:4 in torch.sparse, 4,096 × 4,096": (two_of_four, "< 1"),
}


def table(bench: Bench) -> Iterator[str]:
    """The lines of the table; what fails is said in its row, and does not end the others."""
    yield "| | measured | beside | ratio | goal | seconds |"
    yield "|---|---|---|---|---|---|"
    begun = time.perf_counter()
    for name, (check, goal) in CHECKS.items():
        start = time.perf_counter()
        if start - begun > BEGIN_WITHIN:
            row = Row("not begun, for want of time")
        else:
            try:
                row = check(bench)
            except (RuntimeError, sm.SparsemendError) as error:
                row = Row(f"failed: {str(error).splitlines()[0]}")
        took = time.perf_counter() - start
        yield f"| {name} | {row.number} | {row.beside} | {row.ratio} | {goal} | {took:.0f} |"


def _compressed(
    model: nn.Module, seen: list[Tensor], repair: str, unseen: list[Tensor] | None = None
) -> sm.CompressionResult:
    return sm.compress(model, seen, SPARSITY, "erk", repair=repair, heldout=unseen, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with weights/ and images")
    parser.add_argument("--tiny", action="store_true", help="narrow networks and few inputs")
    add_device(parser)
    parser.set_defaults(device="cuda")
    options = parser.parse_args()
    bench = Bench(options.device, options.data, options.tiny)
    print(f"{device_name(options.device)}, PyTorch {torch.__version__}, random seed 0\n")
    warnings.simplefilter("ignore", sm.SparsemendWarning)  # of random weights
    for line in table(bench):
        print(line, flush=True)


if __name__ == "__main__":
    main()
