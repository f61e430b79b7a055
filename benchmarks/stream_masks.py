"""Time to code which of 768 x 768 x 128 voxels exist, a whole mask and the change from one frame to the next, and to
code a whole frame of such a grid: masks, and the values of a tenth of its voxels. Processor time: with one thread,
seconds of one core."""

from __future__ import annotations

import argparse
import statistics
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from perception.radiance.bit_coding import decode_bits, encode_bits
from projects.streamrf.coding import decode_delta, encode_delta
from projects.streamrf.delta import FieldState, decode_frame, encode_frame

SIZE = (768, 768, 128)
ROUNDS = 5


def main() -> None:
    """Print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    torch.set_num_threads(parser.parse_args().threads)
    x, y, z = np.ogrid[tuple(slice(side) for side in SIZE)]
    height = (64 + 20 * np.sin(x / 40) + 20 * np.cos(y / 50 + x / 90)).astype(int)
    first = (np.abs(z - height) < 6) | ((x - 300) ** 2 + (y - 300) ** 2 + (3 * (z - 40)) ** 2 < 100**2)
    noise = np.random.default_rng(0)
    second = first.copy()
    second[200:230, 200:260, 50:70] ^= noise.random((30, 60, 20)) < 0.3
    rough = first ^ ((noise.random(SIZE, np.float32) < 0.02) & (np.abs(z - height) < 8))
    for name, mask, reference in (("whole", first, None), ("whole, rough", rough, None), ("change", second, first)):
        encoding, coded = timed(encode_bits, mask, reference, period=SIZE[2])
        decoding, back = timed(decode_bits, coded, reference, count=mask.size)
        if not (back == mask.ravel()).all():
            raise AssertionError("the mask came back as another one")
        deflating, deflated = timed(_deflated, mask)
        print(
            f"{name}: encode {encoding:.3f} s, decode {decoding:.3f} s, {len(coded)} bytes; packing and deflate "
            f"{deflating:.3f} s, {len(deflated)} bytes",
            flush=True,
        )
    whole_frame(np.abs(z - height) < 1)


def whole_frame(surface: np.ndarray) -> None:
    """Time of a frame's difference, whose values are rounded to 1/256."""
    rows, random = int(surface.sum()), torch.Generator().manual_seed(0)
    values = torch.randn(rows, 28, generator=random)
    active, radius = torch.from_numpy(surface), torch.ones(3)
    before = FieldState(active, 20 + values[:, :1], 0.2 * values[:, 1:], radius, radius * 0).stored(True, 2**-8)
    chosen = (torch.arange(rows) % 1000 < 100)[:, None]
    change = 0.1 * torch.randn(rows, 28, generator=random)
    after = FieldState(active, before.density + change[:, :1], before.sh + chosen * change[:, 1:], radius, radius * 0)
    options = dict(keep_threshold=1.0, prune_threshold=0.2, sh_step=2**-8)
    differing, delta = timed(encode_frame, 1, before, after, **options)
    encoding, (counts, blobs) = timed(encode_delta, before, delta)
    parts = {blob.name: blob.data for blob in blobs}
    header = {"frame": 1, "half": True, **counts}
    decoding, back = timed(_decoded, before, header, parts)
    if not torch.equal(back.sh, decode_frame(before, delta).sh):
        raise AssertionError("the frame came back as another one")
    print(
        f"frame of {len(delta.changed_sh)} changed of {rows} voxels: difference {differing:.3f} s, encode "
        f"{encoding:.3f} s, decode {decoding:.3f} s, {sum(map(len, parts.values()))} bytes, raw {delta.raw_bytes}"
    )


def _deflated(mask: np.ndarray) -> bytes:
    return zlib.compress(np.packbits(mask))


def _decoded(before: FieldState, header: dict[str, Any], parts: dict[str, bytes]) -> FieldState:
    return decode_frame(before, decode_delta(before, header, parts))


def timed(work: Callable, *arguments: Any, **options: Any) -> tuple[float, Any]:
    """Median processor time of some rounds, and the last result."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        result = work(*arguments, **options)
        times.append(time.process_time() - start)
    return statistics.median(times), result


if __name__ == "__main__":
    main()
