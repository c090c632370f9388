"""Recurrent networks written out as linear layers, one step after the other.

PyTorch computes a recurrent layer in one operation, in which neither the inputs of its weights nor
their outputs can be seen. Written out, every weight is the weight of a linear layer: that of the
inputs runs once on the whole sequence, that of the hidden state once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = tuple[Tensor, ...]
# (gates of the input, of the hidden state, state) → new state, its first part being the output.
Step = Callable[[Tensor, Tensor, State], State]


def lstm_step(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """One step of a long short-term memory; gates are input, forget, cell, output."""
    i, f, g, o = (inputs + hidden).chunk(4, dim=-1)
    cell = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def gru_step(inputs: Tensor, hidden: Tensor, state: State) -> State:
    """One step of a gated recurrent unit; gates are reset, update, new."""
    xr, xz, xn = inputs.chunk(3, dim=-1)
    hr, hz, hn = hidden.chunk(3, dim=-1)
    update = (xz + hz).sigmoid()
    new = (xn + (xr + hr).sigmoid() * hn).tanh()
    return ((1 - update) * new + update * state[0],)


def tanh_step(inputs: Tensor, hidden: Tensor, state: State) -> State:  # noqa: ARG001
    """One step of an Elman network."""
    return ((inputs + hidden).tanh(),)


def relu_step(inputs: Tensor, hidden: Tensor, state: State) -> State:  # noqa: ARG001
    """The same with ReLUs."""
    return ((inputs + hidden).relu(),)


def written_out(step: Step, states: int) -> Callable[..., Any]:
    """What stands for ``torch.lstm`` and its like, with their arguments.

    Parameters
    ----------
    step
        What happens at one step.
    states
        Number of tensors of the state.
    """

    def run(*args: Any) -> Any:
        if isinstance(args[3], Sequence):  # (data, batch_sizes, hx, params, …) of a packed sequence
            return _packed(step, states, *args)
        x, hx, parameters, biased, layers, _, _, both_ways, batch_first = args
        start = hx if isinstance(hx, tuple | list) else (hx,)
        single = x.dim() == 2
        x = x.unsqueeze(1) if single else x.transpose(0, 1) if batch_first else x
        start = [part.unsqueeze(1) if part.dim() == 2 else part for part in start]
        sizes = [x.shape[1]] * len(x)
        weights = _grouped(parameters, biased, projected=_are_projected(start))
        output, ends = _stack(step, list(x), sizes, start, weights, layers, both_ways)
        whole = torch.stack(output)
        whole = whole.squeeze(1) if single else whole.transpose(0, 1) if batch_first else whole
        return (whole, *(part.squeeze(1) if single else part for part in ends))

    return run


def cell(step: Step) -> Callable[..., Any]:
    """What stands for ``torch.lstm_cell`` and its like."""

    def run(x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, *biases: Any, **named: Any) -> Any:
        given = [*biases, named.get("b_ih"), named.get("b_hh")]
        b_ih, b_hh = [*given, None, None][:2]
        state = tuple(hx) if isinstance(hx, tuple | list) else (hx,)
        new = step(F.linear(x, w_ih, b_ih), F.linear(state[0], w_hh, b_hh), state)
        return new if len(new) > 1 else new[0]

    return run


def _packed(step: Step, states: int, data: Tensor, batch_sizes: Tensor, *rest: Any) -> Any:
    hx, parameters, biased, layers, _, _, both_ways = rest
    start = list(hx) if states > 1 else [hx if isinstance(hx, Tensor) else hx[0]]
    sizes = batch_sizes.tolist()
    weights = _grouped(parameters, biased, projected=_are_projected(start))
    steps = list(data.split(sizes))
    output, ends = _stack(step, steps, sizes, start, weights, layers, both_ways)
    return (torch.cat(output), *ends)


def _are_projected(start: Sequence[Tensor]) -> bool:
    """Whether outputs are projections of what the cells hold."""
    return len({part.shape[-1] for part in start}) > 1


def _grouped(
    parameters: Sequence[Tensor], biased: bool, *, projected: bool
) -> list[Sequence[Tensor | None]]:
    """Input and hidden weights, their biases, and the projection of every layer and direction."""
    size = (4 if biased else 2) + projected
    groups = [parameters[i : i + size] for i in range(0, len(parameters), size)]
    without = () if biased else (None, None)
    return [(*group[:2], *without, *group[2:], None)[:5] for group in groups]


def _stack(
    step: Step,
    x: list[Tensor],
    sizes: list[int],
    start: Sequence[Tensor],
    weights: Sequence[Sequence[Tensor | None]],
    layers: int,
    both_ways: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """All layers and directions; outputs of every step, and the last states."""
    directions = 2 if both_ways else 1
    ends: list[State] = []
    for layer in range(layers):
        found = []
        for direction in range(directions):
            place = layer * directions + direction
            state = tuple(part[place] for part in start)
            outputs, end = _run(step, x, sizes, state, weights[place], backwards=direction == 1)
            found.append(outputs)
            ends.append(end)
        x = [torch.cat(parts, dim=-1) for parts in zip(*found, strict=True)]
    return x, [torch.stack(parts) for parts in zip(*ends, strict=True)]


def _run(
    step: Step,
    x: list[Tensor],
    sizes: list[int],
    state: State,
    weights: Sequence[Tensor | None],
    *,
    backwards: bool,
) -> tuple[list[Tensor], State]:
    """One layer in one direction; sequences of a batch may end at different steps."""
    w_ih, w_hh, b_ih, b_hh, projection = weights
    assert w_ih is not None, "every layer has weights"
    assert w_hh is not None, "every layer has weights"
    gates = F.linear(torch.cat(x), w_ih, b_ih).split(sizes)
    order = list(range(len(x)))
    outputs: list[Tensor] = [x[0]] * len(x)
    for t in reversed(order) if backwards else order:
        active = tuple(part[: sizes[t]] for part in state)
        new = step(gates[t], F.linear(active[0], w_hh, b_hh), active)
        if projection is not None:
            new = (F.linear(new[0], projection), *new[1:])
        outputs[t] = new[0]
        state = tuple(
            torch.cat([part, before[sizes[t] :]]) for part, before in zip(new, state, strict=True)
        )
    return outputs, state
