"""Perplexity of language models: how well every token is predicted from those before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsemend.boundary import public
from sparsemend.errors import SparsemendError
from sparsemend.evaluation.scores import class_scores
from sparsemend.execution.batches import (
    Batch,
    Batches,
    arguments,
    batch_count,
    call,
    evaluation_mode,
    iterate,
    no_batches,
    padding_of,
    plain,
)
from sparsemend.execution.offload import offloading
from sparsemend.execution.rows import as_batches
from sparsemend.finite import check_outputs
from sparsemend.progress import progress_bar, progress_shown

_IDS = "input_ids"


@dataclass(frozen=True)
class Perplexity:
    """Perplexity of a language model; ``float()`` of it is the perplexity, exp(loss).

    Attributes
    ----------
    loss
        Mean negative log-likelihood of a token given those before it, in nats.
    count
        Number of tokens that were predicted.
    """

    loss: float
    count: int

    def __float__(self) -> float:
        return math.exp(self.loss) if self.loss < 700 else math.inf  # beyond it exp overflows

    def __str__(self) -> str:
        return f"perplexity {float(self):.2f} on {self.count:,} tokens"


@public
def perplexity(
    model: nn.Module,
    batches: Batches,
    *,
    output: str | int | None = None,
    offload: str | torch.device | None = None,
    progress: bool | None = None,
) -> Perplexity:
    """Measure how well a causal language model predicts texts.

    The labels are the tokens themselves: position t of the output is judged by token t + 1. Every
    sequence stands alone, so that its first token is not predicted.

    Parameters
    ----------
    model
        A network with logits [N, T, V], such as an ``AutoModelForCausalLM`` of transformers;
        unchanged, run in evaluation mode.
    batches
        Token numbers [N, T] as integer tensors, as the first of several arguments, or as
        ``input_ids`` of a mapping. Where ``attention_mask`` is 0 there is padding, which is neither
        predicted nor predicted from. One tensor is cut into batches of 128.
    output
        Which part of the output the logits are, as a key, an attribute, a place or a dotted path
        of these; by default what is called logits, else the first.
    offload
        Compute on this device, as in :func:`sparsemend.compress`.
    progress
        Show a progress bar; default on a terminal.

    Returns
    -------
    Perplexity
        Over all tokens of all batches together, each counting the same.

    Raises
    ------
    SparsemendError
        If there are no batches, a batch has no token numbers or some that the network does not
        score, none has two tokens in a row, or outputs are no logits, NaN or +infinity.

    Examples
    --------
    A table of logits that always gives the next token half of the probability:

    >>> import math, torch
    >>> even = torch.nn.Embedding.from_pretrained(torch.zeros(2, 2))
    >>> print(perplexity(even, torch.tensor([[0, 1, 1, 0]])))
    perplexity 2.00 on 3 tokens
    """
    batches = as_batches(model, batches)
    total, count, index = 0.0, 0, -1
    with (
        progress_shown(progress),
        offloading(offload, model),
        evaluation_mode(model),
        progress_bar("perplexity", batch_count(batches)) as advance,
    ):
        for index, batch in enumerate(iterate(batches)):
            ids = _token_ids(batch, f"batches[{index}]")
            scores = class_scores(call(model, batch), output)
            loss, predicted = _score(model, batch, scores, ids)
            total, count = total + loss, count + predicted
            advance()
    if index < 0:
        raise no_batches("batches")
    if not count:
        raise SparsemendError(
            "no token can be predicted", allowed="sequences of two tokens or more"
        )
    return Perplexity(total / count, count)


def _token_ids(batch: Batch, where: str) -> Tensor:
    """The token numbers of a batch, [N, T]."""
    positional, named = arguments(plain(batch))
    ids: Any = named.get(_IDS, positional[0] if positional else None)
    if isinstance(ids, Tensor) and ids.dim() == 2 and not ids.is_floating_point():
        return ids
    given = f"{ids.dtype} {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
    if ids is None and named:
        given = f"keys {', '.join(map(str, named))}"
    raise SparsemendError(
        f"{where} holds no token numbers, but {given}",
        allowed=f"an integer tensor [N, T], alone or as {_IDS!r}",
    )


def _score(model: nn.Module, batch: Batch, scores: Tensor, ids: Tensor) -> tuple[float, int]:
    """Negative log-likelihood of all tokens that are predicted, in nats, and their number."""
    if scores.dim() != 3 or scores.shape[:2] != ids.shape:
        raise SparsemendError(
            "the network's output is no logits of a language model",
            list(scores.shape),
            f"[N, T, V] for token numbers of shape {list(ids.shape)}",
        )
    if ids.numel() and not 0 <= int(ids.min()) <= int(ids.max()) < scores.shape[2]:
        raise SparsemendError(
            "there are token numbers that the network does not score",
            int(ids.max()) if int(ids.min()) >= 0 else int(ids.min()),
            f"0 to {scores.shape[2] - 1}",
            "use the network's own tokenizer",
        )
    data = padding_of(batch if isinstance(batch, Mapping) else arguments(batch)[1])
    before, following = scores[:, :-1], ids[:, 1:].to(scores.device)
    if data is not None:
        both = (data[:, :-1] & data[:, 1:]).to(scores.device)
        before, following = before[both], following[both]
    before, following = before.flatten(0, -2).float(), following.flatten()
    check_outputs(model, before, partial(call, model, batch))
    if not len(following):
        return 0.0, 0
    losses = F.cross_entropy(before, following, reduction="none")
    return float(losses.double().sum()), len(following)
