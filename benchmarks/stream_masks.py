"""Time to code which of 768 x 768 x 128 voxels exist: a whole mask, and the change from one frame to the next."""

from __future__ import annotations

import statistics
import time
import zlib

import numpy as np

from perception.radiance.bit_coding import decode_bits, encode_bits

SIZE = (768, 768, 128)
ROUNDS = 3


def main() -> None:
    x, y, z = np.ogrid[tuple(slice(side) for side in SIZE)]
    height = (64 + 20 * np.sin(x / 40) + 20 * np.cos(y / 50 + x / 90)).astype(int)
    first = (np.abs(z - height) < 6) | ((x - 300) ** 2 + (y - 300) ** 2 + (3 * (z - 40)) ** 2 < 100**2)
    second = first.copy()
    second[200:230, 200:260, 50:70] ^= np.random.default_rng(0).random((30, 60, 20)) < 0.3
    for name, mask, reference in (("whole", first, None), ("change", second, first)):
        encoding, decoding = [], []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            coded = encode_bits(mask, reference, period=SIZE[2])
            between = time.perf_counter()
            back = decode_bits(coded, reference, count=mask.size)
            encoding.append(between - start)
            decoding.append(time.perf_counter() - between)
            if not (back == mask.ravel()).all():
                raise AssertionError("the mask came back as another one")
        start = time.perf_counter()
        deflated = len(zlib.compress(np.packbits(mask).tobytes()))
        took = time.perf_counter() - start
        print(
            f"{name}: encode {statistics.median(encoding):.3f} s, decode {statistics.median(decoding):.3f} s, "
            f"{len(coded)} bytes; deflate {took:.3f} s, {deflated} bytes"
        )


if __name__ == "__main__":
    main()
