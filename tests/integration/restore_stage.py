"""A stage of test_restore_anywhere: reads the newest checkpoint, writes it as the next step."""

import argparse
import dataclasses
import sys

import jax

from avt_jax.cli import common
from avt_jax.cli.processes import job
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training.checkpoint import Checkpointer


def stage(args):
    changes = {"mesh.fsdp": args.fsdp, "mesh.min_cut_mb": 0.0, "optimizer.ema_decay": 0.9}
    experiment = Experiment(load_config("quickstart:smoke", changes))
    state, shardings = experiment.init_state()
    with_checkpoint = Checkpointer(args.workdir, keep_last=10, keep_best=1)
    restored = with_checkpoint.restore(state, shardings)
    step = 1
    if restored:
        state, _ = restored
        step = int(state.step) + 1
    # Random numbers in every leaf: zeros would agree by themselves.
    else:
        leaves, structure = jax.tree.flatten(state)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        leaves = [
            jax.device_put(jax.random.normal(key, leaf.shape).astype(leaf.dtype), leaf.sharding)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        state = jax.tree.unflatten(structure, leaves)
    where = max(len(leaf.sharding.device_set) for leaf in jax.tree.leaves(state))
    cut = sum(
        leaf.sharding.shard_shape(leaf.shape) != leaf.shape for leaf in jax.tree.leaves(state)
    )
    state = dataclasses.replace(
        state, step=jax.device_put(state.step * 0 + step, state.step.sharding)
    )
    with_checkpoint.save(state, {})
    with_checkpoint.close()
    if jax.process_index() == 0:
        print(f"on {where} devices, {cut} leaves cut")


def main():
    cli = argparse.ArgumentParser()
    cli.add_argument("--workdir", required=True)
    cli.add_argument("--fsdp", type=int, required=True)
    job.add_options(cli)
    args = cli.parse_args()
    return common.run(lambda argv: job.run(args, lambda: stage(args)), [])


if __name__ == "__main__":
    sys.exit(main())
