"""Measures the forms of the depthwise 3-D convolution, each pass by itself.

    python benchmarks/depthwise_conv.py
    python benchmarks/depthwise_conv.py --forms grouped,rows --dtype bfloat16 --batch 8

Milliseconds: least, middle and most of the repeats, the forms taking turns; the last column is the
median over that of the form that the rules choose for this device, marked *. The gradient of the
input is the forward pass with the kernel mirrored. Compilation is not counted. Without `--forms`
those run that are worth trying on the platform: on a CPU XLA's grouped form takes seconds a call.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata

import jax

from avt_jax.models.kernels import choice
from avt_jax.models.kernels.depthwise_conv import PASSES
from avt_jax.models.kernels.forms import REGISTRIES, candidates

# (frames, height, width, channels) and kernel size: UniFormer's stages 1, 1, 2, 2, 3 and 4.
CASES = (
    ((8, 56, 56, 64), 3),
    ((8, 56, 56, 64), 5),
    ((8, 28, 28, 128), 3),
    ((8, 28, 28, 128), 5),
    ((8, 14, 14, 320), 3),
    ((8, 7, 7, 512), 3),
)
FORWARD, _, GRADIENT = PASSES
HEADER = (
    "| shape, kernel | pass | form | min | median | max | / chosen |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Prints the table."""
    args = parse_args()
    print_machine(args)
    print(HEADER, flush=True)
    here = choice.platform_of(jax.devices()[0])
    for shape, size in CASES:
        x, kernel, grad = draw((args.batch, *shape), size, args.dtype)
        case = choice.Conv.of(x, kernel.shape)
        for step, arrays in ((FORWARD, (x, kernel)), (GRADIENT, (x, grad))):
            chosen = dict(choice.choose(step, case))[here]
            wanted = args.forms or candidates(step, here)
            runs = {}
            for name in [name for name in REGISTRIES[step] if name in (*wanted, chosen)]:
                form = REGISTRIES[step][name]
                if step == GRADIENT:
                    form = functools.partial(form, shape=kernel.shape)
                runs[name] = jax.jit(form).lower(*arrays).compile()
            times_ms = measure(runs, arrays, args.repeats)
            base = statistics.median(times_ms[chosen])
            for name, values in times_ms.items():
                spread = (min(values), statistics.median(values), max(values))
                cells = [f"{shape} {size}x{size}x{size}", step.removeprefix("depthwise ")]
                cells += [name + "*" * (name == chosen), *(f"{value:.2f}" for value in spread)]
                print(f"| {' | '.join(cells)} | {spread[1] / base:.2f} |", flush=True)


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    known = list(dict.fromkeys([*REGISTRIES[FORWARD], *REGISTRIES[GRADIENT]]))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--repeats", type=int, default=10, help="calls of each form")
    parser.add_argument(
        "--forms", type=lambda text: text.split(","), help=f"some of {','.join(known)}"
    )
    args = parser.parse_args()
    if min(args.batch, args.repeats) < 1:
        parser.error("--batch and --repeats must be at least 1")
    for name in args.forms or ():
        if name not in known:
            parser.error(f"--forms {name!r} is not one of {', '.join(known)}")
    return args


def print_machine(args: argparse.Namespace) -> None:
    """Prints what the figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib"))
    load = f", load average {os.getloadavg()[0]:.1f} at the start" if os.name == "posix" else ""
    print(
        f"{jax.devices()[0].device_kind}, {cores} CPU cores{load}, Python "
        f"{platform.python_version()}, {versions}; batch {args.batch}, {args.dtype}; ms; "
        f"{args.repeats} repeats\n"
    )


def draw(shape: tuple[int, ...], size: int, dtype: str) -> list[jax.Array]:
    """Input, kernel and gradient of the output."""
    shapes = (shape, (size, size, size, shape[-1]), shape)
    keys = jax.random.split(jax.random.key(0), 3)
    return [jax.random.normal(key, s, dtype) for key, s in zip(keys, shapes, strict=True)]


def measure(
    runs: Mapping[str, Callable], arrays: tuple[jax.Array, ...], repeats: int
) -> dict[str, list[float]]:
    """{form: milliseconds of every call but the first}."""
    times_ms = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start_sec = time.perf_counter()
            jax.block_until_ready(run(*arrays))
            times_ms[name].append((time.perf_counter() - start_sec) * 1e3)
    return {name: values[1:] for name, values in times_ms.items()}


if __name__ == "__main__":
    main()
