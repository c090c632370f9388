"""Random pieces of a long tokenised text: how language models are calibrated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sparsemend.boundary import public
from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError


@public
def token_crops(
    ids: Tensor | Sequence[int], seqlen: int, nsamples: int, *, seed: int = 0
) -> Tensor:
    """Draw pieces of one long text, each of the same number of tokens, without padding.

    What pruning of language models calibrates with: ``nsamples`` pieces of ``seqlen`` tokens that
    begin anywhere, and may overlap.

    Parameters
    ----------
    ids
        Token numbers of the text, [T] or [1, T], such as ``tokenizer(text)["input_ids"]``.
    seqlen
        Tokens of each piece, at most T.
    nsamples
        Number of pieces.
    seed
        Of the places where they begin.

    Returns
    -------
    Tensor
        Token numbers [nsamples, seqlen]: a batch, or several with ``.split(8)``.

    Raises
    ------
    SparsemendError
        If the text is no sequence of integers, or shorter than a piece.

    Examples
    --------
    >>> token_crops(range(100), 3, 2, seed=0).shape
    torch.Size([2, 3])
    """
    text = _as_text(ids)
    seqlen, nsamples = check_int("seqlen", seqlen), check_int("nsamples", nsamples)
    if len(text) < seqlen:
        raise SparsemendError(
            "the text is shorter than a piece of it",
            f"{len(text)} tokens",
            f"at least seqlen={seqlen}",
            "join several texts, or take a smaller seqlen",
        )
    generator = torch.Generator().manual_seed(check_int("seed", seed, minimum=0))
    starts = torch.randint(len(text) - seqlen + 1, (nsamples,), generator=generator)
    return text[starts[:, None] + torch.arange(seqlen)]


def _as_text(ids: Any) -> Tensor:
    try:
        text = torch.as_tensor(ids if isinstance(ids, Tensor) else list(ids)).cpu()
    except (TypeError, ValueError, RuntimeError, OverflowError):
        text = torch.empty(0)
    text = text[0] if text.dim() == 2 and len(text) == 1 else text
    if text.dim() != 1 or text.is_floating_point() or text.is_complex() or text.dtype == torch.bool:
        raise SparsemendError(
            "ids are no token numbers of one text",
            f"{text.dtype} {list(text.shape)}" if isinstance(ids, Tensor) else type(ids).__name__,
            "integers [T]",
        )
    return text.long()
