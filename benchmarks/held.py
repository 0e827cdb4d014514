"""CPU seconds of a training step while encoders are held, and after, beside other trainings.

    JAX_PLATFORMS=cpu python benchmarks/held.py --config own:tiny

compiles a step of a plain training, of one with frozen encoders, and of one that holds them at
first, and runs each several times on one batch of noise; nothing else is timed.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training import mesh as meshes
from avt_jax.training.state import TrainState

PARTS = ("^video_encoder/", "^audio_encoder/")
RELEASE = 500
KINDS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "plain": ({}, {"": 0}),
    "frozen": ({"optimizer.frozen": PARTS}, {"": 0}),
    "held": (
        {"optimizer.held": PARTS, "optimizer.held_steps": RELEASE},
        {", before": 0, ", after": RELEASE},
    ),
}


def main() -> None:
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--config", default="own:tiny")
    cli.add_argument("--steps", type=int, default=12, help="of each")
    cli.add_argument("--rounds", type=int, default=2)
    args = cli.parse_args()
    common = {"data.path": "generated:64:label=8", "train.steps": 2 * RELEASE}
    for _ in range(args.rounds):
        for name, (changes, starts) in KINDS.items():
            _measure(name, Experiment(load_config(args.config, common | changes)), starts, args)


def _measure(
    name: str, experiment: Experiment, starts: dict[str, int], args: argparse.Namespace
) -> None:
    state, places = experiment.init_state()
    step = experiment.packed_step(places, state)
    state = step.pack(state)
    batches = experiment.train_batches()
    batch, key = meshes.to_device(next(batches), experiment.mesh), jax.random.key(0)
    batches.close()
    begun = time.process_time()
    compiled = step.jitted.lower(state, batch, key).compile()
    took = time.process_time() - begun
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    print(f"{name}: traced and compiled in {took:.1f} CPU s, {memory:.0f} MiB beside the state")
    for when, start in starts.items():
        now: TrainState = replace(jax.tree.map(jnp.copy, state), step=jnp.int32(start))
        now, _ = jax.block_until_ready(compiled(now, batch, key))
        begun = time.process_time()
        for _ in range(args.steps):
            now, _ = compiled(now, batch, key)
        jax.block_until_ready(now)
        print(f"{name}{when}: {(time.process_time() - begun) / args.steps:.3f} CPU s a step")


if __name__ == "__main__":
    main()
