"""Exact cosine search: milliseconds a query after loading, beside float64 brute force.

    python benchmarks/search.py --vectors 100000 --dim 256

draws random vectors, loads them, and searches by turns with `Searcher` and with NumPy in float64
(all cosines, then the best); the median and the spread of the times, their ratio, and whether both
found the same rows.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import numpy as np

from avt_jax.inference.embeddings.search import Searcher


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--vectors", type=int, default=100_000)
    cli.add_argument("--dim", type=int, default=256)
    cli.add_argument("--queries", type=int, nargs="+", default=[1, 8, 64])
    cli.add_argument("--top", type=int, default=10)
    cli.add_argument("--repeats", type=int, default=9)
    args = cli.parse_args()
    rng = np.random.default_rng(0)
    vector_nd = rng.normal(size=(args.vectors, args.dim)).astype(np.float32)
    begun = time.perf_counter()
    searcher = Searcher(vector_nd)
    print(
        f"{args.vectors} vectors of {args.dim} on {jax.devices()[0].device_kind}: loaded in "
        f"{time.perf_counter() - begun:.2f} s"
    )
    exact_nd = vector_nd.astype(np.float64)
    exact_nd /= np.linalg.norm(exact_nd, axis=1, keepdims=True)
    for count in args.queries:
        query_qd = rng.normal(size=(count, args.dim)).astype(np.float32)

        def ours(query_qd: np.ndarray = query_qd) -> np.ndarray:
            return searcher.search(query_qd, args.top)[0]

        def brute_force(query_qd: np.ndarray = query_qd) -> np.ndarray:
            unit_qd = query_qd / np.linalg.norm(query_qd.astype(np.float64), axis=1, keepdims=True)
            cosine_qn = unit_qd @ exact_nd.T
            some_qk = np.argpartition(-cosine_qn, args.top, axis=1)[:, : args.top]
            best_qk = np.take_along_axis(cosine_qn, some_qk, 1)
            return np.take_along_axis(some_qk, np.argsort(-best_qk, axis=1), 1)

        same = np.array_equal(ours(), brute_force())  # compiles, too
        times: dict[Callable[[], np.ndarray], list[float]] = {ours: [], brute_force: []}
        for _ in range(args.repeats):
            for search, found in times.items():
                begun = time.perf_counter()
                search()
                found.append(1e3 * (time.perf_counter() - begun))
        one, other = (np.array(found) for found in times.values())
        print(
            f"{count:3d} queries: {np.median(one):7.1f} ms ({one.min():.1f} to {one.max():.1f}), "
            f"float64 {np.median(other):7.1f} ms ({other.min():.1f} to {other.max():.1f}), "
            f"{np.median(other) / np.median(one):.1f} times as fast, same rows: {same}"
        )


if __name__ == "__main__":
    main()
