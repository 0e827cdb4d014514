"""The training step: what it counts, measures and draws; batch statistics; mixing before all."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from toy_run import RAW, Linear, linear_step

from avt_jax import axes, tree
from avt_jax.training import mesh as meshes
from avt_jax.training.state import TrainState
from avt_jax.training.step import jit_train_step, make_train_step

KEY = jax.random.key(3)


def batch(value=1.0):
    return {axes.AUDIO: np.full((8, 1), value, np.float32)}


def test_counts_and_measures():
    state, step = linear_step(optax.sgd(0.5))
    state, metrics = step(state, batch(3.0), KEY)
    assert int(state.step) == 1 and state.ema == {} and state.stats == {}
    # Weights (1, -2): the loss is 3 (1 - 20); its gradient (3, 30).
    assert float(metrics["loss"][0]) == -57.0
    norm, count = metrics["grad_norm"]
    assert float(norm) == pytest.approx(np.hypot(3, 30)) and float(count) == 1


def test_grad_norm_is_measured_before_clipping():
    state, step = linear_step(optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(1.0)))
    after, metrics = step(state, batch(), KEY)
    assert float(metrics["grad_norm"][0]) == pytest.approx(np.hypot(1, 10))
    moved = np.asarray(after.params["w"]) - [1.0, -2.0]
    np.testing.assert_allclose(moved, -0.1 * np.array([1, 10]) / np.hypot(1, 10), rtol=1e-5)


class WithStatistics(Linear):
    """Counts the batches it sees, as BatchNorm keeps what it has seen."""

    def __init__(self):
        super().__init__()
        self.seen = nnx.BatchStat(jnp.zeros(()))

    def encode(self, video, audio, *, train, rngs):
        self.seen.set_value(self.seen[...] + audio.mean())
        return None, audio


def objective(forward, batch, step):
    """The loss is what the step draws from its key, so it tells what the key was."""
    loss = forward.logits.mean() + jax.random.uniform(forward.key(2)) + 100.0 * step
    return loss, {"loss": (loss, jnp.float32(1))}


def made(model, objective=objective, **options):
    optimizer = optax.sgd(0.0)
    params, stats = tree.split(model())
    state = TrainState(jnp.int32(0), params, stats, {}, optimizer.init(params))
    step = make_train_step(
        tree.Skeleton(model), objective, optimizer, RAW, ema_decay=0.0, **options
    )
    return state, step


def test_batch_statistics_are_carried_from_step_to_step():
    state, step = made(WithStatistics)
    for _ in range(2):
        state, _ = step(state, batch(1.5), KEY)
    assert float(state.stats["seen"]) == 3.0


def test_the_key_is_folded_with_the_step():
    state, step = made(Linear)
    losses, states = [], [state]
    for _ in range(3):
        state, metrics = step(state, batch(), KEY)
        losses.append(float(metrics["loss"][0]))
        states.append(state)
    drawn = np.array(losses) - 100.0 * np.arange(3)  # the objective is told the steps done
    assert len(set(drawn.round(4))) == 3 and (-19 <= drawn).all() and (drawn <= -18).all()
    # A run that continues from the state after two steps draws what this one drew.
    assert float(step(states[2], batch(), KEY)[1]["loss"][0]) == losses[2]
    assert float(step(states[2], batch(), jax.random.key(4))[1]["loss"][0]) != losses[2]


def test_mixing_comes_first_and_draws_from_a_key_of_its_own():
    used = []

    def mix(batch, key):
        used.append(key)
        return batch | {axes.AUDIO: 2 * batch[axes.AUDIO]}

    def remembering(forward, batch, step):
        used.extend(forward.key(use) for use in range(4))  # hiding and mining
        return objective(forward, batch, step)

    state, step = made(WithStatistics, remembering, mix=mix)
    for _ in range(2):
        state, _ = step(state, batch(), KEY)
    assert float(state.stats["seen"]) == 4.0, "the model sees the mixed batch"
    assert len({str(jax.random.key_data(key)) for key in used}) == len(used) == 10


def test_jitted_the_old_state_is_used_up():
    state, step = linear_step(optax.sgd(0.5))
    mesh = meshes.make_mesh(meshes.MeshConfig(-1, 1, ((".*", "replicate"),)))
    places = jax.tree.map(lambda _: meshes.replicated(mesh), state)
    state = jax.device_put(state, places)
    new, metrics = jit_train_step(step, places, mesh)(state, meshes.to_device(batch(), mesh), KEY)
    assert state.params["w"].is_deleted() and not new.params["w"].is_deleted()
    np.testing.assert_allclose(new.params["w"], [0.5, -7.0])
    assert metrics["loss"][0].sharding.is_fully_replicated
