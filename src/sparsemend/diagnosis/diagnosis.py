"""The result of a diagnosis: damage and repairability of every layer at every density."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsemend.boundary import public
from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError, printable
from sparsemend.files import atomic_write, npz_arrays, parse_json, read_file, read_json
from sparsemend.layers import Coverage
from sparsemend.patterns import FREE, patterned

if TYPE_CHECKING:
    import pandas as pd

Array = NDArray[np.float64]
_ARRAYS = ("densities", "raw", "residual", "rr")
_SHOWN_DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """Normalised damage before and after repair, and their ratio, per layer and density.

    Attributes
    ----------
    layers
        L layer names in execution order.
    densities
        K densities (kept fractions), ascending, [K].
    raw
        Raw damage, mean_c D_raw,c / v_c, [L, K].
    residual
        Damage left after the repair, mean_c D_rep,c / v_c, [L, K].
    rr
        Relative Repairability, [L, K]: 0 fully repairable, 1 repair changes nothing, above 1
        repair makes it worse. NaN where nothing was pruned. Never clipped.
    repair
        Name of the repair operator.
    mask
        Name of the mask rule.
    weighting
        ``"relative"`` (omega_c = 1 / v_c) or ``"energy"`` (omega_c = 1).
    left_out
        Layer → number of channels without variance, left out of the means.
    inputs
        Number of calibration inputs.
    coverage
        How much of the network its layers are; None where that was not kept.
    pattern
        Which weights could be kept.
    sensitivities
        What the network's output loses per relative variance of error in each layer, [L]; None
        where it was not measured.
    """

    layers: tuple[str, ...]
    densities: Array
    raw: Array
    residual: Array
    rr: Array
    repair: str
    mask: str = "magnitude"
    weighting: str = "relative"
    left_out: Mapping[str, int] = field(default_factory=dict)
    inputs: int = 0
    coverage: Coverage | None = None
    pattern: str = FREE.name
    sensitivities: Array | None = None

    def __str__(self) -> str:
        """Relative Repairability and residual damage of each layer at a few densities."""
        shown = sorted({int(np.abs(self.densities - d).argmin()) for d in _SHOWN_DENSITIES})
        names = [printable(name) for name in self.layers]
        width = max(5, *map(len, names))
        head = "".join(f"{f'{100 * self.densities[k]:.3g} %':>14}" for k in shown)
        heard = "" if self.sensitivities is None else f"{'sensitivity':>14}"
        lines = [
            f"Relative Repairability (residual damage) after repair {self.repair!r}, "
            f"{printable(self.mask)} masks{patterned(self.pattern)}, {self.inputs} inputs",
            f"{'layer':<{width}}{head}{heard}   density",
        ]
        for index, name in enumerate(names):
            cells = (f"{self.rr[index, k]:.2f} ({self.residual[index, k]:.2f})" for k in shown)
            heard = "" if self.sensitivities is None else f"{self.sensitivities[index]:>14.3g}"
            lines.append(f"{name:<{width}}" + "".join(f"{cell:>14}" for cell in cells) + heard)
        if self.coverage is not None:
            lines.append(str(self.coverage))
        return "\n".join(lines)

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are the same."""
        return self.to_dict() == other.to_dict() if isinstance(other, Diagnosis) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, NaN as None: ready for JSON."""
        return {
            "format": "sparsemend-diagnosis",
            "layers": list(self.layers),
            "densities": self.densities.tolist(),
            "raw": _without_nan(self.raw),
            "residual": _without_nan(self.residual),
            "rr": _without_nan(self.rr),
            "repair": self.repair,
            "mask": self.mask,
            "pattern": self.pattern,
            "weighting": self.weighting,
            "left_out": dict(self.left_out),
            "inputs": self.inputs,
            "coverage": None if self.coverage is None else self.coverage.to_dict(),
            "sensitivities": None if self.sensitivities is None else self.sensitivities.tolist(),
        }

    @classmethod
    @public
    def from_dict(cls, values: Mapping[str, Any]) -> Diagnosis:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        SparsemendError
            If these are the values of something else, or arrays do not fit together.
        """
        return cls._read(values)

    @classmethod
    def _read(cls, values: Any) -> Diagnosis:
        if not isinstance(values, Mapping) or values.get("format") != "sparsemend-diagnosis":
            found = sorted(map(str, values))[:5] if isinstance(values, Mapping) else values
            raise SparsemendError("this is not a diagnosis", found)
        # Earlier versions did not keep these.
        coverage, heard = values.get("coverage"), values.get("sensitivities")
        try:
            diagnosis = cls(
                layers=tuple(values["layers"]),
                repair=values["repair"],
                mask=values["mask"],
                pattern=values.get("pattern", FREE.name),
                weighting=values["weighting"],
                left_out={
                    str(name): check_int(f"left_out of {name!r}", count, minimum=0)
                    for name, count in values["left_out"].items()
                },
                inputs=check_int("inputs", values["inputs"], minimum=0),
                coverage=Coverage.from_dict(coverage) if coverage else None,
                sensitivities=None if heard is None else np.array(heard, dtype=np.float64),
                **{key: np.array(values[key], dtype=np.float64) for key in _ARRAYS},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            what = "" if isinstance(error, SparsemendError) else f"{type(error).__name__}: "
            raise SparsemendError(f"this is not a diagnosis ({what}{error})") from error
        diagnosis._check()
        return diagnosis

    def _check(self) -> None:
        """Refuse what no diagnosis of a network can be."""
        names = self.layers
        if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
            raise SparsemendError("this is not a diagnosis: layers", names, "distinct names")
        densities = self.densities
        within = densities.size and bool(((densities > 0) & (densities <= 1)).all())
        if not within or bool((np.diff(densities) <= 0).any()):
            raise SparsemendError(
                "this is not a diagnosis: densities",
                densities.tolist(),
                "fractions in (0, 1], ascending, at least one",
            )
        shape = (len(names), densities.size)
        for key in _ARRAYS:
            array = getattr(self, key)
            expected = shape[1:] if key == "densities" else shape
            if array.shape != expected:
                raise SparsemendError(
                    f"this is not a diagnosis: shape of {key!r}", array.shape, f"{expected}"
                )
            wrong = (array < 0) | np.isinf(array)
            if bool(wrong.any()):
                raise SparsemendError(
                    f"this is not a diagnosis: {key!r}", float(array[wrong][0]), "0 or more"
                )
        if not names:
            raise SparsemendError("this is not a diagnosis: layers", names, "at least one")
        heard = self.sensitivities
        if heard is not None and not (heard.shape == shape[:1] and np.isfinite(heard).all()):
            raise SparsemendError(
                "this is not a diagnosis: 'sensitivities'",
                heard.tolist(),
                "a finite number for each layer",
            )
        for key in ("repair", "mask", "pattern", "weighting"):
            if not isinstance(getattr(self, key), str):
                raise SparsemendError(
                    f"this is not a diagnosis: {key!r}", getattr(self, key), "a name"
                )

    @public
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON or npz, by the ending of the path; atomically.

        Raises
        ------
        SparsemendError
            If the path ends in neither ``.json`` nor ``.npz``.
        """
        path = Path(path)
        values = self.to_dict()
        if path.suffix == ".json":
            text = json.dumps(values, allow_nan=False)
            atomic_write(path, lambda file: file.write(text.encode()))
        elif path.suffix == ".npz":
            arrays = {key: getattr(self, key) for key in _ARRAYS}
            rest = {key: value for key, value in values.items() if key not in arrays}
            header = np.array(json.dumps(rest))
            content = io.BytesIO()  # a zip archive does not close where the disk is full
            np.savez(content, header=header, **arrays)
            atomic_write(path, lambda file: file.write(content.getvalue()))
        else:
            raise _unknown_ending(path)

    @classmethod
    @public
    def load(cls, path: str | os.PathLike[str]) -> Diagnosis:
        """Read what :meth:`save` wrote; never unpickles.

        Raises
        ------
        SparsemendError
            If there is no such file, or it holds no diagnosis or a damaged one.
        """
        path = Path(path)
        if path.suffix not in _READERS:
            raise _unknown_ending(path)
        read = _READERS[path.suffix]
        return read_file(path, "diagnosis", lambda file: cls._read(read(file)))

    def to_pandas(self) -> pd.DataFrame:
        """Long table with columns layer, density, raw, residual, rr.

        Raises
        ------
        SparsemendError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise SparsemendError(
                "pandas is not installed", fix='pip install "sparsemend[pandas]"'
            ) from error
        layers, densities = len(self.layers), len(self.densities)
        return pd.DataFrame(
            {
                "layer": np.repeat(self.layers, densities),
                "density": np.tile(self.densities, layers),
                "raw": self.raw.ravel(),
                "residual": self.residual.ravel(),
                "rr": self.rr.ravel(),
            }
        )


def _without_nan(values: Array) -> list[list[float | None]]:
    return [[None if math.isnan(v) else v for v in row] for row in values.tolist()]


def _read_npz(path: Path) -> dict[str, Any]:
    arrays = npz_arrays(path)
    return {**parse_json(str(arrays.pop("header"))), **arrays}


# Ending → what reads such a file.
_READERS: dict[str, Callable[[Path], Any]] = {".json": read_json, ".npz": _read_npz}


def _unknown_ending(path: Path) -> SparsemendError:
    return SparsemendError("a diagnosis file has an unknown ending", str(path), ".json or .npz")
