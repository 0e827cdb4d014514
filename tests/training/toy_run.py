"""A training small enough to follow by hand: the loop and the step on one linear model."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from avt_jax import axes, tree
from avt_jax.models.forward import Normalisation
from avt_jax.training import mesh as meshes
from avt_jax.training.checkpoint import Checkpointer
from avt_jax.training.loop import Schedule, fit
from avt_jax.training.state import TrainState
from avt_jax.training.step import make_train_step
from avt_jax.training.writer import METRICS_FILE, MetricWriter

RAW = Normalisation((0.0,) * 3, (1.0,) * 3, 0.0, 0.5)  # sound as it is


class Counter:
    """Batches that hold their own number, 1 for the first; one device or eight can share them."""

    num_damaged = 2

    def __init__(self, start=0):
        self.number = start

    def __next__(self):
        self.number += 1
        return {axes.AUDIO: np.full((8, 1), self.number, np.float32)}

    def get_state(self):
        return {"batches": self.number}


class Linear(nnx.Module):
    """Two parameters; the loss is their sum, the second ten times, times the batch's number."""

    modalities = "audio"

    def __init__(self):
        self.w = nnx.Param(jnp.array([1.0, -2.0]))

    def encode(self, video, audio, *, train, rngs):
        return None, audio

    def fuse(self, video, audio, *, train, rngs):
        return {"logits": audio * (self.w[...] * jnp.array([1.0, 10.0])).sum()}


def linear_step(optimizer, *, ema_decay=0.0):
    """(state at step 0, the jitted step); the gradient in step n is n and 10 n."""

    def objective(forward, batch, step):
        loss = forward.logits.mean()
        return loss, {"loss": (loss, jnp.float32(1))}

    params, stats = tree.split(Linear())
    ema = dict(params) if ema_decay else {}
    state = TrainState(jnp.int32(0), params, stats, ema, optimizer.init(params))
    step = make_train_step(tree.Skeleton(Linear), objective, optimizer, RAW, ema_decay=ema_decay)
    return state, jax.jit(step)


def counting_step(bad_step=None):
    """(state, step): adds each batch's number to "w"; a loss that is not a number in `bad_step`."""

    def step(state, batch, key):
        loss = batch[axes.AUDIO].mean()
        loss = jnp.where(state.step + 1 == (bad_step or -1), jnp.nan, loss)
        new = TrainState(state.step + 1, {"w": state.params["w"] + loss}, {}, {}, {})
        return new, {"classification": (loss * 8, 8.0), "loss": (loss, 1.0)}

    return TrainState(jnp.int32(0), {"w": jnp.zeros(())}, {}, {}, {}), jax.jit(step)


def _mesh():
    return meshes.make_mesh(meshes.MeshConfig(-1, 1, ((".*", "replicate"),)))


def run(
    folder,
    state,
    step,
    *,
    schedule,
    learning_rate=lambda step: 0.1,
    evaluate=lambda state, asked: ({"top1/label": 0.5}, 0.5),
    batches=None,
    watch=None,
    patience=None,
):
    """Trains from `state` on, with its files in `folder`; returns the final state."""
    start = int(state.step)
    checkpointer = Checkpointer(folder, keep_last=9, keep_best=1)
    writer = MetricWriter(folder, step=start)
    try:
        return fit(
            state,
            step,
            batches or Counter(start),
            key=jax.random.key(0),
            mesh=_mesh(),
            schedule=schedule,
            batch_size=8,
            checkpointer=checkpointer,
            writer=writer,
            rates=lambda step: {"lr": learning_rate(step)},
            evaluate=evaluate,
            watch=watch,
            patience=patience,
        )
    finally:
        checkpointer.close()
        writer.close()


def restored(folder, like):
    """(state, position of the data) of the newest checkpoint in a run folder."""
    places = jax.tree.map(lambda _: meshes.replicated(_mesh()), like)
    checkpointer = Checkpointer(folder, keep_last=9, keep_best=1)
    try:
        return checkpointer.restore(like, places)
    finally:
        checkpointer.close()


def every(total, *, log=2, evaluate=4, checkpoint=3):
    """A schedule of the toy's usual intervals."""
    return Schedule(total, log_every=log, eval_every=evaluate, checkpoint_every=checkpoint)


def logged(folder, split):
    """The lines of one split in metrics.jsonl."""
    entries = map(json.loads, (folder / METRICS_FILE).read_text().splitlines())
    return [entry for entry in entries if entry["split"] == split]


def checkpoints(folder):
    """Steps of the checkpoints in a run folder."""
    return sorted(int(path.name) for path in (folder / "checkpoints").iterdir())


def warmup_and_cosine(step, *, lr, start, end, warmup_steps, total):
    """The rate of the step after `step` steps, as the papers write it."""
    if step < warmup_steps:
        return start + (lr - start) * step / warmup_steps
    share = (step - warmup_steps) / (total - warmup_steps)
    return end + (lr - end) * (1 + math.cos(math.pi * share)) / 2
