"""The averaged parameters: three steps by hand, where they start, and who reads them."""

import chex
import jax
import numpy as np
import optax
import pytest
from toy_run import Linear, every, linear_step, run

from avt_jax import axes
from avt_jax.training import mesh as meshes
from avt_jax.training.state import Birth, with_variables

RULES = ((".*", "replicate"),)


def batch(number):
    return {axes.AUDIO: np.full((8, 1), number, np.float32)}


def test_three_steps_by_hand():
    state, step = linear_step(optax.sgd(0.5), ema_decay=0.9)
    np.testing.assert_array_equal(state.ema["w"], [1.0, -2.0])
    # Weights (1, -2), gradients n and 10 n at rate 0.5; average = 0.9 before + 0.1 new weights.
    expected = [
        ([0.5, -7.0], [0.95, -2.5]),
        ([-0.5, -17.0], [0.805, -3.95]),
        ([-2.0, -32.0], [0.5245, -6.755]),
    ]
    for number, (weights, average) in enumerate(expected, start=1):
        state, _ = step(state, batch(number), jax.random.key(0))
        np.testing.assert_allclose(state.params["w"], weights, rtol=1e-6)
        np.testing.assert_allclose(state.ema["w"], average, rtol=1e-6)


def test_the_average_does_not_change_the_training():
    optimizer = optax.adam(0.1)
    (with_ema, step), (without, plain_step) = (
        linear_step(optimizer, ema_decay=decay) for decay in (0.5, 0.0)
    )
    for number in (1, 2):
        with_ema, _ = step(with_ema, batch(number), jax.random.key(0))
        without, _ = plain_step(without, batch(number), jax.random.key(0))
    assert without.ema == {} and set(with_ema.ema) == {"w"}
    chex.assert_trees_all_equal(with_ema.params, without.params)


@pytest.mark.parametrize("with_ema", [True, False])
def test_a_new_state(with_ema):
    birth = Birth(
        lambda key: Linear(),
        optax.sgd(0.5),
        with_ema=with_ema,
        mesh=meshes.make_mesh(meshes.MeshConfig(-1, 1, RULES)),
        config=meshes.MeshConfig(-1, 1, RULES),
    )
    state, places = birth.state(jax.random.key(0)), birth.shardings
    chex.assert_trees_all_equal_shapes_and_dtypes(state, birth.shapes)
    assert int(state.step) == 0
    np.testing.assert_array_equal(state.params["w"], [1.0, -2.0])
    if not with_ema:
        assert state.ema == {} and with_variables(state, places, {"w": np.zeros(2)}).ema == {}
        return
    np.testing.assert_array_equal(state.ema["w"], [1.0, -2.0])
    # The step donates its input: no memory may be both. Nor the host's, which stays the caller's.
    given = np.array([3.0, 4.0])
    replaced = with_variables(state, places, {"w": given, "elsewhere": np.ones(1)})
    for one in (state, replaced):
        pointers = [
            {shard.data.unsafe_buffer_pointer() for shard in leaf["w"].addressable_shards}
            for leaf in (one.params, one.ema)
        ]
        assert not pointers[0] & pointers[1]
    given[:] = 0
    for group in (replaced.params, replaced.ema):
        assert set(group) == {"w"} and group["w"].dtype == np.float32
        np.testing.assert_array_equal(group["w"], [3.0, 4.0])
    chex.assert_trees_all_equal(with_variables(state, places, {}), state)


def test_evaluations_are_given_the_average(tmp_path):
    state, step = linear_step(optax.sgd(0.5), ema_decay=0.9)
    seen = []

    def evaluate(state, asked):
        seen.append(np.asarray(state.ema["w"]))
        return {}, 0.0

    run(tmp_path, state, step, schedule=every(3, evaluate=1), evaluate=evaluate)
    np.testing.assert_allclose(seen, [[0.95, -2.5], [0.805, -3.95], [0.5245, -6.755]], rtol=1e-6)
