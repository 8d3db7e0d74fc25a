"""Names that are alike, as names are: what a hash table has to spread."""

from __future__ import annotations

import random
from collections.abc import Sequence

COUNT = 4096
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def two(i: int) -> bytes:
    """Two characters, others for each i below COUNT."""
    return bytes([LETTERS[i // 64], LETTERS[i % 64]])


def inside(size: int) -> list[bytes]:
    """Names of that size which differ in the middle."""
    left = (size - 2) // 2
    return [b"x" * left + two(i) + b"y" * (size - 2 - left) for i in range(COUNT)]


# One byte tells 64 names apart; so where names differ in one only, there are 64 lengths.
SHAPES = {
    "room-%03d": [b"room-%03d" % i for i in range(COUNT)],
    "two characters behind abcdef": [b"abcdef" + two(i) for i in range(COUNT)],
    "two characters behind fourteen": [b"abcdefghijklmn" + two(i) for i in range(COUNT)],
    "users/%09d": [b"users/%09d" % i for i in range(COUNT)],
    "/users/%09d": [b"/users/%09d" % i for i in range(COUNT)],
    "users/%09d by the thousand": [b"users/%09d" % (1000 * i) for i in range(COUNT)],
    "blob/%010x": [b"blob/%010x" % i for i in range(COUNT)],
    "/blob/%010x": [b"/blob/%010x" % i for i in range(COUNT)],
    **{f"{size} bytes, the middle": inside(size) for size in (7, 8, 9, 15, 16, 17, 24)},
    **{f"{size} bytes, the end": [b"x" * (size - 2) + two(i) for i in range(COUNT)] for size in (7, 8, 9, 15, 16, 17)},
    "the first byte": [two(i)[1:] + b"a" * (i // 64) for i in range(COUNT)],
    "the last byte": [b"a" * (i // 64) + two(i)[1:] for i in range(COUNT)],
    "the last byte of whole words": [b"a" * (8 * (i // 64) + 7) + two(i)[1:] for i in range(COUNT)],
    "a number": [b"%d" % i for i in range(COUNT)],
}
RANDOM = [random.Random(i).randbytes(12).hex().encode() for i in range(COUNT)]


def comparisons(chains: Sequence[int]) -> float:
    """How many names a table compares on average to find one that it holds, given its chains' lengths."""
    return sum(n * (n + 1) // 2 for n in chains) / sum(chains)
