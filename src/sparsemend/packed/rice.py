"""Rice codes: gaps between kept positions in about as many bits as their entropy.

A gap g is written as g >> k in unary and its k low bits. The unary parts of all gaps come first, so
that both halves are read and written at once instead of bit by bit. Of positions that are kept at
random the gaps are geometric, for which this is within about 3 % of the entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_BITS = 40


@dataclass(frozen=True)
class Coded:
    """Positions as bytes.

    Attributes
    ----------
    low
        Number of low bits, k.
    unary
        Bits of the unary parts.
    content
        Unary parts, then low bits, each filled to whole bytes.
    """

    low: int
    unary: int
    content: bytes


def encode(positions: NDArray[np.int64]) -> Coded:
    """Code increasing positions.

    Examples
    --------
    >>> coded = encode(np.array([3, 4, 9]))
    >>> decode(coded, count=3, size=10)
    array([3, 4, 9])
    """
    gaps = np.diff(positions, prepend=-1) - 1
    # The unary parts get shorter and the low bits longer: the sum has one minimum.
    low = min(range(MOST_BITS), key=lambda k: int((gaps >> k).sum()) + k * len(gaps), default=0)
    ends = np.cumsum((gaps >> low) + 1)
    unary = int(ends[-1]) if len(ends) else 0
    bits = np.zeros(unary, np.uint8)
    bits[ends - 1] = 1
    shifts = np.arange(low - 1, -1, -1)
    lows = (gaps[:, None] >> shifts & 1).astype(np.uint8)
    return Coded(low, unary, np.packbits(bits).tobytes() + np.packbits(lows).tobytes())


def length(low: int, unary: int, count: int) -> int:
    """Bytes of coded positions."""
    return -(-unary // 8) + -(-low * count // 8)


def expected_length(count: int, size: int) -> float:
    """About how many bytes the code takes of positions that are kept at random.

    Examples
    --------
    >>> positions = np.flatnonzero(np.random.default_rng(0).random(100_000) < 0.05)
    >>> round(expected_length(len(positions), 100_000) / len(encode(positions).content), 2)
    1.0
    """
    skipped = 1 - count / size
    # Of a geometric gap: the mean of its unary part, and its low bits.
    tails = (skipped ** float(2**low) for low in range(MOST_BITS))
    bits = min((low + 1 / (1 - tail) for low, tail in enumerate(tails) if tail < 1), default=0.0)
    return count * bits / 8


def decode(coded: Coded, *, count: int, size: int) -> NDArray[np.int64]:
    """Positions, increasing and below ``size``.

    Raises
    ------
    ValueError
        If they are not ``count``, or not below ``size``.
    """
    if length(coded.low, coded.unary, count) != len(coded.content):
        raise ValueError("coded positions have another length")
    content = np.frombuffer(coded.content, np.uint8)
    border = -(-coded.unary // 8)
    ends = np.flatnonzero(np.unpackbits(content[:border], count=coded.unary))
    if len(ends) != count or (count and ends[-1] != coded.unary - 1):
        raise ValueError("coded positions are not as many as claimed")
    bits = np.unpackbits(content[border:], count=coded.low * count).reshape(count, coded.low)
    low = bits.astype(np.int64) @ (1 << np.arange(coded.low - 1, -1, -1, dtype=np.int64))
    high = np.diff(ends, prepend=-1) - 1
    if count and int(high.max()) > size >> coded.low:
        raise ValueError("coded positions lie beyond the end")
    positions = np.cumsum((high << coded.low) + low + 1) - 1
    if count and positions[-1] >= size:
        raise ValueError("coded positions lie beyond the end")
    return positions
