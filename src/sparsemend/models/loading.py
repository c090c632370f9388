"""Loading a trained network: a built-in one or the user's own, with or without a weights file."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import operator
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from sparsemend.errors import SparsemendError
from sparsemend.models import digits
from sparsemend.models._names import plain_names
from sparsemend.models.registry import architecture, create
from sparsemend.models.weights import channel_values, load_weights, read_weights


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to run, with what its weights file says about it.

    Attributes
    ----------
    model
        The network, on the CPU and in evaluation mode.
    name
        The built-in name or ``package.module:factory`` it was loaded by.
    metadata
        Header of the weights file; empty where there is none.
    mean, std
        Per-channel normalisation of the inputs (of pixels in [0, 1]), None where the file
        does not say.
    """

    model: nn.Module
    name: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def load(
    model: str,
    weights: str | Path | None = None,
    *,
    num_classes: int | None = None,
    width: int | None = None,
    progress: bool | None = None,
) -> LoadedModel:
    """Load a trained network.

    Parameters
    ----------
    model
        A name of ``names()``, or ``package.module:factory``: a callable that returns a module,
        imported from the installed packages or from the current folder.
    weights
        A ``.safetensors`` file, or a state dict that ``torch.load(weights_only=True)`` reads.
        Without it, ``digits`` is trained once and cached, and a factory's network is taken
        with the weights it comes with.
    num_classes, width
        Size of the network. Built-in networks take them from the weights where they are not
        given; a factory gets those that are given.
    progress
        Show a progress bar while ``digits`` is trained; default on a terminal.

    Returns
    -------
    LoadedModel
        The network in evaluation mode, and its metadata.

    Raises
    ------
    SparsemendError
        For an unknown model, a factory that fails, a built-in network without weights, and
        weights that are missing, incomplete or of another network.

    Examples
    --------
    Not run, for want of the file:

    >>> loaded = load("cifar_resnet20", "cifar10_resnet20.safetensors")  # doctest: +SKIP
    >>> loaded.mean  # doctest: +SKIP
    (0.4914, 0.4822, 0.4465)
    """
    state: dict[str, Tensor] = {}
    metadata: dict[str, str] = {}
    if weights is not None:
        state, metadata = read_weights(weights)

    if ":" in model:
        network = _call_factory(model, num_classes=num_classes, width=width)
    elif weights is not None:
        network = _create_to_fit(model, state, num_classes=num_classes, width=width)
    elif model == "digits":
        _require_trained_size(num_classes=num_classes, width=width)
        network, metadata = digits.pretrained_with_metadata(progress=progress)
    else:
        architecture(model)
        raise SparsemendError(
            f"model {model!r} has no weights of its own",
            fix="pass a file of trained weights; models.create builds it with random ones",
        )

    source = str(weights) if weights is not None else model
    if weights is not None:
        load_weights(network, state, source=source, metadata=metadata)
    return LoadedModel(
        model=network.eval(),
        name=model,
        metadata=metadata,
        mean=channel_values(metadata, "mean", source=source),
        std=channel_values(metadata, "std", source=source),
    )


def _create_to_fit(
    name: str, state: Mapping[str, Tensor], *, num_classes: int | None, width: int | None
) -> nn.Module:
    """Build a built-in network in the size of the weights, where the caller gives none."""
    entry = architecture(name)
    rename = plain_names(state)
    state = {rename(key): value for key, value in state.items()}
    if num_classes is None:
        num_classes = _rows(state, entry.classifier)
    if width is None:
        width = _rows(state, entry.stem)
    # Weights without these layers belong to another network: the defaults do for the error.
    return create(name, 10 if num_classes is None else num_classes, width)


def _rows(state: Mapping[str, Tensor], module: str) -> int | None:
    # The second is how torch.nn.utils.prune names it.
    weight = state.get(f"{module}.weight", state.get(f"{module}.weight_orig"))
    if weight is None or weight.ndim == 0 or len(weight) == 0:
        return None
    return len(weight)


def _require_trained_size(*, num_classes: int | None, width: int | None) -> None:
    default = architecture("digits").width
    if num_classes not in (None, digits.NUM_CLASSES) or width not in (None, default):
        raise SparsemendError(
            "model 'digits' is trained in one size",
            {"num_classes": num_classes, "width": width},
            f"num_classes={digits.NUM_CLASSES} and width={default}",
            "pass your own weights for another size",
        )


def _call_factory(spec: str, **options: int | None) -> nn.Module:
    """Import ``package.module:factory``, call it with the given options, and check the result."""
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise SparsemendError("model is written wrong", spec, "'package.module:factory'")
    given = {name: value for name, value in options.items() if value is not None}
    with current_folder_importable():
        try:
            factory = operator.attrgetter(attribute)(importlib.import_module(module_name))
        # The user's own module may fail in any way.
        except Exception as error:
            raise SparsemendError(
                f"model {spec!r} cannot be imported ({type(error).__name__}: {error})",
                allowed="'package.module:factory', installed or in the current folder",
            ) from error
        if not callable(factory):
            raise SparsemendError(
                f"model {spec!r} is not callable", factory, "a function or class giving a module"
            )
        for name, value in given.items():
            if not _accepts(factory, name):
                raise SparsemendError(
                    f"model {spec!r} takes no {name}", value, fix=f"leave {name} out"
                )
        try:
            network = factory(**given)
        except Exception as error:
            raise SparsemendError(
                f"model {spec!r} failed when called with {given} ({type(error).__name__}: {error})",
                fix="the factory must run without arguments beyond num_classes and width",
            ) from error
    if not isinstance(network, nn.Module):
        raise SparsemendError(
            f"model {spec!r} returned no module", type(network).__name__, "a torch.nn.Module"
        )
    return network


def _accepts(factory: Callable[..., object], name: str) -> bool:
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # built-ins without a signature
        return True
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (
            parameter.name == name
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )
        for parameter in parameters
    )


@contextlib.contextmanager
def current_folder_importable() -> Iterator[None]:
    """Let imports see the current folder, as ``python -m`` does and console scripts do not."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)
