"""Measures what comes before a training's first step: structure, tracing, lowering, compilation.

    python benchmarks/compile_time.py --config quickstart --compile
    python benchmarks/compile_time.py --config vggsound

Each repeat is a process of its own, without a compilation cache; with both forms of the state they
take turns: *unrolled*, an entry per layer, and *packed*, as `avt train` runs it. `--dispatch` also
times how long a call with that many arrays takes before the device has anything to do.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from typing import Any

FORMS = ("unrolled", "packed")
COLUMNS = ("model", "trace", "lower", "compile", "dispatch_ms", "arrays")


def main() -> None:
    """Prints the table, or one measurement as JSON."""
    args = parse_args()
    if args.form:
        print(json.dumps(measure(args)))
        return
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPU cores, load average "
        f"{os.getloadavg()[0]:.1f} at the start, Python {platform.python_version()}, jax "
        f"{metadata.version('jax')}, flax {metadata.version('flax')}; {args.config}; seconds (but "
        f"dispatch: ms): min | median | max of {args.repeats} processes each\n"
    )
    found: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for _ in range(args.repeats):
        for form in FORMS:
            found[form].append(in_own_process(form))
    columns = [name for name in COLUMNS if name in found["packed"][0]]
    print(f"| state | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for form, runs in found.items():
        cells = [cell([run[name] for run in runs], name) for name in columns]
        print(f"| {form} | {' | '.join(cells)} |")


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="quickstart", help="a recipe (default: quickstart)")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--compile", action="store_true", help="compile for this machine, too")
    parser.add_argument("--dispatch", action="store_true", help="time calls with all the arrays")
    parser.add_argument("--form", choices=FORMS, help="measure once, in this process")
    return parser.parse_args()


def in_own_process(form: str) -> dict[str, float]:
    """One measurement."""
    command = [sys.executable, __file__, *sys.argv[1:], "--form", form]
    env = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": "false"}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=env).stdout)


def cell(values: list[float], name: str) -> str:
    """Least, middle and most; of a count, itself."""
    if name == "arrays":
        return str(values[0])
    return " | ".join(f"{x:.2f}" for x in (min(values), statistics.median(values), max(values)))


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of each phase, and the number of arrays that the step is given."""
    import jax

    from avt_jax.experiment.assemble import Experiment
    from avt_jax.experiment.config import load_config
    from avt_jax.experiment.cost import step_arguments
    from avt_jax.training import mesh as meshes
    from avt_jax.training.step import jit_train_step

    config = load_config(args.config)
    experiment = Experiment(config, classes={"label": args.classes}, devices=jax.devices()[:1])
    clock = Clock()
    _ = experiment.skeleton, experiment.optimizer
    clock.lap("model")
    state, batch, key = step_arguments(experiment, experiment.parts.train.batch_size)
    shardings = meshes.variable_shardings(experiment.mesh, state, experiment.parts.mesh)
    if args.form == "packed":
        step = experiment.packed_step(shardings, state)
        jitted, state = step.jitted, jax.eval_shape(step.pack, state)
    else:
        jitted = jit_train_step(experiment.step, shardings, experiment.mesh)
    clock.lap("")
    traced = jitted.trace(state, batch, key)
    clock.lap("trace")
    lowered = traced.lower()
    clock.lap("lower")
    if args.compile:
        lowered.compile()
        clock.lap("compile")
    found: dict[str, Any] = clock.seconds | {"arrays": len(jax.tree.leaves(state))}
    if args.dispatch:
        found["dispatch_ms"] = dispatch_ms(state)
    return found


class Clock:
    """Seconds from lap to lap, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._then = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a lap; one without a name is not kept."""
        now = time.perf_counter()
        if name:
            self.seconds[name] = now - self._then
        self._then = now


def dispatch_ms(state: Any) -> float:
    """Milliseconds of a call that is given, and gives back, so many arrays of one number each."""
    import jax
    import jax.numpy as jnp

    small = jax.tree.map(lambda leaf: jnp.zeros((), leaf.dtype), state)
    call = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    small = call(small)
    times = []
    for _ in range(50):
        jax.block_until_ready(small)
        start = time.perf_counter()
        small = call(small)
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    main()
