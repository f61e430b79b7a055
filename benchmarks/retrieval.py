"""Exact search in a bank of descriptors against faiss' exact index, and against an approximate one.

Random unit vectors. The bank is a file that is mapped, as folders use it; queries come in chunks. Peak memory is what
this process takes during our search above what it had.

    pip install faiss-cpu
    python benchmarks/retrieval.py --bank 90000 --queries 5000 --threads 2
"""

import argparse
import statistics
import tempfile
import threading
import time
from pathlib import Path

import faiss  # pyrefly: ignore[missing-import]  (wanted by this benchmark alone)
import numpy as np
import torch

from perception.evaluation.retrieval import strict_ranks, top_k


def resident() -> float:
    """MiB of this process's own pages: those of a mapped file, which the system may drop, do not count."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) / 1024


class Peak:
    """Largest resident memory while it is open, in MiB above its start."""

    def __enter__(self) -> "Peak":
        self.start = self.most = resident()
        self._open = True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._open = False
        self._thread.join()
        self.mib = self.most - self.start

    def _watch(self) -> None:
        while self._open:
            self.most = max(self.most, resident())
            time.sleep(0.01)


def unit_vectors(count: int, size: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, size), np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=int, default=90_000, help="vectors (default: %(default)s)")
    parser.add_argument("--queries", type=int, default=5_000, help="queries (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=768, help="of a vector (default: %(default)s)")
    parser.add_argument("--k", type=int, default=10, help="candidates (default: %(default)s)")
    parser.add_argument("--chunk", type=int, default=500, help="queries at a time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--hnsw", action="store_true", help="also faiss' HNSW (32 links), whose building takes minutes")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)

    queries = unit_vectors(args.queries, args.channels, 1)
    chunks = [slice(start, start + args.chunk) for start in range(0, args.queries, args.chunk)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.f32"
        unit_vectors(args.bank, args.channels, 0).tofile(path)
        bank = np.memmap(path, np.float32, "c").reshape(args.bank, args.channels)
        exact = faiss.IndexFlatIP(args.channels)
        exact.add(np.asarray(bank))

        def ours() -> np.ndarray:
            found = [top_k(torch.from_numpy(queries[chunk]), bank, args.k).candidates for chunk in chunks]
            return torch.cat(found).numpy()

        def theirs() -> np.ndarray:
            return np.concatenate([exact.search(queries[chunk], args.k)[1] for chunk in chunks])

        times: dict[str, list[float]] = {"ours": [], "faiss": []}
        found = {}
        with Peak() as peak:
            found["ours"] = ours()
        for _ in range(args.rounds):
            for name, run in (("ours", ours), ("faiss", theirs)):
                start = time.perf_counter()
                found[name] = run()
                times[name].append(time.perf_counter() - start)
        same = float((found["ours"] == found["faiss"]).mean())
        median = {name: statistics.median(values) for name, values in times.items()}
        print(f"{args.bank} x {args.channels}, {args.queries} queries, {args.k} candidates, {args.threads} threads")
        print(f"ours   {median['ours']:.2f} s, {peak.mib:.0f} MiB above the start")
        print(f"faiss  {median['faiss']:.2f} s (IndexFlatIP, all vectors in memory: {bank.nbytes / 2**20:.0f} MiB)")
        print(f"ratio  {median['ours'] / median['faiss']:.2f}; {100 * same:.3f} % of the candidates are the same")
        wanted = torch.from_numpy(found["faiss"][:, 3].copy())
        start = time.perf_counter()
        ranks = strict_ranks(torch.from_numpy(queries), bank, wanted)[0]
        right = (ranks == 4).float().mean()
        print(f"ranks  {time.perf_counter() - start:.2f} s for all queries; {right:.5f} of them right")
        if args.hnsw:
            index = faiss.IndexHNSWFlat(args.channels, 32, faiss.METRIC_INNER_PRODUCT)
            start = time.perf_counter()
            index.add(np.asarray(bank))
            built = time.perf_counter() - start
            start = time.perf_counter()
            near = np.concatenate([index.search(queries[chunk], args.k)[1] for chunk in chunks])
            searched = time.perf_counter() - start
            recall = np.mean([len(set(a) & set(b)) / args.k for a, b in zip(near, found["faiss"])])
            print(f"HNSW   built in {built:.0f} s, searched in {searched:.2f} s, recall {recall:.3f}")


if __name__ == "__main__":
    main()
