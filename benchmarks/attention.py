"""Measures our attention and its forms against `jax.nn.dot_product_attention`.

    python benchmarks/attention.py
    python benchmarks/attention.py --forms plain,heads

Forward, and forward with the gradients of queries, keys and values, in milliseconds: least, middle
and most of the repeats, the forms taking turns. "ours" is what the rules choose; the ratio is the
median over that of "ours". Compilation is not counted.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from importlib import metadata

import jax

from avt_jax.models.kernels import attention, choice

# (batch, tokens, heads, head width): tiny AST with bottleneck, UniFormer stages 3 and 4, AST-Base.
CASES = ((32, 202, 4, 16), (1, 1568, 5, 64), (1, 392, 8, 64), (1, 1214, 12, 64))


def named(name: str):
    """Our attention in one form, whatever the rules say."""

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        chosen = tuple((platform, name) for platform in choice.PLATFORMS)
        return attention.attend(query, key, value, chosen)

    return attend


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
    parser.add_argument(
        "--forms",
        type=lambda text: text.split(","),
        default=[],
        help=f"beside ours and jax.nn some of {','.join(attention.FORMS)}",
    )
    args = parser.parse_args()
    for name in args.forms:
        if name not in attention.FORMS:
            parser.error(f"--forms {name!r} is not one of {', '.join(attention.FORMS)}")
    forms = {"ours": attention.dot_product_attention, "jax.nn": jax.nn.dot_product_attention}
    forms |= {name: named(name) for name in args.forms}
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores, load average "
        f"{os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}, {versions}; "
        f"{args.dtype}; ms; {args.repeats} repeats\n\n"
        "| (b, n, h, d) | pass | form | min | median | max | / ours |\n"
        "|---|---|---|---|---|---|---|"
    )
    for shape in CASES:
        keys = jax.random.split(jax.random.key(0), 3)
        arrays = [jax.random.normal(key, shape, args.dtype) for key in keys]
        for name, both in (("forward", False), ("forward + backward", True)):
            run = {label: compiled(form, arrays, both) for label, form in forms.items()}
            times_ms = {label: [] for label in forms}
            for _ in range(args.repeats + 1):
                for label in forms:
                    start_sec = time.perf_counter()
                    jax.block_until_ready(run[label](*arrays))
                    times_ms[label].append((time.perf_counter() - start_sec) * 1e3)
            ours = statistics.median(times_ms["ours"][1:])
            for label, values in times_ms.items():
                kept = values[1:]  # the first call warms up
                cells = [f"{of(kept):.1f}" for of in (min, statistics.median, max)]
                ratio = statistics.median(kept) / ours
                print(
                    f"| {shape} | {name} | {label} | {' | '.join(cells)} | {ratio:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
