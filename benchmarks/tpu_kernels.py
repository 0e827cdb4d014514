"""Estimates the forms of depthwise convolution and attention on TPUs that are not here.

    python benchmarks/tpu_kernels.py --topology v5e:2x2 v6e:2x2
    python benchmarks/tpu_kernels.py --operation attention --form splash --limit-min 5

Each form alone, at the sizes that AVT-B and MBT-B have at 8 clips a chip, forward and with all
gradients: the compiler's estimate, temporaries, and how long it compiles. A form is a function in
the dictionary {name: function} that the operation's module holds (`REGISTRIES`). Each compilation
is a process of its own, given up after `--limit-min`. Needs the extra `aot`.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tpu_estimate import RESULTS, ms, run_python, table, versions, write_json

# {operation: (module, the dictionary's name, the one function where there is no dictionary)}.
REGISTRIES = {
    "depthwise": ("avt_jax.models.kernels.depthwise_conv", "FORMS", "depthwise_conv3d"),
    "attention": ("avt_jax.models.kernels.attention", "FORMS", "dot_product_attention"),
}
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


def forms(operation: str) -> Mapping[str, Callable[..., Any]]:
    """{name: function} of an operation."""
    module_name, registry, function = REGISTRIES[operation]
    module = importlib.import_module(module_name)
    found = getattr(module, registry, None)
    return {function: getattr(module, function)} if found is None else dict(found)


def main() -> int:
    """Writes the table and the figures, or compiles one form for a process that does."""
    args = parse_args()
    if args.one:
        print(json.dumps(compile_one(*args.one)))
        return 0
    rows = []
    for operation in args.operation:
        for case in CASES[operation]:
            for name in forms(operation):
                for topology in args.topology:
                    for pass_name in ("forward", "forward + backward"):
                        if args.form and name not in args.form:
                            continue
                        what = [operation, case, name, topology, pass_name]
                        found = run_python([__file__, "--one", *what], args.limit_min)
                        rows.append({"what": what, **found})
                        write_json(args.json, {"versions": versions(), "kernels": rows})
    page = page_of(rows)
    if args.out:
        args.out.write_text(page, encoding="utf-8")
    else:
        print(page)
    return 0


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
    import jax
    import jax.numpy as jnp
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from avt_jax.profiling import ahead_of_time, hlo
    from avt_jax.profiling.chips import Topology
    from avt_jax.profiling.step_cost import estimate

    topology = Topology.of(topology_name)
    chip = ahead_of_time.devices(topology)[:1]
    # As in training: a form may ask which mesh it runs on.
    mesh = jax.make_mesh((1, 1), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=chip)
    place = NamedSharding(mesh, PartitionSpec())
    given = [
        jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=place)
        for shape in CASES[operation][case]
    ]
    function = forms(operation)[name]

    def both(*args: Any) -> Any:
        out, back = jax.vjp(function, *args)
        return out, back(out)

    jitted = jax.jit(function if pass_name == "forward" else both)
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            made = ahead_of_time.compile_for_tpu(
                jitted, given, name=topology_name, say=lambda line: print(line, file=sys.stderr)
            )
    except Exception as error:  # whatever a form cannot do belongs in the table
        return {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:120]}"}
    cost = estimate(hlo.parse(made.text), topology.chip)
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
