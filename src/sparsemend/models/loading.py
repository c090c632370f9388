"""Loading a trained network: a built-in one, a library's or the user's own, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from sparsemend.boundary import public
from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError
from sparsemend.models._names import plain_names
from sparsemend.models.sources.registry import find_source
from sparsemend.models.sources.source import Request
from sparsemend.models.weights import channel_values, load_weights, read_weights


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to run, with what is known about it.

    Attributes
    ----------
    model
        The network, on the CPU and in evaluation mode.
    name
        What it was loaded by, such as ``"digits"`` or ``"timm:resnet18"``.
    metadata
        Header of the weights file; empty where there is none.
    preprocessing
        How it wants its images, as its library or else its weights file says; the normalisation
        of the file goes first. None where neither says anything.
    tokenizer
        Texts → tensors, where the network came with one.
    processor
        Image processor of transformers, where the network came with one.
    """

    model: nn.Module
    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    tokenizer: Any = None
    processor: Any = None

    @property
    def mean(self) -> tuple[float, ...] | None:
        """Per-channel mean of the inputs (of pixels in [0, 1]), None where it is not known."""
        return None if self.preprocessing is None else self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...] | None:
        """Per-channel standard deviation of the same."""
        return None if self.preprocessing is None else self.preprocessing.std


@public
def load(
    model: str,
    weights: str | Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    num_classes: int | None = None,
    width: int | None = None,
    progress: bool | None = None,
) -> LoadedModel:
    """Load a trained network.

    Parameters
    ----------
    model
        A name of ``names()``; ``"timm:NAME"``; ``"torchvision:NAME"``; ``"hf:NAME-OR-FOLDER"``,
        of transformers, whose class may be named as in ``"hf:FOLDER#AutoModelForX"``; or a
        callable that returns a module, as ``"package.module:factory"``, installed or in the
        current folder, or as ``"path/mynet.py:factory"``.
    weights
        A ``.safetensors`` file, or a state dict that ``torch.load(weights_only=True)`` reads.
        Without it, ``digits`` is trained once and cached, networks of libraries get the
        pretrained weights that are on this machine, and a factory's network is taken with the
        weights it comes with.
    arguments
        Keywords of the constructor or factory. Nothing is downloaded but by these:
        ``pretrained=True`` of timm, ``weights="DEFAULT"`` of torchvision,
        ``local_files_only=False`` of transformers.
    num_classes, width
        Size of the network. Built-in networks take them from the weights where they are not
        given; others get those that are given.
    progress
        Show a progress bar while ``digits`` is trained; default on a terminal.

    Returns
    -------
    LoadedModel
        The network in evaluation mode, and what is known about it.

    Raises
    ------
    SparsemendError
        For an unknown model, one whose library is not installed, a factory that fails, a network
        whose weights are not on this machine, and weights that are missing, incomplete or of
        another network.

    Examples
    --------
    Not run, for want of the file:

    >>> loaded = load("cifar_resnet20", "cifar10_resnet20.safetensors")  # doctest: +SKIP
    >>> loaded.mean  # doctest: +SKIP
    (0.4914, 0.4822, 0.4465)
    """
    state, metadata = read_weights(weights) if weights is not None else (None, {})
    source, name = find_source(model)
    sizes = {"num_classes": num_classes, "width": width}
    given = {key: value for key, value in sizes.items() if value is not None}
    plain = None
    if state is not None:
        rename = plain_names(state)
        plain = {rename(key): value for key, value in state.items()}
    found = source.supply(Request(model, name, given | dict(arguments or {}), plain, progress))
    where = str(weights) if weights is not None else model
    if state is not None:
        load_weights(found.model, state, source=where, metadata=metadata)
    without = [key for key, value in found.model.state_dict().items() if _is_meta(value)]
    if without:
        raise SparsemendError(
            f"model {model!r} has layers without values", without[:3], fix="build it on the CPU"
        )
    metadata = metadata or dict(found.metadata)
    return LoadedModel(
        model=found.model.eval(),
        name=model,
        metadata=metadata,
        preprocessing=_preprocessing(found.preprocessing, metadata, where),
        tokenizer=found.tokenizer,
        processor=found.processor,
    )


def _is_meta(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_meta


def _preprocessing(
    known: Preprocessing | None, metadata: Mapping[str, str], source: str
) -> Preprocessing | None:
    """What the library says, with the normalisation of the weights file."""
    mean, std = (channel_values(metadata, key, source=source) for key in ("mean", "std"))
    if known is None:
        return None if mean is None and std is None else Preprocessing(mean=mean, std=std)
    return known.but(mean=mean, std=std)
