"""Measures our attention against `jax.nn.dot_product_attention`.

    python benchmarks/attention.py

Forward, and forward with the gradients of queries, keys and values, in milliseconds: least, middle
and most of the repeats, the two forms taking turns. Compilation is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from importlib import metadata

import jax

from avt_jax.models.kernels.attention import dot_product_attention

# (batch, tokens, heads, head width): tiny AST with bottleneck, UniFormer stages 3 and 4, AST-Base.
CASES = ((32, 202, 4, 16), (1, 1568, 5, 64), (1, 392, 8, 64), (1, 1214, 12, 64))
FORMS = {"ours": dot_product_attention, "jax.nn": jax.nn.dot_product_attention}


def compiled(form, arrays: list[jax.Array], both: bool):
    """The form on three arrays, or with the gradients of all three."""

    def forward_backward(query, key, value):
        out, back = jax.vjp(form, query, key, value)
        return out, back(out)

    return jax.jit(forward_backward if both else form).lower(*arrays).compile()


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores, Python "
        f"{platform.python_version()}, {versions}; {args.dtype}; ms; {args.repeats} repeats\n\n"
        "| (b, n, h, d) | pass | ours: min | median | max | jax.nn: min | median | max | ratio |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    for shape in CASES:
        keys = jax.random.split(jax.random.key(0), 3)
        arrays = [jax.random.normal(key, shape, args.dtype) for key in keys]
        for name, both in (("forward", False), ("forward + backward", True)):
            run = {label: compiled(form, arrays, both) for label, form in FORMS.items()}
            times_ms = {label: [] for label in FORMS}
            for _ in range(args.repeats + 1):
                for label in FORMS:
                    start_sec = time.perf_counter()
                    jax.block_until_ready(run[label](*arrays))
                    times_ms[label].append((time.perf_counter() - start_sec) * 1e3)
            kept = [values[1:] for values in times_ms.values()]  # the first call warms up
            cells = [f"{f(v):.1f}" for v in kept for f in (min, statistics.median, max)]
            ratio = statistics.median(kept[1]) / statistics.median(kept[0])
            print(f"| {shape} | {name} | {' | '.join(cells)} | {ratio:.1f} x |", flush=True)


if __name__ == "__main__":
    main()
