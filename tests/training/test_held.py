"""Parameters held in the first part of a training: as frozen, then as in one that begins there."""

import re
from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost.profile import step_arguments
from avt_jax.profiling import flops
from avt_jax.training import mesh as meshes
from avt_jax.training.durations import Pace
from avt_jax.training.optimizer import OptimizerConfig, make_hold, make_optimizer
from avt_jax.tree.stacks import Packing

# The first tower as a whole, the other in part.
HELD = ("^audio_encoder/", r"^fusion/audio_blocks/[01]/")
STEPS, RAMP, TOTAL = 2, 2, 5
MODEL = {
    "modalities": "audio",
    "num_blocks": 3,
    "drop_path": 0.0,
    "dim": 16,
    "num_heads": 2,
    "audio_encoder": {"name": "ast", "depth": 3, "dim": 16, "num_heads": 2},
}
ADAM = {"lr": 0.01, "min_lr": 0.01, "warmup_lr": 0.01, "clip_norm": 0.5, "weight_decay": 0.5}
ADAM |= {"warmup_epochs": 0.0, "warmup_steps": RAMP}


def experiment(optimizer, *, devices=1, **changes):
    config = load_config(
        "epic_kitchens_100:smoke",
        {
            "model": MODEL,
            "losses.weights": {"contrastive": 0.0, "matching": 0.0, "masked_audio": 0.0},
            "data.frame_size_px": 16,
            "optimizer": ADAM | optimizer,
            "train.steps": TOTAL,
            **changes,
        },
    )
    return Experiment(config, devices=jax.devices()[:devices])


def batches_of(made, number):
    batches = made.train_batches()
    found = [meshes.to_device(next(batches), made.mesh) for _ in range(number)]
    batches.close()
    return found


def trained(made, number=TOTAL, start=None):
    """The states before and after each of so many steps, flat."""
    state, places = made.init_state()
    step = made.packed_step(places, state)
    state = step.pack(state if start is None else jax.device_put(start, places))
    done = int(state.step)
    states = [jax.device_get(step.unpack(state))]
    for batch in batches_of(made, number)[done:]:
        state, _ = step(state, batch, jax.random.key(0))
        states.append(jax.device_get(step.unpack(state)))
    return states


@pytest.fixture(scope="module")
def staged():
    return trained(experiment({"held": HELD, "held_steps": STEPS, "ema_decay": 0.5}))


def is_held(path):
    return any(re.search(pattern, path) for pattern in HELD)


def assert_same_way(found, expected, start):
    """Two trainings have moved each parameter alike, but for the sign of what is rounding."""
    for path, end in expected.items():
        if path.endswith("qkv/bias"):  # the gradient of the keys' bias is 0 but for rounding
            continue
        way = np.linalg.norm(end - start[path])
        assert np.linalg.norm(found[path] - end) <= 2e-3 * way + 1e-6, path


def reference(first):
    """The parameters after each step, by Optax for two groups of them, at the plain gradients.

    The second group has an optimiser that begins at the release.
    """
    made = experiment({})
    made.optimizer = optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads),
    )
    state, places = made.init_state()
    step = made.packed_step(places, state)
    params = dict(first)
    decay = {path: 0.5 * (np.sum(np.array(x.shape) > 1) > 1) for path, x in params.items()}
    held = {path for path in params if is_held(path)}
    adam = optax.scale_by_adam(0.9, 0.999)
    update = jax.jit(adam.update)
    groups = {False: params.keys() - held}
    moments = {False: adam.init({path: params[path] for path in groups[False]})}
    found = []
    for number, batch in enumerate(batches_of(made, TOTAL)):
        if number == STEPS:
            groups[True] = held
            moments[True] = adam.init({path: params[path] for path in held})
        now = replace(state, step=jnp.int32(number), params=jax.device_put(params, places.params))
        after, _ = step(step.pack(now), batch, jax.random.key(0))
        grads = step.unpack(after).opt_state
        grads = {path: grads[path] for names in groups.values() for path in names}
        norm = np.sqrt(sum(np.square(one).sum() for one in jax.device_get(grads).values()))
        assert norm > 0.5, "the case should clip"
        for late, names in groups.items():
            own = {path: grads[path] * 0.5 / norm for path in names}
            steps, moments[late] = update(own, moments[late])
            ramp = min(1.0, (number - STEPS + 1) / RAMP) if late else 1.0
            for path, one in jax.device_get(steps).items():
                params[path] = params[path] - 0.01 * ramp * (one + decay[path] * params[path])
        found.append(dict(params))
    return found


