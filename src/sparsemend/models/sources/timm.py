"""Networks of timm: ``timm:NAME``, with the weights that are on this machine."""

from __future__ import annotations

import math
from typing import Any

from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.imports import require
from sparsemend.models.sources.constructing import construct, first_line
from sparsemend.models.sources.hub import cached_file, offline
from sparsemend.models.sources.source import Request, Source, Supply, behind


def supply(request: Request) -> Supply:
    """Create a network of timm.

    Pretrained weights are taken where they are on this machine. ``pretrained=True`` lets timm
    download them, ``pretrained=False`` gives random ones.
    """
    timm = require("timm", purpose=f"model {request.spec!r}", extra="timm")
    name = request.name
    if not timm.is_model(name.partition(".")[0]) and "/" not in name:
        known = timm.list_models()
        raise SparsemendError(
            "timm has no network of this name",
            name,
            fix=did_you_mean(name, known) or "timm.list_models() has the names",
        )

    def create(**arguments: Any) -> Any:
        return timm.create_model(name, **arguments)

    arguments = dict(request.arguments)
    if request.state is not None:
        arguments["pretrained"] = False
    if "pretrained" in arguments:
        model = construct(create, arguments, spec=request.spec)
    else:
        _require_cached(timm.get_pretrained_cfg(name, allow_unregistered=True), request)
        with offline():
            try:
                model = create(**arguments, pretrained=True)
            except Exception as error:
                raise _not_here(request, first_line(error)) from error
    return Supply(model, preprocessing=_preprocessing(timm, model))


def _require_cached(config: Any, request: Request) -> None:
    """Refuse weights from a plain address that are not in PyTorch's cache: they are fetched."""
    if config is None or not (config.hf_hub_id or config.url):
        raise _not_here(request, "timm has none")
    if not config.hf_hub_id:
        file = cached_file(config.url)
        if not file.is_file():
            raise _not_here(request, f"{file.name} is in no cache")


def _not_here(request: Request, reason: str) -> SparsemendError:
    return SparsemendError(
        f"the weights of {request.spec!r} are not on this machine ({reason})",
        fix="pass a file with --weights, --model-arg pretrained=true to let timm download them, "
        "or --model-arg pretrained=false for random ones",
    )


def _preprocessing(timm: Any, model: Any) -> Preprocessing:
    """What timm's own transform for evaluation does, from the network's data configuration."""
    config = timm.data.resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    scaled = tuple(math.floor(side / config["crop_pct"]) for side in (height, width))
    squashed = config["crop_mode"] == "squash" or scaled[0] != scaled[1]
    interpolation = config["interpolation"]
    return Preprocessing(
        resize=scaled if squashed else scaled[0],
        crop=(height, width),
        mean=config["mean"][:channels],
        std=config["std"][:channels],
        interpolation=interpolation if interpolation != "random" else "bilinear",
        channels=channels if channels in (1, 3) else None,
    )


TIMM = Source("timm:NAME", behind("timm"), supply)
