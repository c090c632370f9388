"""The options that only the command line and its files have: networks, runs, what is written."""

from __future__ import annotations

from pathlib import Path

from sparsemend.recipe.options import BATCH_SIZE, Option, read_number, read_text


def _read_channels(value: object) -> str:
    """Numbers by channel, as the flag takes them."""
    return ",".join(map(read_number, value)) if isinstance(value, list) else read_text(value)


NAME = Option("name", str, "Of the network; default that of the weights file.")
MODEL = Option("model", str, "Built-in network, or package.module:factory.", required=True)
WEIGHTS = Option(
    "weights",
    Path,
    "A safetensors file, or a state dict that torch.load(weights_only=True) reads.",
)
DATA = Option(
    "data",
    str,
    "Folder of parquet files, image folder by class, .npz or .safetensors, or 'digits'.",
    required=True,
)
NUM_CLASSES = Option("num_classes", int, "Where the weights do not tell.")
WIDTH = Option("width", int, "Where the weights do not tell.")
MEAN = Option(
    "mean",
    str,
    "Per channel, as 0.49,0.48,0.45; else the weights'.",
    read=_read_channels,
)
STD = Option("std", str, "Per channel; else the weights'.", read=_read_channels)
# One network and its data.
NETWORK = (NAME, MODEL, WEIGHTS, DATA, NUM_CLASSES, WIDTH, MEAN, STD)

DEVICE = Option("device", str, "cpu, cuda, …; default cuda where there is one.")
STORE = Option("store", Path, "SQLite file that keeps finished cells.")
WORKERS = Option(
    "workers", int, "Processes, of one thread each; default {default}, this process.", 1
)
RAY = Option("ray", str, "Compute on this Ray cluster: its address, 'auto' or 'local' (extra ray).")
# Where it is computed and kept.
RUN = (DEVICE, STORE, WORKERS, RAY)

# Beside the model and its data, what every command takes that loads them.
LOADING = (NUM_CLASSES, WIDTH, MEAN, STD, BATCH_SIZE, DEVICE)

REPORT = Option(
    "report",
    Path,
    "Write a page of figures here; default beside what the command writes, if anything.",
)
NO_REPORT = Option("no_report", bool, "Write no page of figures.", False)
