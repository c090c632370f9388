"""The options that only the command line and its files have: networks, runs, what is written."""

from __future__ import annotations

from pathlib import Path

from sparsemend.recipe.options import BATCH_SIZE, Option, read_number, read_text


def _read_channels(value: object) -> str:
    """Numbers by channel, as the flag takes them."""
    return ",".join(map(read_number, value)) if isinstance(value, list) else read_text(value)


def _read_arguments(value: object) -> list[str]:
    """Texts ``key=value``, from a list of them or a table."""
    if isinstance(value, dict):
        return [f"{key}={part}" for key, part in value.items()]
    if isinstance(value, list):
        return [read_text(part) for part in value]
    raise TypeError("a table, or a list of texts such as 'key=value'")


def _read_columns(value: object) -> list[str]:
    """Names or numbers of columns, one or a list."""
    parts = value if isinstance(value, list) else [value]
    if not all(isinstance(part, str | int) and part != "" for part in parts):
        raise TypeError("a name or a number, or a list of two")
    return [str(part) for part in parts]


def _read_lengths(value: object) -> str:
    """A side, or both, as the flag takes them."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise TypeError("a number, or a text such as '224x320'")
    return str(value)


NAME = Option("name", str, "Of the network; default that of the weights file.")
MODEL = Option(
    "model",
    str,
    "Built-in network, timm:NAME, torchvision:NAME, hf:NAME-OR-FOLDER (or hf:…#AutoModelForX), "
    "package.module:factory or path/mynet.py:factory.",
    required=True,
)
MODEL_ARG = Option(
    "model_arg",
    str,
    "Keyword of the network's constructor or factory, as key=value; repeat for several.",
    several=True,
    read=_read_arguments,
)
WEIGHTS = Option(
    "weights",
    Path,
    "A safetensors file, or a state dict that torch.load(weights_only=True) reads.",
)
DATA = Option(
    "data",
    str,
    "Folder of images, by class or not, list of paths, parquet files, .txt, .csv, .npz, "
    ".safetensors, package.module:batches, or 'digits'.",
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
RESIZE = Option(
    "resize",
    str,
    "Images to this shorter side, or to HEIGHTxWIDTH; else as the network's library does.",
    read=_read_lengths,
)
CROP = Option(
    "crop",
    str,
    "Then cut SIDE or HEIGHTxWIDTH in the centre; else the library's.",
    read=_read_lengths,
)
COLUMN = Option(
    "column",
    str,
    "Column of a table that holds the texts, by name or number from 0; twice for pairs.",
    several=True,
    read=_read_columns,
)
TOKENIZER = Option("tokenizer", str, "Folder or cached name of one; default the network's own.")
# How inputs become what the network takes.
PREPROCESSING = (MEAN, STD, RESIZE, CROP, COLUMN, TOKENIZER)
# One network and its data.
NETWORK = (NAME, MODEL, MODEL_ARG, WEIGHTS, DATA, NUM_CLASSES, WIDTH, *PREPROCESSING)

DEVICE = Option("device", str, "cpu, cuda, …; default cuda where there is one.")
OFFLOAD = Option(
    "offload",
    str,
    "Compute on this device, as in cuda, a network that is too large for it and stays on the CPU.",
)
STORE = Option("store", Path, "SQLite file that keeps finished cells.")
WORKERS = Option(
    "workers", int, "Processes, of one thread each; default {default}, this process.", 1
)
RAY = Option("ray", str, "Compute on this Ray cluster: its address, 'auto' or 'local' (extra ray).")
# Where it is computed and kept.
RUN = (DEVICE, STORE, WORKERS, RAY)

# Beside the model and its data, what every command takes that loads them.
LOADING = (MODEL_ARG, NUM_CLASSES, WIDTH, *PREPROCESSING, BATCH_SIZE, DEVICE)

REPORT = Option(
    "report",
    Path,
    "Write a page of figures here; default beside what the command writes, if anything.",
)
NO_REPORT = Option("no_report", bool, "Write no page of figures.", False)
