"""Learning-rate schedule, weight decay and clipping; each optimiser by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avt_jax.errors import UserError
from avt_jax.training.durations import Pace
from avt_jax.training.optimizer import (
    OptimizerConfig,
    learning_rate_schedule,
    make_optimizer,
)
from avt_jax.tree.stacks import Packing


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


def made(params, rate=0.1, **changes):
    """(the optimiser for flat parameters, its first state)."""
    settings = config(**changes)
    shapes = jax.eval_shape(lambda: params)
    packing = Packing({}, shapes, {}, settings.frozen_paths(shapes))
    optimizer = make_optimizer(settings, optax.constant_schedule(rate), shapes, packing)
    return optimizer, optimizer.init(params)


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
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    optimizer, state = made(params, clip_norm=0.0)
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)
    for name, update in updates.items():
        expected = -0.1 * 0.05 if name == "kernel" else 0.0
        np.testing.assert_allclose(update, expected, rtol=1e-6, err_msg=name)


def test_clipping_bounds_the_gradient():
    params = {"w": jnp.zeros(2)}
    optimizer, state = made(params, 1.0, clip_norm=0.5)
    _, state = optimizer.update({"w": jnp.array([30.0, 40.0])}, state, params)
    # First moment = (1 - b1) * clipped gradient; 50 long becomes 0.5 long.
    np.testing.assert_allclose(state[1][0].mu["w"], 0.1 * np.array([0.3, 0.4]), rtol=1e-6)


@pytest.mark.parametrize("field,value", [("lr", -1.0), ("b2", 1.0), ("ema_decay", 1.5)])
def test_bad_values_are_named(field, value):
    with pytest.raises(UserError, match=f"optimizer.{field} is {value}"):
        config(**{field: value})


def test_sgd_by_hand():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 3.0)}
    changes = dict(name="sgd", momentum=0.5, weight_decay=0.1, clip_norm=0.0)
    optimizer, state = made(params, 0.2, **changes)
    _, state = optimizer.update(grads, state, params)
    updates, _ = optimizer.update(grads, state, params)
    # The second momentum is 3 + 0.5 * 3; only the matrix decays.
    np.testing.assert_allclose(updates["bias"], -0.2 * 4.5, rtol=1e-6)
    np.testing.assert_allclose(updates["kernel"], -0.2 * (4.5 + 0.1), rtol=1e-6)


def test_the_state_is_that_of_earlier_checkpoints():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    clip, mask = optax.clip_by_global_norm(1.0), {"kernel": True, "bias": False}
    earlier = {
        "adamw": optax.chain(clip, optax.adamw(lambda step: 0.1, mask=mask)),
        "sgd": optax.chain(
            clip,
            optax.trace(0.9),
            optax.add_decayed_weights(0.1, mask=mask),
            optax.scale_by_learning_rate(lambda step: 0.1),
        ),
    }
    for name, optimizer in earlier.items():
        expected = jax.tree.structure(optimizer.init(params))
        assert jax.tree.structure(made(params, name=name)[1]) == expected


def test_lion_by_hand():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = {"kernel": jnp.full((2, 2), -3.0), "bias": jnp.full(2, 3.0)}
    optimizer, state = made(params, 0.2, name="lion", weight_decay=0.1, clip_norm=0.0)
    updates, _ = optimizer.update(grads, state, params)
    np.testing.assert_allclose(updates["bias"], -0.2, rtol=1e-6)
    np.testing.assert_allclose(updates["kernel"], -0.2 * (-1 + 0.1), rtol=1e-6)


def test_adafactor_keeps_rows_and_columns():
    params = {"kernel": jnp.ones((256, 128)), "bias": jnp.ones(256)}
    row, column = jnp.linspace(1, 2, 256), jnp.linspace(3, 5, 128)
    grads = {"kernel": row[:, None] * column, "bias": row}
    optimizer, state = made(params, 0.1, name="adafactor", weight_decay=0.0, clip_norm=0.0)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state))
    assert numbers < 256 + 128 + 256 + 20
    updates, _ = optimizer.update(grads, state, params)
    # Squares of a product of row and column are known from their means: every step is 1.
    np.testing.assert_allclose(updates["kernel"], -0.1, rtol=1e-4)
    np.testing.assert_allclose(updates["bias"], -0.1, rtol=1e-4)


@pytest.mark.parametrize("name", ("adamw", "lion", "sgd"))
def test_the_first_moment_may_be_kept_in_bfloat16(name):
    params = {"kernel": jnp.ones((4, 4))}
    _, wide = made(params, name=name)
    optimizer, narrow = made(params, name=name, mu_dtype="bfloat16")

    def bytes_of(state):
        return sum(leaf.nbytes for leaf in jax.tree.leaves(state))

    assert bytes_of(wide) - bytes_of(narrow) == 2 * 16
    updates, _ = optimizer.update({"kernel": jnp.ones((4, 4))}, narrow, params)
    assert updates["kernel"].dtype == jnp.float32


def test_adafactor_has_no_first_moment():
    with pytest.raises(UserError, match="mu_dtype is 'bfloat16', but adafactor"):
        config(name="adafactor", mu_dtype="bfloat16")


def test_unknown_optimizer():
    with pytest.raises(UserError, match=r"name is 'adam' .*; give one of 'adamw', 'adafactor'"):
        config(name="adam")
