"""The k largest scores over all layers, counted per layer: exact, and in bounded memory.

Sorting all scores of a large network takes several times its memory, and quantile routines
stop at 2^24 elements. The bits of a non-negative float, read as an integer, are in the same
order as the float. So histograms of the leading bits narrow the threshold down to a bin that
is small enough to sort; only one layer's scores need to exist at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

DIGIT_BITS = 16
SORT_LIMIT = 2**22
CHUNK = 2**22


def threshold_counts(
    scores: Callable[[int], Tensor], sizes: Sequence[int], keep: int
) -> tuple[int, ...]:
    """How many of the ``keep`` largest scores lie in each layer, at least one per layer.

    Scores equal to the threshold go to the earlier layer. The best score of every layer is
    kept whatever its value; where one threshold alone would have emptied a layer, the
    threshold for the others rises accordingly.

    Parameters
    ----------
    scores
        Gives the scores of a layer by its index: a flat, non-empty tensor of finite
        non-negative float32 or float64 (the same for all layers), which may be overwritten.
        Called several times per layer.
    sizes
        Number of scores of each layer.
    keep
        Number of scores to keep, from the number of layers to Σ sizes.

    Returns
    -------
    Kept count of each layer.
    """

    def keys(i: int) -> Tensor:
        values = scores(i)
        keys = values.view(torch.int32 if values.dtype == torch.float32 else torch.int64)
        # Above every finite score: the layer's best one is always kept.
        keys[values.argmax()] = torch.iinfo(keys.dtype).max
        return keys

    threshold = _kth_largest(keys, sizes, keep)
    above, ties = [], []
    for i in range(len(sizes)):
        layer_keys = keys(i)
        above.append((layer_keys > threshold).sum())
        ties.append((layer_keys == threshold).sum())
    # Read when all are on their way: an accelerator is not waited for layer by layer.
    kept = [int(count) for count in above]
    left = keep - sum(kept)
    counts = []
    for more, equal in zip(kept, map(int, ties), strict=True):
        tied = min(left, equal)
        counts.append(more + tied)
        left -= tied
    return tuple(counts)


def _kth_largest(keys: Callable[[int], Tensor], sizes: Sequence[int], k: int) -> int:
    """The k-th largest key: fix leading bits by histograms, sort what shares them."""
    smallest = min(range(len(sizes)), key=lambda i: sizes[i])
    shift = torch.iinfo(keys(smallest).dtype).bits - 1  # without the sign bit
    candidates = sum(sizes)
    prefix = 0
    # Invariant: the key sought has the leading bits `prefix` above `shift`, and it is the
    # k-th largest of the `candidates` keys that share them.
    while candidates > SORT_LIMIT and shift > 0:
        digit_bits = min(DIGIT_BITS, shift)
        histogram: Tensor | None = None
        for chunk in _matching(keys, len(sizes), prefix, shift):
            digits = (chunk >> (shift - digit_bits)) & (2**digit_bits - 1)
            found = torch.bincount(digits, minlength=2**digit_bits)
            histogram = found if histogram is None else histogram + found.to(histogram.device)
        assert histogram is not None, "there is at least one layer"
        histogram = histogram.cpu()
        from_top = histogram.flip(0).cumsum(0)
        position = int(torch.searchsorted(from_top, k))
        digit = 2**digit_bits - 1 - position
        candidates = int(histogram[digit])
        k -= int(from_top[position]) - candidates
        prefix = prefix << digit_bits | digit
        shift -= digit_bits
    if shift == 0:
        return prefix
    parts = list(_matching(keys, len(sizes), prefix, shift))
    tail = torch.cat([part.to(parts[0].device) for part in parts])
    return int(tail.sort(descending=True).values[k - 1])


def _matching(
    keys: Callable[[int], Tensor], layers: int, prefix: int, shift: int
) -> Iterator[Tensor]:
    """Keys whose bits above ``shift`` are ``prefix``, in pieces of bounded size."""
    for i in range(layers):
        layer_keys = keys(i)
        for start in range(0, len(layer_keys), CHUNK):
            chunk = layer_keys[start : start + CHUNK]
            yield chunk[(chunk >> shift) == prefix]
