"""The networks of a sweep and where their inputs come from, by calibration seed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import nn

from sparsemend.checks import check_int
from sparsemend.data import DataSet
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import RAISED, SparsemendError, raised_by
from sparsemend.evaluation import Criterion
from sparsemend.execution.batches import Batch, Batches, materialise
from sparsemend.layers import LayerFilter
from sparsemend.recipe.defaults import BATCH_SIZE, CALIBRATION_SIZE, HELDOUT_SIZE
from sparsemend.session import Session, hold_out

SeedInputs = Callable[[int], Batches]


class Inputs(Protocol):
    """What the cells of one network are computed with."""

    def draw(self, seed: int) -> tuple[list[Batch], list[Batch]]:
        """Unlabelled calibration batches, and held-out ones that do not overlap them, if any."""

    def test(self) -> Iterable[Any] | None:
        """Labelled batches to measure accuracy on; None where there are no labels."""


@dataclass(frozen=True)
class Network:
    """A dense network with its inputs.

    Attributes
    ----------
    name
        Under which its cells are stored.
    model
        In evaluation mode while it runs; never changed.
    inputs
        Its data.
    diagnosis
        What rules that read a diagnosis are given in every cell, as the keyword of
        :func:`sparsemend.compress`; None: a diagnosis of the cell's own mask and repair.
    criterion
        How its outputs are judged.
    chosen
        Which of its layers are pruned; default all.
    """

    name: str
    model: nn.Module
    inputs: Inputs
    diagnosis: Diagnosis | None = None
    criterion: Criterion = field(default_factory=Criterion)
    chosen: LayerFilter = field(default_factory=LayerFilter)

    def session(self, seen: list[Batch], unseen: list[Batch] | None = None) -> Session:
        """The network on some inputs, of which repairs may see the first."""
        return Session(self.model, seen, unseen, criterion=self.criterion, chosen=self.chosen)


def sizes_of(
    data: DataSet,
    calibration_size: int | None = None,
    heldout_size: int | None = None,
    *,
    most: int = CALIBRATION_SIZE,
) -> tuple[int, int]:
    """Numbers of calibration and of held-out inputs: what is asked for, else what is usual.

    Parameters
    ----------
    data
        Where there are too few inputs for the usual numbers, they share what there is.
    calibration_size, heldout_size
        None for the usual number; 0 holds out none.
    most
        How many calibrate where there are more than the usual numbers of both.

    Raises
    ------
    SparsemendError
        If all inputs are to calibrate, and nothing is said of holding out none.
    """
    usual = CALIBRATION_SIZE, HELDOUT_SIZE
    if calibration_size is None and heldout_size is None:
        size, unseen = data.shares(*usual)
        return data.shares(max(size, min(most, data.train_size - unseen)), unseen)
    if heldout_size is None:
        assert calibration_size is not None
        if calibration_size == data.train_size:
            raise SparsemendError(
                "calibration_size leaves nothing to hold out",
                calibration_size,
                f"fewer than the {data.train_size:,} inputs that there are",
                "lower it, or pass a held-out size of 0",
            )
        return calibration_size, min(usual[1], max(1, data.train_size - calibration_size))
    if calibration_size is None:
        return max(1, min(most, data.train_size - heldout_size)), heldout_size
    return calibration_size, heldout_size


@dataclass(frozen=True)
class DrawnInputs:
    """Inputs of a data set, as ``sparsemend compress`` draws them.

    Attributes
    ----------
    images
        The data set.
    calibration_size, heldout_size
        Numbers of training images, None for the usual ones as far as there are images. A held-out
        size of 0 holds out none, so that agreement is measured on the calibration images.
    batch_size
        Images per batch.
    limit
        Measure accuracy on the first ``limit`` test images only; None for all.
    """

    images: DataSet
    calibration_size: int | None = None
    heldout_size: int | None = None
    batch_size: int = BATCH_SIZE
    limit: int | None = None

    def __post_init__(self) -> None:
        check_int("batch_size", self.batch_size)
        for name, least in (("calibration_size", 1), ("heldout_size", 0)):
            size = getattr(self, name)
            if size is not None:
                check_int(name, size, minimum=least)
        self.test()  # refuses a bad limit

    def draw(self, seed: int) -> tuple[list[Batch], list[Batch]]:
        used, size = sizes_of(self.images, self.calibration_size, self.heldout_size)
        seen = self.images.calibration_batches(used, self.batch_size, seed=seed)
        if not size:
            return seen, []
        unseen = self.images.heldout_batches(
            size, self.batch_size, calibration_size=used, seed=seed
        )
        return seen, unseen

    def test(self) -> Iterable[Any] | None:
        if not (self.images.has_labels and self.images.test_size):
            return None
        return self.images.test_batches(self.batch_size, limit=self.limit)


@dataclass(frozen=True)
class GivenInputs:
    """Inputs of the user's own.

    Attributes
    ----------
    calibration
        A function from the seed to unlabelled batches, or one set of batches for every seed.
    heldout
        The same for inputs that the repair must not see; without it, the last fifth of the
        calibration batches is set aside.
    labelled
        Batches (inputs, labels), iterated several times.
    """

    calibration: SeedInputs | Batches
    heldout: SeedInputs | Batches | None = None
    labelled: Iterable[Any] | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("data", self.calibration),
            ("heldout", self.heldout),
            ("test", self.labelled),
        ):
            if isinstance(value, Iterator):
                raise SparsemendError(
                    f"{name} can be iterated only once",
                    type(value).__name__,
                    "a list, a data loader, or a function of the seed",
                )

    def draw(self, seed: int) -> tuple[list[Batch], list[Batch]]:
        seen = materialise(_of_seed(self.calibration, seed, "data"), "data")
        if self.heldout is not None:
            return seen, materialise(_of_seed(self.heldout, seed, "heldout"), "heldout")
        kept, unseen = hold_out(seen)
        if unseen is kept:
            raise SparsemendError(
                "there are no inputs left to measure agreement on",
                "one calibration input",
                "two or more, the last fifth being held out, or heldout=...",
            )
        return kept, unseen

    def test(self) -> Iterable[Any] | None:
        return self.labelled


def _of_seed(inputs: SeedInputs | Batches, seed: int, name: str) -> Batches:
    if not callable(inputs):
        return inputs
    try:
        return inputs(seed)
    except RAISED as error:  # it is the user's
        raise SparsemendError(
            f"{name}({seed}) failed: {raised_by(error)}",
            allowed="a function from the seed to unlabelled batches",
        ) from error
