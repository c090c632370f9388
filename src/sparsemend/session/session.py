"""A dense network with its inputs, and whatever is computed once from them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable
from functools import cached_property
from typing import TypeVar

import torch
from torch import nn

from sparsemend.calibration import Calibration, Limits, gather_moments
from sparsemend.errors import SparsemendError
from sparsemend.evaluation import Criterion, Jury, Reference, read_finite
from sparsemend.execution.batches import (
    Batch,
    Batches,
    call,
    check_batched,
    evaluation_mode,
    materialise,
)
from sparsemend.execution.layout import Layout, fastest_layout
from sparsemend.execution.offload import HOME, device_for
from sparsemend.finite import check_network
from sparsemend.layers import LayerFilter, LayerSet, discover
from sparsemend.masks import Needs
from sparsemend.patterns import Pattern
from sparsemend.session.holdout import hold_out

Found = TypeVar("Found")

# Elements of d × d sums in float32: 1 GiB.
_MOST_SUMS = 1 << 28


class Session:
    """The dense network, the inputs that repairs see, and those held out from them.

    Stages pass this to each other and, besides, only their results. What is asked of it is
    computed when it is first asked for, and kept.

    Held in memory: both sets of inputs and, once asked for, the calibration moments and the dense
    network's outputs on the inputs held out.

    Parameters
    ----------
    model
        The dense network; never changed.
    seen
        Unlabelled batches that repairs may see.
    unseen
        Batches that no repair sees, to judge on; without them ``seen`` serves.
    calibration
        Of the same network and inputs, where there is one already.
    criterion
        How outputs are judged; by default as names and shapes suggest.
    chosen
        Which of its layers are pruned, and in which pattern; default all. A calibration has its own
        layers.
    """

    def __init__(
        self,
        model: nn.Module,
        seen: list[Batch],
        unseen: list[Batch] | None = None,
        calibration: Calibration | None = None,
        criterion: Criterion | None = None,
        chosen: LayerFilter | None = None,
    ) -> None:
        self._chosen = chosen or LayerFilter()
        self.model, self.seen = model, seen
        self.criterion = Criterion() if criterion is None else criterion
        self.unseen = seen if unseen is None else unseen
        self._given = calibration
        self._found: dict[Hashable, object] = {}

    @classmethod
    def open(
        cls,
        model: nn.Module,
        batches: Batches,
        heldout: Batches | None = None,
        *,
        calibration: Calibration | None = None,
        criterion: Criterion | None = None,
        chosen: LayerFilter | None = None,
        judging: bool = False,
    ) -> Session:
        """A session on inputs of any form, checked and held in memory.

        Parameters
        ----------
        model
            The dense network.
        batches, heldout
            Inputs to repair with, and to judge on.
        calibration, criterion, chosen
            As of the session.
        judging
            Whether choices will be made on inputs that no repair sees: without ``heldout``, the
            last fifth of the batches is then set aside.

        Raises
        ------
        SparsemendError
            If batches are empty, labelled or not finite.
        """
        seen = materialise(batches)
        unseen = None if heldout is None else materialise(heldout, "heldout")
        if judging and unseen is None:
            seen, unseen = hold_out(seen)
        return cls(model, seen, unseen, calibration, criterion, chosen)

    @property
    def heldout(self) -> bool:
        """Whether there are inputs that no repair sees."""
        return self.unseen is not self.seen

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        parameter = next(self.model.parameters(), None)
        return HOME if parameter is None else device_for(parameter)

    @property
    def pattern(self) -> Pattern:
        """Of the layers."""
        return self._chosen.pattern

    @property
    def calibrated(self) -> bool:
        """Whether the calibration is there already."""
        return self._given is not None or "calibration" in self.__dict__

    @cached_property
    def layers(self) -> LayerSet:
        """The prunable layers in execution order, with the traced graph."""
        chosen = self._chosen
        if self._given is not None:
            return LayerFilter(pattern=chosen.pattern).apply(self._given.layers)
        return discover(
            self.model,
            self.seen[0],
            self.seen[1:],
            include=chosen.include,
            exclude=chosen.exclude,
            pattern=chosen.pattern.name,
        )

    @cached_property
    def calibration(self) -> Calibration:
        """Moments of every layer's inputs, over the inputs that repairs see."""
        return self._given or gather_moments(self.model, self.seen, self.layers)

    def moments_for(self, needs: Needs) -> Calibration | None:
        """What a mask rule looks at of the layers' dense inputs; None where it looks at none.

        Columns alone, where it reads no more and d × d sums of all layers would take over 1 GiB.
        """
        if needs not in ("columns", "moments"):
            return None
        sums = sum(layer.groups * layer.fan_in**2 for layer in self.layers)
        if needs == "moments" or self.calibrated or sums <= _MOST_SUMS:
            return self.calibration
        columns = Limits(densities=(), max_fan_in=0)
        return self.once(
            "columns", lambda: gather_moments(self.model, self.seen, self.layers, columns)
        )

    @cached_property
    def layout(self) -> Layout:
        """How batches are laid out in memory so that the network runs fastest on them."""
        return fastest_layout(self.model, self.seen[0])

    @cached_property
    def jury(self) -> Jury:
        """Who judges which output, from one forward pass of one batch.

        Raises
        ------
        SparsemendError
            If the network's outputs cannot be judged, or hold NaN or +infinity.
        """
        batch = self.seen[0]
        with evaluation_mode(self.model):
            output = call(self.model, batch)
            jury = self.criterion.jury(output, batch)
            read_finite(jury, self.model, output, batch)
        return jury

    def check_outputs(self) -> None:
        """Refuse numbers that are not finite, and outputs that cannot be judged, before any work.

        One forward pass of one batch, and one of a single input: what has no batch dimension is
        refused as well.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.is_meta:
                raise SparsemendError(
                    f"parameter {name!r} has no values (device meta)",
                    fix="build the network on the CPU, and load its weights",
                )
        check_network(self.model)
        _ = self.jury
        check_batched(self.model, self.seen[0])

    def scores_classes(self, features: int) -> bool:
        """Whether outputs of so many features are scores of classes."""
        try:
            return self.jury.scores_classes(features)
        except SparsemendError:  # for repairs that nothing judges
            return False

    @cached_property
    def reference(self) -> Reference:
        """The dense network's outputs on the inputs to judge on."""
        return Reference(self.model, self.unseen, self.jury)

    def once(self, key: Hashable, make: Callable[[], Found]) -> Found:
        """What ``make`` returned when it was first called for this key."""
        if key not in self._found:
            self._found[key] = make()
        found: Found = self._found[key]  # type: ignore[assignment]
        return found

    def judged_by(self, jury: Jury) -> Session:
        """The same, what is known of the network included, with another jury."""
        other = copy.copy(self)
        other.__dict__["jury"] = jury
        other.__dict__.pop("reference", None)
        return other

    def on(
        self, seen: list[Batch], unseen: list[Batch] | None = None, jury: Jury | None = None
    ) -> Session:
        """The same network and layers on other inputs; what is not given stays as it is."""
        judged = self.unseen if unseen is None else unseen
        other = Session(self.model, seen, judged, criterion=self.criterion, chosen=self._chosen)
        other.__dict__["layers"] = self.layers
        if jury is not None or "jury" in self.__dict__:
            other.__dict__["jury"] = jury or self.jury
        if jury is None and "reference" in self.__dict__ and judged is self.unseen:
            other.__dict__["reference"] = self.reference
        return other
