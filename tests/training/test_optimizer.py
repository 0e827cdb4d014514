"""Learning-rate schedule, weight-decay mask and clipping."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avt_jax.errors import UserError
from avt_jax.training.durations import Pace
from avt_jax.training.optimizer import (
    OptimizerConfig,
    decayed,
    learning_rate_schedule,
    make_optimizer,
)


def config(**changes):
    defaults = dict(
        name="adamw",
        lr=1e-3,
        warmup_epochs=2.0,
        warmup_lr=1e-6,
        min_lr=1e-5,
        weight_decay=0.05,
        b1=0.9,
        b2=0.999,
        momentum=0.9,
        clip_norm=1.0,
    )
    return OptimizerConfig(**(defaults | changes))


def test_warmup_then_cosine():
    rate = learning_rate_schedule(config(), total_steps=100, pace=Pace(4, 10))
    np.testing.assert_allclose(rate(0), 1e-6, rtol=1e-4)  # float32 of a sum with 1e-3
    np.testing.assert_allclose(rate(10), (1e-6 + 1e-3) / 2, rtol=1e-5)
    np.testing.assert_allclose(rate(20), 1e-3, rtol=1e-6)
    np.testing.assert_allclose(rate(60), (1e-3 + 1e-5) / 2, rtol=1e-4)
    np.testing.assert_allclose(rate(100), 1e-5, rtol=1e-4)


@pytest.mark.parametrize("total", [1, 3])
def test_shorter_than_the_warmup(total):
    rate = learning_rate_schedule(config(), total_steps=total, pace=Pace(4, 10))
    assert all(np.isfinite(rate(step)) for step in range(total + 1))


def test_decay_spares_vectors_and_tokens():
    shapes = {"kernel": (3, 4), "bias": (4,), "scale": (4,), "tau": (), "cls": (1, 1, 4)}
    mask = decayed({name: jnp.zeros(shape) for name, shape in shapes.items()})
    assert mask == {"kernel": True, "bias": False, "scale": False, "tau": False, "cls": False}
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    optimizer = make_optimizer(config(clip_norm=0.0), optax.constant_schedule(0.1))
    zeros = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.1 * 0.05, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_clipping_bounds_the_gradient():
    optimizer = make_optimizer(config(clip_norm=0.5), optax.constant_schedule(1.0))
    params = {"w": jnp.zeros(2)}
    _, state = optimizer.update({"w": jnp.array([30.0, 40.0])}, optimizer.init(params), params)
    # First moment = (1 - b1) * clipped gradient; 50 long becomes 0.5 long.
    np.testing.assert_allclose(state[1][0].mu["w"], 0.1 * np.array([0.3, 0.4]), rtol=1e-6)


@pytest.mark.parametrize("field,value", [("lr", -1.0), ("b2", 1.0), ("ema_decay", 1.5)])
def test_bad_values_are_named(field, value):
    with pytest.raises(UserError, match=f"optimizer.{field} is {value}"):
        config(**{field: value})


def test_sgd_by_hand():
    made = config(name="sgd", momentum=0.5, weight_decay=0.1, clip_norm=0.0)
    optimizer = make_optimizer(made, optax.constant_schedule(0.2))
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    state = optimizer.init(params)
    _, state = optimizer.update(grads, state, params)
    updates, _ = optimizer.update(grads, state, params)
    # The second momentum is 3 + 0.5 * 3; only the matrix decays.
    np.testing.assert_allclose(updates["bias"], -0.2 * 4.5, rtol=1e-6)
    np.testing.assert_allclose(updates["kernel"], -0.2 * (4.5 + 0.1), rtol=1e-6)


def test_unknown_optimizer():
    with pytest.raises(UserError, match=r"name is 'adam' .*; give 'adamw' or 'sgd'"):
        config(name="adam")
