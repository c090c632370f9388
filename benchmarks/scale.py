"""Time and memory on a decoder of random weights, as large as it is asked for.

OMP_NUM_THREADS=1 python -m benchmarks.scale --width 2048 --depth 20 --mask activation
OMP_NUM_THREADS=1 python -m benchmarks.scale --width 2048 --depth 20 --repair reconstruct \\
    --include 'blocks.0.*'

A decoder as of ``benchmarks.peers.decoder``, 12 · width² weights a block, in bfloat16. Random
weights and tokens will do for time and memory; what is left of the network says nothing.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import Any

import torch

import sparsemend as sm
from benchmarks.peers.decoder import Decoder

CHARACTERS = 256


def measure(model: torch.nn.Module, batches: list[torch.Tensor], **how: Any) -> dict[str, Any]:
    """Seconds of processor time, and the most memory in GiB, of one compression."""
    before, start = _peak(), time.process_time()
    result = sm.compress(model, batches, progress=False, **how)
    return {
        "cpu_seconds": round(time.process_time() - start),
        "wall_seconds": {stage: round(found, 1) for stage, found in result.seconds.items()},
        "kept": result.allocation.kept,
        "of": result.allocation.total,
        "peak_before_gib": before,
        "peak_gib": _peak(),
    }


def _peak() -> float:
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--mask", default=None)
    parser.add_argument("--repair", default="variance")
    parser.add_argument("--include", nargs="+", default=["blocks.*"])
    options = parser.parse_args()

    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, options.dtype))
    model = Decoder(CHARACTERS, options.width, options.depth, heads=options.width // 128).eval()
    torch.set_default_dtype(torch.float32)
    tokens = torch.randint(CHARACTERS, (options.sequences, options.length))
    found = measure(
        model,
        list(tokens.split(2)),
        sparsity=options.sparsity,
        rule="uniform",
        mask=options.mask,
        repair=options.repair,
        include=options.include,
    )
    weights = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({**vars(options), "parameters": weights, **found}))


if __name__ == "__main__":
    main()
