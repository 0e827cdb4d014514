"""The loop on a toy step: schedule, logging, non-finite losses, stopping on a signal."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.training import mesh as meshes
from avt_jax.training.checkpoint import Checkpointer
from avt_jax.training.loop import Schedule, TrainConfig, fit
from avt_jax.training.state import TrainState
from avt_jax.training.writer import METRICS_FILE, MetricWriter


class Counter:
    """Batches that hold their own number."""

    num_damaged = 2

    def __init__(self):
        self.number = 0

    def __next__(self):
        self.number += 1
        return {axes.AUDIO: np.full((8, 1), self.number, np.float32)}

    def get_state(self):
        return {"batches": self.number}


def toy_step(bad_step=None):
    def step(state, batch, key):
        loss = batch[axes.AUDIO].mean()
        loss = jnp.where(state.step + 1 == (bad_step or -1), jnp.nan, loss)
        new = TrainState(state.step + 1, {"w": state.params["w"] + loss}, {}, {}, {})
        return new, {"classification": (loss * 8, 8.0), "loss": (loss, 1.0)}

    return jax.jit(step)


def run(folder, step, *, total=6, start=0, evaluate=lambda state: ({"top1/label": 0.5}, 0.5)):
    state = TrainState(jnp.int32(start), {"w": jnp.zeros(())}, {}, {}, {})
    checkpointer = Checkpointer(folder, keep_last=9, keep_best=1)
    writer = MetricWriter(folder, step=start)
    try:
        return fit(
            state,
            step,
            Counter(),
            key=jax.random.key(0),
            mesh=meshes.make_mesh(meshes.MeshConfig(-1, 1, ((".*", "replicate"),))),
            schedule=Schedule(total, log_every=2, eval_every=4, checkpoint_every=3),
            batch_size=8,
            checkpointer=checkpointer,
            writer=writer,
            learning_rate=lambda step: 0.1,
            evaluate=evaluate,
        )
    finally:
        checkpointer.close()
        writer.close()


def steps(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())


def test_logs_evaluates_and_checkpoints_when_due(tmp_path, capsys):
    state = run(tmp_path, toy_step())
    assert int(state.step) == 6 and float(state.params["w"]) == 1 + 2 + 3 + 4 + 5 + 6
    assert steps(tmp_path) == [3, 4, 6]
    entries = [json.loads(x) for x in (tmp_path / METRICS_FILE).read_text().splitlines()]
    train = [(e["step"], e["loss"]) for e in entries if e["split"] == "train"]
    assert train == [(2, 1.5), (4, 3.5), (6, 5.5)], "means over the steps since the last line"
    assert [e["step"] for e in entries if e["split"] == "val"] == [4, 6]
    assert all(e["damaged"] == 2 for e in entries if e["split"] == "train")
    assert "2 damaged records passed over" in capsys.readouterr().err


@pytest.mark.parametrize("bad_step", [3, 5, 6])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, bad_step):
    with pytest.raises(UserError, match=rf"step {bad_step}: classification, loss is not finite"):
        run(tmp_path, toy_step(bad_step))
    assert all(step < bad_step for step in steps(tmp_path)), "only good checkpoints are kept"


def test_sigterm_saves_a_checkpoint_and_stops(tmp_path):
    def evaluate(state):
        os.kill(os.getpid(), signal.SIGTERM)
        return {"top1/label": 0.5}, 0.5

    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, toy_step(), evaluate=evaluate)
    assert steps(tmp_path) == [3, 4]
    assert signal.getsignal(signal.SIGTERM) == handler


def test_lengths():
    config = TrainConfig(
        batch_size=32,
        eval_batch_size=32,
        epochs=1.5,
        steps=0,
        log_every_steps=1,
        eval_every_steps=0,
        checkpoint_every_steps=0,
        keep_last=1,
        keep_best=0,
    )
    assert config.steps_per_epoch(100) == 3 and config.total_steps(100) == 4
    assert config.steps_per_epoch(5) == 1, "fewer clips than a batch"


@pytest.mark.parametrize("field", ["batch_size", "log_every_steps", "keep_last"])
def test_bad_lengths_are_named(field):
    good = dict(
        batch_size=1,
        eval_batch_size=1,
        epochs=1.0,
        steps=0,
        log_every_steps=1,
        eval_every_steps=0,
        checkpoint_every_steps=0,
        keep_last=1,
        keep_best=0,
    )
    with pytest.raises(UserError, match=f"train.{field} is 0"):
        TrainConfig(**(good | {field: 0}))