def test_each_step_by_plain_optax(staged):
    first = staged[0].params
    for number, expected in enumerate(reference(first), 1):
        found = staged[number].params
        assert_same_way(found, expected, first)
        for path in filter(is_held, first):
            assert np.array_equal(found[path], first[path]) == (number <= STEPS), path


def test_until_the_release_it_is_the_frozen_training(staged):
    frozen = trained(experiment({"frozen": HELD}), STEPS)[-1]
    assert_same_way(staged[STEPS].params, frozen.params, staged[0].params)
    # What is held has moments, and they are 0.
    (mu,) = (m for _, m in optax.tree_utils.tree_get_all_with_path(staged[STEPS].opt_state, "mu"))
    assert mu.keys() == staged[0].params.keys()
    assert not any(np.any(moment) for path, moment in mu.items() if is_held(path))


def test_the_average_follows(staged):
    average = staged[0].params
    for state in staged[1:]:
        average = {path: 0.5 * (one + state.params[path]) for path, one in average.items()}
        chex.assert_trees_all_close(state.ema, average, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("done", [1, STEPS])
def test_a_training_that_stopped_goes_on_bit_for_bit(staged, done):
    made = experiment({"held": HELD, "held_steps": STEPS, "ema_decay": 0.5})
    chex.assert_trees_all_equal(trained(made, TOTAL, staged[done])[-1], staged[-1])


def by_sgd(**changes):
    """First and last parameters."""
    rules = {"name": "sgd", "lr": 0.1, "min_lr": 0.1, "warmup_lr": 0.1}
    made = experiment({"held": HELD, "held_steps": STEPS, **rules}, **changes)
    states = trained(made, STEPS + 2)
    return states[0].params, states[-1].params


@pytest.fixture(scope="module")
def one_device():
    return by_sgd()


@pytest.mark.parametrize(
    "changes",
    [{"devices": 8, "mesh": {"fsdp": 2, "min_cut_mb": 0.0}}, {"train.accumulate": 2}],
    ids=["devices", "micro-batches"],
)
def test_devices_and_micro_batches_agree(one_device, changes):
    first, end = by_sgd(**changes)
    chex.assert_trees_all_close(first, one_device[0], rtol=1e-6)
    assert_same_way(end, one_device[1], first)


def test_the_state_is_that_of_a_training_without():
    with_held, without = (
        experiment(optimizer).birth.shapes
        for optimizer in ({"held": HELD, "held_steps": STEPS}, {})
    )
    assert jax.tree.structure(with_held) == jax.tree.structure(without)
    chex.assert_trees_all_equal_shapes_and_dtypes(with_held, without)


@pytest.mark.parametrize(
    ("accumulate", "frozen"), [(1, ("^audio_encoder/blocks/0/",)), (2, ())], ids=["frozen", "parts"]
)
def test_no_gradient_is_computed_of_what_is_held(accumulate, frozen):
    def program(optimizer):
        changes = {"train.accumulate": accumulate, "model.num_blocks": 1}
        made = experiment({"frozen": frozen} | optimizer, **changes)
        return jax.jit(made.step).trace(*packed_arguments(made)).jaxpr.jaxpr

    parts = ("^audio_encoder/",)
    whole, first = (
        flops.of_step(branch.jaxpr)[0]
        for one in program({"held": parts, "held_steps": 1}).eqns
        if one.primitive.name == "cond"
        for branch in one.params["branches"]
    )
    assert first == flops.of_step(program({"frozen": parts}))[0] < 0.65 * whole
    assert whole == flops.of_step(program({}))[0]


def packed_arguments(made):
    """Shapes of what the step takes in a training."""
    birth = made.birth
    step = made.packed_step(birth.shardings, birth.shapes)
    _, batch, key = step_arguments(made, 8)
    return jax.eval_shape(step.pack, birth.shapes), batch, key


# A tower whose layers 0 and 1 are held, a matrix that is, and two parameters that are not.
SHAPES = {f"blocks/{i}/w": (130, 128) for i in range(3)}
SHAPES |= {f"blocks/{i}/b": (3,) for i in range(3)} | {"late": (128, 140), "a": (2, 3), "c": (4,)}
LATE = ("^blocks/[01]/", "^late$")


@pytest.mark.parametrize("packed", [False, True], ids=["flat", "packed"])
@pytest.mark.parametrize("name", ["adamw", "adafactor", "lion", "sgd"])
def test_optimisers_begin_anew_at_the_release(name, packed):
    late = {path for path in SHAPES if any(re.search(one, path) for one in LATE)}
    rng = np.random.default_rng(0)
    params = {path: rng.normal(size=shape).astype("f4") for path, shape in SHAPES.items()}
    shapes = jax.eval_shape(lambda: params)
    packing = Packing({"blocks": 3}, shapes, {})
    common = {"name": name, "warmup_epochs": 0.0, "clip_norm": 0.0, "weight_decay": 0.1}
    held = OptimizerConfig(**common, held=LATE, held_steps=40, warmup_steps=4)
    hold = make_hold(held, shapes, packing, total_steps=99, pace=Pace(1, 1))
    rate = optax.constant_schedule(0.1)
    optimizer = make_optimizer(held, rate, shapes, packing, hold)
    plain = make_optimizer(OptimizerConfig(**common), rate, shapes, Packing({}, shapes, {}))
    close, open_ = (packing.pack, packing.unpack) if packed else (dict, dict)
    state = jax.tree.map(
        lambda node: close(node) if isinstance(node, dict) else node,
        optimizer.init(params),
        is_leaf=lambda node: isinstance(node, dict),
    )
    update = jax.jit(optimizer.update)
    early = {path: params[path] for path in params.keys() - late}
    others = {path: params[path] for path in late}
    early_state, late_state = plain.init(early), plain.init(others)
    for number in range(46):
        grads = {path: rng.normal(size=one.shape).astype("f4") for path, one in params.items()}
        own = {p: grads[p] if number >= 40 or p not in late else 0 * grads[p] for p in grads}
        found, state = update(close(own), state, close(params))
        expected, early_state = plain.update({p: grads[p] for p in early}, early_state, early)
        if number < 40:
            expected |= {path: np.zeros(shapes[path].shape) for path in late}
        else:
            more, late_state = plain.update({p: grads[p] for p in late}, late_state, others)
            expected |= {p: min(1.0, (number - 39) / 4) * one for p, one in more.items()}
        # Adam's corrections are differences from 1 in float32.
        chex.assert_trees_all_close(open_(found), expected, rtol=2e-4, atol=1e-6)


def test_the_rate_of_what_is_held():
    hold = experiment({"held": HELD, "held_steps": STEPS}).hold
    assert [float(hold.rate(step)) for step in range(5)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    at_once = experiment({"held": HELD, "held_steps": STEPS, "warmup_steps": 0}).hold
    assert [float(at_once.rate(step)) for step in range(4)] == [0.0, 0.0, 1.0, 1.0]
    # Eight clips a step, and one step an epoch.
    for length in ({"held_examples": 16}, {"held_epochs": 2.0}):
        assert experiment({"held": HELD, **length}).hold.steps == 2
    assert experiment({}).hold is None


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        ({"held": ("^audio_encodr/",), "held_steps": 1}, "held: '.audio_encodr/' matches no param"),
        ({"held": ("(",), "held_steps": 1}, r"held: '\(' is no regular expression"),
        ({"held": HELD}, r"held is \(.*\) without a length; give config.optimizer.held_epochs"),
        ({"held_epochs": 1.5}, "held_epochs is 1.5 and held is empty; give held .* held_epochs=0"),
        ({"held": HELD, "held_steps": 1, "held_epochs": 1.0}, "held_steps is 1 and held_epochs 1"),
        ({"held": HELD, "held_steps": 5}, "held_steps is 5, that is 5 steps of a training of 5"),
        ({"held": HELD, "held_steps": 1, "frozen": HELD}, "all that it matches is frozen"),
        ({"held": (".*",), "held_steps": 1}, "leaves no parameter to train in the first part"),
    ],
)
def test_what_makes_no_sense_is_refused(optimizer, words):
    with pytest.raises(UserError, match=words):
        _ = experiment(optimizer).optimizer
