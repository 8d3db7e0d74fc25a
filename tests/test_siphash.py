"""SipHash-1-3 against CPython, which hashes bytes by it, and against vectors that others have published."""

import random
import subprocess
import sys

import pytest

from c1m._probe_siphash import hashed, random_key

KEY = bytes(range(16))

# Of the 64 vectors that Rust has: the hash of the bytes 0, 1, ... n - 1, as 8 bytes in little-endian order.
VECTORS = {
    0: "dcc40f055801acab", 1: "93ca577df39bf4c9", 7: "4011b19b987d92d3", 8: "8e9a298d11959036", 9: "e43d066cb38ea425",
    15: "5699512a6dd820d3", 16: "668b907d1add4fcc", 31: "bcd1218c1fdd7023", 32: "0db6a7166c7b1581",
    63: "a8b3bbb76290199d",
}


@pytest.mark.parametrize(("size", "expected"), VECTORS.items())
def test_published_vector(size, expected):
    assert hashed(bytes(range(size)), KEY).to_bytes(8, "little").hex() == expected


def python_key(seed):
    """The key that CPython makes of PYTHONHASHSEED: zeros, or the first bytes of a linear congruential generator."""
    key = bytearray()
    state = seed
    for _ in range(16):
        state = (state * 214013 + 2531011) & 0xFFFFFFFF
        key.append(state >> 16 & 0xFF if seed else 0)
    return bytes(key)


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python hashes otherwise")
@pytest.mark.parametrize("seed", [0, 1, 2, 4294967295])
def test_it_is_the_hash_of_python(seed):
    generator = random.Random(seed)
    names = [generator.randbytes(n) for n in range(1, 200)]
    program = "import ast, sys; print([hash(each) for each in ast.literal_eval(sys.stdin.read())])"
    done = subprocess.run(
        [sys.executable, "-c", program], input=repr(names), env={"PYTHONHASHSEED": str(seed)},
        capture_output=True, text=True, check=True, timeout=60,
    )
    expected = [int(each) % 2**64 for each in done.stdout.strip("[]\n").split(",")]
    assert [hashed(name, python_key(seed)) for name in names] == expected


def test_a_key_is_random():
    assert len({random_key() for _ in range(100)}) == 100
