"""Networks of transformers: ``hf:NAME-OR-FOLDER``, also as ``hf:…#AutoModelForX``."""

from __future__ import annotations

from typing import Any

from sparsemend.data.preprocessing import INTERPOLATIONS, Preprocessing
from sparsemend.errors import SparsemendError
from sparsemend.imports import require
from sparsemend.models.sources.constructing import construct, first_line
from sparsemend.models.sources.source import Request, Source, Supply, behind

# Numbers of transformers' resampling filters, which are Pillow's.
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


def supply(request: Request) -> Supply:
    """Load a network with its tokenizer or image processor from a folder or the local cache.

    The class is that behind ``#``, else the first of the configuration's ``architectures``, else
    ``AutoModel``. ``local_files_only=False`` lets transformers download.
    """
    transformers = require("transformers", purpose=f"model {request.spec!r}", extra="hf")
    name, _, wanted = request.name.partition("#")
    arguments = {"local_files_only": True, **request.arguments}
    online = {"local_files_only": arguments["local_files_only"]}
    try:
        config = transformers.AutoConfig.from_pretrained(name, **online)
    except Exception as error:
        raise _not_here(request, name, error) from error
    known = [wanted] if wanted else list(getattr(config, "architectures", None) or ())
    factory = getattr(transformers, (known or ["AutoModel"])[0], None)
    if factory is None:
        raise SparsemendError(
            f"transformers has no class for {request.spec!r}",
            known[0],
            "a class such as AutoModelForImageClassification",
            f"write it as hf:{name}#AutoModel",
        )
    if request.state is None:
        try:
            model = factory.from_pretrained(name, **arguments)
        except OSError as error:
            raise _not_here(request, name, error) from error
        except Exception as error:
            raise SparsemendError(
                f"model {request.spec!r} failed ({type(error).__name__}: {first_line(error)})"
            ) from error
    else:
        # An automatic class is called by from_config, others by their own name.
        make = getattr(factory, "from_config", factory)
        model = construct(lambda: make(config), {}, spec=request.spec)
    processor = None
    if hasattr(transformers, "AutoImageProcessor"):
        processor = _optional(transformers.AutoImageProcessor, name, online)
    return Supply(
        model,
        preprocessing=None if processor is None else _preprocessing(processor),
        tokenizer=find_tokenizer(name, **online),
        processor=processor,
    )


def find_tokenizer(name: str, **arguments: Any) -> Any:
    """The tokenizer of a folder or cached name, None where there is none."""
    transformers = require("transformers", purpose="a tokenizer", extra="hf")
    return _optional(transformers.AutoTokenizer, name, arguments)


def _optional(factory: Any, name: str, arguments: Any) -> Any:
    try:
        return factory.from_pretrained(name, **arguments)
    except Exception:  # of any kind where the files are not there or of something else
        return None


def _preprocessing(processor: Any) -> Preprocessing:
    """What the image processor's configuration says, where it is a resizing and a cut."""
    size = dict(getattr(processor, "size", None) or {})
    crop = dict(getattr(processor, "crop_size", None) or {})
    resize: int | tuple[int, int] | None = size.get("shortest_edge")
    if "height" in size:
        resize = (size["height"], size["width"])
    normalises = getattr(processor, "do_normalize", False)
    mean, std = (getattr(processor, key, None) for key in ("image_mean", "image_std"))
    filter_ = int(getattr(processor, "resample", None) or _FILTERS.index("bilinear"))
    cuts = getattr(processor, "do_center_crop", False) and "height" in crop
    return Preprocessing(
        resize=resize if getattr(processor, "do_resize", True) else None,
        crop=(crop["height"], crop["width"]) if cuts else None,
        mean=mean if normalises else None,
        std=std if normalises else None,
        interpolation=_FILTERS[filter_] if _FILTERS[filter_] in INTERPOLATIONS else "bilinear",
        channels=None if mean is None else len(mean),
    )


def _not_here(request: Request, name: str, error: Exception) -> SparsemendError:
    return SparsemendError(
        f"model {request.spec!r} is neither a folder nor in the local cache "
        f"({type(error).__name__}: {first_line(error)})",
        name,
        "a folder with config.json and weights, or the name of a cached model",
        "pass --model-arg local_files_only=false to let transformers download it",
    )


HUGGING_FACE = Source("hf:NAME-OR-FOLDER[#CLASS]", behind("hf"), supply)
