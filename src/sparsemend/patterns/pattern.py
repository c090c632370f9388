"""What a sparsity pattern is, and what it makes of one layer."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import ClassVar, Literal, Self

from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.solvers.ranking import keep_mask

# Where scores are compared: over the whole layer, or within each output channel.
Within = Literal["layer", "row"]


class Structure(ABC):
    """A pattern on the weights of one layer: which counts and which masks there are.

    Tensors are weight matrices [groups, rows, d], or hold one number for each of their weights.

    Attributes
    ----------
    coupled
        Names of the layers that keep the same output channels, of which this is one; empty where
        it keeps its own.
    """

    coupled: tuple[str, ...] = ()

    @abstractmethod
    def around(self, count: int) -> tuple[int, int]:
        """The largest count up to this one that a mask can have, and the smallest from it on.

        Where all masks have one count, that.
        """

    @abstractmethod
    def rank(self, score: Tensor, within: Within = "layer") -> Tensor:
        """Rank of every weight, 0 for the first to be kept, every number once, int64.

        At every count that a mask can have, the best-ranked weights are such a mask, and keep what
        scores highest; equal scores go by index.

        Parameters
        ----------
        score
            Of every weight.
        within
            ``"row"``: every output channel keeps the same number, as far as the pattern allows.
        """

    def best(self, score: Tensor, kept: int, within: Within = "layer") -> Tensor:
        """Boolean mask of the ``kept`` best-ranked weights."""
        return keep_mask(self.rank(score, within), kept)

    @abstractmethod
    def largest(self, values: Tensor, kept: int) -> Tensor:
        """Boolean mask of the largest |values|, of ``kept`` weights or the nearest count below.

        Where weights are kept n of every m: what the pattern asks for at that count, and beyond it
        the largest of the others.
        """

    @abstractmethod
    def holds(self, mask: Tensor) -> bool:
        """Whether a boolean mask has the pattern."""

    def shared(self, magnitudes: Tensor) -> Tensor:
        """What each weight is worth where weights can only be kept together, in the same shape.

        The root mean square of |w| over those that are kept together.
        """
        return magnitudes

    @property
    def least(self) -> int:
        """The smallest count above 0."""
        return self.around(1)[1]

    def nearest(self, count: int) -> int:
        """The count above 0 that a mask can have and that is nearest; of two the larger."""
        count = max(1, count)
        low, high = self.around(count)
        return high if high - count <= count - low or low < self.least else low


class Pattern(ABC):
    """A constraint on which weights of a layer can be kept.

    Attributes
    ----------
    spelling
        How such patterns are written, for the text of errors.
    takes_channels
        Whether what is not kept are whole output channels; layers that make the outputs of the
        network then stay dense.
    """

    spelling: ClassVar[str]
    takes_channels: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def read(cls, text: str) -> Self | None:
        """The pattern that a text means; None where it means none of this kind."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Canonical, as in files and stores."""

    @abstractmethod
    def on(self, shape: MatrixShape) -> Structure:
        """The pattern on a layer's matrix."""

    def coupled_as(self, names: tuple[str, ...]) -> Pattern:  # noqa: ARG002
        """The pattern for layers that keep the same output channels; as it is where it has none."""
        return self

    @property
    def density(self) -> Fraction | None:
        """Fraction of every layer that the pattern keeps; None where counts are free."""
        return None

    def refusal(self, shape: MatrixShape) -> str:  # noqa: ARG002
        """Why a layer cannot have the pattern; empty where it can."""
        return ""

    def sparsity(self, given: float | None) -> float | None:
        """The sparsity over the layers that have the pattern: what is given, or what follows.

        Raises
        ------
        SparsemendError
            If the pattern has another sparsity than the one given.
        """
        if self.density is None:
            return given
        own = float(1 - self.density)
        # A sparsity such as 0.667 is two thirds.
        if given is None or math.isclose(given, own, abs_tol=5e-4):
            return own
        raise SparsemendError(
            f"pattern {self.name!r} has another sparsity",
            given,
            f"sparsity {own:g}",
            f"leave sparsity out, or choose another pattern for sparsity {given:g}",
        )

    def __str__(self) -> str:
        return self.name
