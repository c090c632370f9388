"""Where a benchmark computes: its option, and times that wait for what was begun."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", type=torch.device, default="cpu", help="cpu, cuda, cuda:1 …")


def wait(device: torch.device) -> None:
    """Until all that was begun on a device is done; a CPU begins nothing without ending it."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def timed(work: Callable[[], Any], device: torch.device, seconds: list[float]) -> Any:
    """What ``work`` returns; appends how long it took, by the wall."""
    wait(device)
    start = time.perf_counter()
    result = work()
    wait(device)
    seconds.append(time.perf_counter() - start)
    return result


def device_name(device: torch.device) -> str:
    """For a table."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device}, {torch.get_num_threads()} thread(s)"
