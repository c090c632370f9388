"""The small ResNet on scikit-learn's digits: trained once on this machine, then cached.

Real data that needs no download: 1,797 handwritten digits of 8x8 pixels come with scikit-learn.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from sparsemend.data.digits import digits_tensors
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.models.registry import create
from sparsemend.models.weights import load_weights, read_weights, save_weights
from sparsemend.progress import progress_bar, progress_shown

NUM_CLASSES = 10
SEED = 0
EPOCHS = 20
BATCH_SIZE = 64
LEARNING_RATE = 0.1
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4
RECIPE = "1"
"""Version of the training recipe; a cached network of another version is trained anew."""


def cache_path() -> Path:
    """Return where the trained network is kept.

    ``$SPARSEMEND_CACHE/digits.safetensors``; without that variable, in ``sparsemend`` below
    ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    own = os.environ.get("SPARSEMEND_CACHE")
    if own:
        return Path(own) / "digits.safetensors"
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) if base else Path.home() / ".cache"
    return folder / "sparsemend" / "digits.safetensors"


def pretrained(*, refresh: bool = False, progress: bool | None = None) -> nn.Module:
    """Return the trained ``digits`` network, from the cache where it is there.

    Parameters
    ----------
    refresh
        Train anew even if the cache has the network.
    progress
        Show a progress bar while training; default on a terminal.

    Returns
    -------
    nn.Module
        In evaluation mode; takes images [N, 1, 8, 8], normalised with the mean and standard
        deviation in the metadata.

    Warns
    -----
    SparsemendWarning
        If the cache cannot be written; the network is returned all the same.
    """
    return pretrained_with_metadata(refresh=refresh, progress=progress)[0]


def pretrained_with_metadata(
    *, refresh: bool = False, progress: bool | None = None
) -> tuple[nn.Module, dict[str, str]]:
    """Return the trained network and its metadata; otherwise as ``pretrained``."""
    path = cache_path()
    cached = None if refresh else _read_cache(path)
    if cached is not None:
        return cached
    model, metadata = train(progress=progress)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(path, model.state_dict(), metadata)
    except (OSError, SparsemendError) as error:
        warnings.warn(
            f"the digits network cannot be cached ({error}) and will be trained again next time; "
            "set SPARSEMEND_CACHE to a folder that can be written",
            SparsemendWarning,
            stacklevel=2,
        )
    return model, metadata


def train(
    *, epochs: int = EPOCHS, progress: bool | None = None
) -> tuple[nn.Module, dict[str, str]]:
    """Train the network on the training split, with a fixed seed and on the CPU.

    Parameters
    ----------
    epochs
        Passes over the training split.
    progress
        Show a progress bar; default on a terminal.

    Returns
    -------
    tuple
        The network in evaluation mode, and its metadata: ``architecture``, ``dataset``,
        ``mean``, ``std``, ``top1_test`` (percent), ``seed``, ``recipe``. The caller's random
        state is left as it was.
    """
    with _reproducible(SEED):
        splits = digits_tensors()
        images, labels = splits["train"]
        mean, std = round(images.mean().item(), 6), round(images.std().item(), 6)
        model = create("digits", NUM_CLASSES)
        with progress_shown(progress):
            _fit(model, (images - mean) / std, labels, epochs=epochs)
        test_images, test_labels = splits["test"]
        with torch.no_grad():
            predicted = model.eval()((test_images - mean) / std).argmax(dim=1)
    correct = (predicted == test_labels).double().mean().item()
    metadata = {
        "architecture": "digits",
        "dataset": "digits",
        "mean": f"{mean:.6f}",
        "std": f"{std:.6f}",
        "top1_test": f"{100 * correct:.2f}",
        "seed": str(SEED),
        "recipe": RECIPE,
    }
    return model, metadata


def _fit(
    model: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    epochs: int,
) -> None:
    """Minimise the cross-entropy by SGD with momentum and a cosine learning rate."""
    optimizer = torch.optim.SGD(
        model.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    steps = epochs * math.ceil(len(inputs) / BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    with progress_bar("train digits", steps) as advance:
        for _ in range(epochs):
            for rows in torch.randperm(len(inputs)).split(BATCH_SIZE):
                loss = functional.cross_entropy(model(inputs[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                advance()


@contextlib.contextmanager
def _reproducible(seed: int) -> Iterator[None]:
    """Seed the CPU generator, use one thread, record gradients; then put all back as it was.

    One thread, because the order of floating-point sums depends on their number.
    """
    threads = torch.get_num_threads()
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs as well
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def _read_cache(path: Path) -> tuple[nn.Module, dict[str, str]] | None:
    """Return the cached network, or None if there is none that can be used."""
    try:
        state, metadata = read_weights(path)
        if metadata.get("recipe") != RECIPE:
            return None
        with torch.random.fork_rng(devices=[]):
            model = create("digits", NUM_CLASSES)
        load_weights(model, state, source=str(path), metadata=metadata)
    except SparsemendError:
        return None
    return model.eval(), metadata
