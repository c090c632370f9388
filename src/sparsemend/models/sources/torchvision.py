"""Networks of torchvision: ``torchvision:NAME``, with the weights that are on this machine."""

from __future__ import annotations

from typing import Any

from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.imports import require
from sparsemend.models.sources.constructing import construct
from sparsemend.models.sources.hub import cached_file
from sparsemend.models.sources.source import Request, Source, Supply, behind


def supply(request: Request) -> Supply:
    """Create a network of torchvision.

    Its default weights are taken where they are in PyTorch's cache. An argument ``weights``
    names others, which torchvision downloads; ``weights=none`` gives random ones.
    """
    models = require("torchvision.models", purpose=f"model {request.spec!r}", extra="timm")
    if request.name not in models.list_models():
        raise SparsemendError(
            "torchvision has no network of this name",
            request.name,
            fix=did_you_mean(request.name, models.list_models())
            or "torchvision.models.list_models() has the names",
        )
    default = models.get_model_weights(request.name).DEFAULT
    arguments = dict(request.arguments)
    # Those of a backbone would be fetched too.
    bare = {"weights": None} | (
        {"weights_backbone": None} if "weights_backbone" in default.meta else {}
    )
    if request.state is not None:
        arguments |= bare
    elif "weights" not in arguments:
        file = cached_file(default.url)
        if not file.is_file():
            raise SparsemendError(
                f"the weights of {request.spec!r} are not on this machine "
                f"({file.name} is in no cache)",
                fix="pass a file with --weights, --model-arg weights=DEFAULT to let torchvision "
                "download them, or --model-arg weights=none for random ones",
            )
        arguments["weights"] = default
    if arguments["weights"] is None:
        arguments.setdefault("weights_backbone", None)

    def create(**given: Any) -> Any:
        return models.get_model(request.name, **given)

    try:
        model = construct(create, arguments, spec=request.spec)
    except SparsemendError as error:
        if "weights_backbone" not in str(error.__cause__):
            raise
        del arguments["weights_backbone"]
        model = construct(create, arguments, spec=request.spec)
    return Supply(model, preprocessing=_preprocessing(default.transforms()))


def _preprocessing(transforms: Any) -> Preprocessing | None:
    """What the weights' own transform does; None where it is none for single images."""
    if not hasattr(transforms, "mean"):  # detectors take pixels of any size
        return None
    resize, crop = (getattr(transforms, name, None) for name in ("resize_size", "crop_size"))
    return Preprocessing(
        resize=_size(resize),
        crop=None if not crop else (crop[0], crop[-1]),
        mean=transforms.mean,
        std=transforms.std,
        interpolation=transforms.interpolation.value,
        channels=len(transforms.mean),
    )


def _size(lengths: Any) -> int | tuple[int, int] | None:
    if not lengths:
        return None
    return lengths[0] if len(lengths) == 1 else (lengths[0], lengths[1])


TORCHVISION = Source("torchvision:NAME", behind("torchvision"), supply)
