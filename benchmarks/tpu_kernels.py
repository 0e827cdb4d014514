"""Estimates the forms of depthwise convolution and attention on TPUs that are not here.

    python benchmarks/tpu_kernels.py --topology v5e:2x2 v6e:2x2
    python benchmarks/tpu_kernels.py --operation attention --form splash --limit-min 5

Each form alone, in each pass, at the sizes that AVT-B and MBT-B have at 8 clips a chip: the
compiler's estimate, temporaries, and how long it compiles. The forms are what the registries in
avt_jax/models/kernels hold. Each compilation is a process of its own, given up after `--limit-min`.
Needs the extra `aot`.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from tpu_estimate import RESULTS, ms, run_python, table, versions, write_json

from avt_jax.profiling import ahead_of_time, flops, hlo
from avt_jax.profiling.chips import Topology
from avt_jax.profiling.step_cost import estimate

# {operation: {what it is: shapes of the arguments}}, of 8 clips.
CASES: dict[str, dict[str, list[tuple[int, ...]]]] = {
    "depthwise": {
        f"({t}, {side}, {side}, {channels}), {size}^3": [
            (8, t, side, side, channels),
            (size, size, size, channels),
        ]
        for t, side, channels, size in (
            (8, 56, 64, 3),
            (8, 56, 64, 5),
            (8, 28, 128, 3),
            (8, 28, 128, 5),
            (8, 14, 320, 3),
            (8, 7, 512, 3),
        )
    },
    "attention": {
        f"(8, {n}, {heads}, 64)": [(8, n, heads, 64)] * 3
        for n, heads in ((1568, 5), (392, 8), (1568, 12), (804, 12))
    },
}


Form = Callable[..., Any]


def depthwise_passes() -> dict[str, dict[str, Form]]:
    """{pass: {form: function of (x, kernel)}}; what comes back is taken to be x itself."""
    try:
        forms = importlib.import_module("avt_jax.models.kernels.depthwise_forms")
    except ModuleNotFoundError:
        from avt_jax.models.kernels.depthwise_conv import depthwise_conv3d

        return with_gradients({"depthwise_conv3d": depthwise_conv3d})

    def gradient(form: Form) -> Form:
        return lambda x, kernel: form(x, x, kernel.shape)

    gradients = {name: gradient(form) for name, form in forms.KERNEL_GRADIENT.items()}
    return {"forward": dict(forms.FORWARD), "kernel gradient": gradients}


def attention_passes() -> dict[str, dict[str, Form]]:
    """{pass: {form: function of (query, key, value)}}; what comes back is the output itself."""
    module = importlib.import_module("avt_jax.models.kernels.attention")
    if not hasattr(module, "FORMS"):
        return with_gradients({"dot_product_attention": module.dot_product_attention})

    def both(form: Any) -> Form:
        def run(query: Any, key: Any, value: Any) -> Any:
            out, statistics = form.forward(query, key, value)
            return out, form.backward(query, key, value, out, statistics, out)

        return run

    return {
        "forward": {name: form.forward for name, form in module.FORMS.items()},
        "forward + backward": {name: both(form) for name, form in module.FORMS.items()},
    }


def with_gradients(forms: Mapping[str, Form]) -> dict[str, dict[str, Form]]:
    """The two passes of functions that JAX differentiates."""

    def both(form: Form) -> Form:
        def run(*args: Any) -> Any:
            out, back = jax.vjp(form, *args)
            return out, back(out)

        return run

    return {
        "forward": dict(forms),
        "forward + backward": {name: both(form) for name, form in forms.items()},
    }


PASSES = {"depthwise": depthwise_passes, "attention": attention_passes}


def main() -> int:
    """Writes the table and the figures, or compiles one form for a process that does."""
    args = parse_args()
    if args.one:
        print(json.dumps(compile_one(*args.one)))
        return 0
    rows = []
    for what in wanted(args):
        found = run_python([__file__, "--one", *what], args.limit_min)
        rows.append({"what": what, **found})
        write_json(args.json, {"versions": versions(), "kernels": rows})
    page = page_of(rows)
    if args.out:
        args.out.write_text(page, encoding="utf-8")
    else:
        print(page)
    return 0


def wanted(args: argparse.Namespace) -> Iterator[list[str]]:
    """[operation, size, form, topology, pass] of every compilation."""
    for operation in args.operation:
        passes = PASSES[operation]()
        for case, pass_name, topology in itertools.product(CASES[operation], passes, args.topology):
            for name in passes[pass_name]:
                if not args.form or name in args.form:
                    yield [operation, case, name, topology, pass_name]


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--operation", nargs="+", choices=list(CASES), default=list(CASES))
    add("--form", nargs="+", help="only these")
    add("--topology", nargs="+", default=["v5e:2x2"])
    add("--limit-min", type=float, default=10.0, help="of one compilation")
    add("--out", type=Path, help="Markdown (default: printed)")
    add("--json", type=Path, default=RESULTS / "tpu_kernels.json")
    add("--one", nargs=5, help=argparse.SUPPRESS)
    return parser.parse_args()


def compile_one(
    operation: str, case: str, name: str, topology_name: str, pass_name: str
) -> dict[str, Any]:
    """The figures of one form at one size."""
    topology = Topology.of(topology_name)
    chip = ahead_of_time.devices(topology)[:1]
    # As in training: a form may ask which mesh it runs on.
    mesh = jax.make_mesh((1, 1), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=chip)
    place = NamedSharding(mesh, PartitionSpec())
    given = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
        for shape in CASES[operation][case]
    ]
    jitted = jax.jit(PASSES[operation]()[pass_name][name])
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            made = ahead_of_time.compile_for_tpu(
                jitted, given, name=topology_name, say=lambda line: print(line, file=sys.stderr)
            )
    except Exception as error:  # whatever a form cannot do belongs in the table
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
    counted = flops.in_pallas(made.jaxpr.jaxpr)
    cost = estimate(hlo.parse(made.text), topology.chip, counted)
    return {
        "seconds": cost.compute_sec,
        "by_bytes": sum(a.bytes for a in cost.amounts.values()) / topology.chip.hbm_bandwidth,
        "pallas": cost.pallas.count,
        "temporaries": made.memory.temporaries,
        "compile_sec": made.seconds["compile"],
    }


def page_of(rows: list[dict[str, Any]]) -> str:
    """The table."""
    lines = []
    for row in rows:
        if "failed" in row:
            lines.append([*row["what"], row["failed"], "", "", "", ""])
            continue
        lines.append(
            [
                *row["what"],
                ms(row["seconds"]),
                ms(row["by_bytes"]),
                row["pallas"],
                f"{row['temporaries'] / 1e6:,.0f}",
                f"{row['compile_sec']:.0f}",
            ]
        )
    header = (
        "operation", "size", "form", "topology", "pass", "estimated ms", "by bytes", "Pallas calls",
        "temporaries MB", "compiled in s",
    )  # fmt: skip
    return f"bfloat16, batch 8, one chip; {versions()}.\n\n{table(header, lines)}\n"


if __name__ == "__main__":
    sys.exit(main())
