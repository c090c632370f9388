"""Masks of layers that keep the same output channels: chosen for all of them together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sparsemend.masks.rule import MaskProblem, MaskRule
from sparsemend.solvers.ranking import descending_rank


def coupled_masks(
    rule: MaskRule, problems: Mapping[str, MaskProblem], counts: Mapping[str, int]
) -> dict[str, Tensor]:
    """Masks that keep the channels with the largest sums of scores.

    A layer's score of a channel is the sum of the squares of its scores there, as a share of that
    sum over all channels: in front of a BatchNorm the scale of a layer's weights means nothing.

    Parameters
    ----------
    rule
        With scores.
    problems
        Layer name → what the rule looks at, of layers that keep the same channels.
    counts
        Layer name → number of weights to keep. Layers that keep as many channels keep the same;
        one that keeps fewer, the best of these; one that keeps none has no say.

    Returns
    -------
    dict of str to Tensor
        Layer name → boolean mask [groups, rows, d].
    """
    shares = [_shares(rule, problem) for name, problem in problems.items() if counts[name]]
    if not shares:
        return {name: torch.zeros_like(p.weight, dtype=torch.bool) for name, p in problems.items()}
    total = sum(shares[1:], start=shares[0])
    rank = descending_rank(total)
    masks = {}
    for name, problem in problems.items():
        kept = (rank < counts[name] // problem.structure.least).to(problem.weight.device)
        groups, rows, _ = problem.weight.shape
        masks[name] = kept.reshape(groups, rows, 1).expand(problem.weight.shape).clone()
    return masks


def _shares(rule: MaskRule, problem: MaskProblem) -> Tensor:
    """Of every output channel, [C], in float64 on the CPU."""
    scores = rule.scores(problem)
    wide = scores if scores.device.type == "mps" else scores.double()
    squares = wide.square().sum(dim=2).flatten().cpu().double()
    total = squares.sum()
    return squares / total if total > 0 else squares
