"""Measures our depthwise 3-D convolution against XLA's grouped convolution.

    python benchmarks/depthwise_conv.py
    python benchmarks/depthwise_conv.py --skip-naive

Forward, and forward with both gradients, in milliseconds: least, middle and most of the repeats.
Programs are compiled before they are timed. The grouped form takes seconds to minutes per call on a
CPU and runs `--naive-repeats` times, without a call to warm up; ours gets one.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib import metadata

import jax
from jax import lax

from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d

# (frames, height, width, channels) and kernel size: UniFormer's stages 1, 1, 2 and 3.
CASES = (
    ((8, 56, 56, 64), 3),
    ((8, 56, 56, 64), 5),
    ((8, 28, 28, 128), 5),
    ((8, 14, 14, 320), 3),
)
HEADER = (
    "| shape, kernel | pass | ours: min | median | max | grouped: min | median | max | ratio |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Prints the table."""
    args = parse_args()
    print_machine(args)
    print(HEADER, flush=True)
    for shape, size in CASES:
        arrays = draw((args.batch, *shape), size, args.dtype)
        for name, both in (("forward", False), ("forward + backward", True)):
            ours = measure(depthwise_conv3d, arrays, both, repeats=args.repeats, warm=True)
            naive = []
            if not args.skip_naive:
                naive = measure(grouped, arrays, both, repeats=args.naive_repeats, warm=False)
            print(row(shape, size, name, ours, naive), flush=True)


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=10, help="calls of our form")
    parser.add_argument("--naive-repeats", type=int, default=1, help="calls of the grouped form")
    parser.add_argument("--skip-naive", action="store_true", help="measure our form only")
    args = parser.parse_args()
    if min(args.batch, args.repeats, args.naive_repeats) < 1:
        parser.error("--batch, --repeats and --naive-repeats must be at least 1")
    return args


def print_machine(args: argparse.Namespace) -> None:
    """Prints what the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
    print(
        f"{jax.devices()[0].device_kind}, {cores} CPU cores, Python {platform.python_version()}, "
        f"{versions}; batch {args.batch}, {args.dtype}; ms; {args.repeats} calls of ours, "
        f"{0 if args.skip_naive else args.naive_repeats} of the grouped form\n"
    )


def draw(shape: tuple[int, ...], size: int, dtype: str) -> list[jax.Array]:
    """Input, kernel and gradient of the output."""
    shapes = (shape, (size, size, size, shape[-1]), shape)
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, s, dtype) for key, s in zip(keys, shapes, strict=True)]


def grouped(x_bthwc: jax.Array, kernel_xyzc: jax.Array) -> jax.Array:
    """The same convolution as XLA's grouped one."""
    return lax.conv_general_dilated(
        x_bthwc,
        kernel_xyzc[:, :, :, None],
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=x_bthwc.shape[-1],
    )


def measure(
    conv: Callable, arrays: list[jax.Array], both: bool, *, repeats: int, warm: bool
) -> list[float]:
    """Milliseconds of every call, the compilation not counted."""

    def forward(x, kernel, grad):
        del grad
        return conv(x, kernel)

    def forward_backward(x, kernel, grad):
        out, back = jax.vjp(conv, x, kernel)
        return out, back(grad)

    run = jax.jit(forward_backward if both else forward).lower(*arrays).compile()
    if warm:
        jax.block_until_ready(run(*arrays))
    times_ms = []
    for _ in range(repeats):
        start_sec = time.perf_counter()
        jax.block_until_ready(run(*arrays))
        times_ms.append((time.perf_counter() - start_sec) * 1e3)
    return times_ms


def row(shape: tuple[int, ...], size: int, name: str, ours: list[float], naive: list[float]) -> str:
    """One line of the table; the ratio is between the medians."""
    cells = [f"{shape} {size}x{size}x{size}", name]
    for times_ms in (ours, naive):
        if times_ms:
            spread = min(times_ms), statistics.median(times_ms), max(times_ms)
            cells += [f"{value:.1f}" for value in spread]
        else:
            cells += ["-"] * 3
    cells.append(f"{statistics.median(naive) / statistics.median(ours):.0f} x" if naive else "-")
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
