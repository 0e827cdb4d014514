"""The learning rate in the log is the schedule's, and the one that the optimiser took."""

import os
import signal

import numpy as np
import pytest
from toy_run import Linear, every, linear_step, logged, restored, run, warmup_and_cosine

from avt_jax.training.durations import Pace
from avt_jax.training.optimizer import OptimizerConfig, learning_rate_schedule, make_optimizer
from avt_jax.tree import Skeleton
from avt_jax.tree.stacks import Packing

TOTAL = 12
LR, START, END = 0.5, 0.02, 0.01


def made(*, total=TOTAL, **warmup):
    """(schedule, plain SGD under it): a step moves a parameter by rate x gradient."""
    config = OptimizerConfig(
        name="sgd",
        lr=LR,
        warmup_lr=START,
        min_lr=END,
        weight_decay=0.0,
        momentum=0.0,
        clip_norm=0.0,
        **({"warmup_epochs": 0.0} | warmup),
    )
    rate = learning_rate_schedule(config, total_steps=total, pace=Pace(8, steps_per_epoch=2))
    params = Skeleton(Linear).params
    return rate, make_optimizer(config, rate, params, Packing({}, params, {}))


def by_hand(step, *, warmup_steps, total=TOTAL):
    """Rate of step 1, 2 .. total."""
    return warmup_and_cosine(
        step - 1, lr=LR, start=START, end=END, warmup_steps=warmup_steps, total=total
    )


@pytest.mark.parametrize(
    ("warmup", "warmup_steps"),
    [
        ({}, 0),
        ({"warmup_epochs": 2.0}, 4),
        ({"warmup_epochs": 1.75}, 4),  # 3.5 steps
        ({"warmup_steps": 3}, 3),
        ({"warmup_examples": 40}, 5),
        # The last step is at the peak, and the only one there.
        ({"warmup_epochs": 100.0}, TOTAL - 1),
    ],
    ids=["none", "epochs", "part of an epoch", "steps", "examples", "longer than the training"],
)
def test_every_logged_rate_is_the_one_of_its_step(tmp_path, warmup, warmup_steps):
    rate, optimizer = made(**warmup)
    state, step = linear_step(optimizer)
    weights = []

    def evaluate(state, asked):
        weights.append(float(state.params["w"][0]))
        return {}, 0.0

    schedule = every(TOTAL, log=1, evaluate=1, checkpoint=0)
    run(tmp_path, state, step, schedule=schedule, learning_rate=rate, evaluate=evaluate)
    entries = logged(tmp_path, "train")
    assert [entry["step"] for entry in entries] == list(range(1, TOTAL + 1))
    expected = [by_hand(n, warmup_steps=warmup_steps) for n in range(1, TOTAL + 1)]
    np.testing.assert_allclose([entry["lr"] for entry in entries], expected, rtol=1e-5)
    # The gradient of step n is n: what the weight moved by tells the rate that was applied.
    moved = -np.diff([1.0, *weights]) / np.arange(1, TOTAL + 1)
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-6)


def test_the_peak_is_reached_and_the_rate_falls_towards_the_end(tmp_path):
    rate, optimizer = made(warmup_epochs=2.0)
    state, step = linear_step(optimizer)
    run(tmp_path, state, step, schedule=every(TOTAL, log=1), learning_rate=rate)
    rates = [entry["lr"] for entry in logged(tmp_path, "train")]
    assert rates[0] == pytest.approx(START) and max(rates) == rates[4] == pytest.approx(LR)
    assert rates[:5] == sorted(rates[:5]) and rates[4:] == sorted(rates[4:], reverse=True)
    # The last step is one short of the end of the cosine.
    assert END < rates[-1] < END + 0.05 * (LR - END)


@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_last_step_of_a_short_training_with_a_warm_up(tmp_path, total):
    rate, optimizer = made(warmup_epochs=50.0, total=total)
    state, step = linear_step(optimizer)
    schedule = every(total, log=7)
    run(tmp_path, state, step, schedule=schedule, learning_rate=rate)
    (entry,) = logged(tmp_path, "train")
    assert entry["step"] == total and entry["lr"] == pytest.approx(LR)


def test_a_resumed_run_goes_on_with_the_schedule(tmp_path):
    """Stopped by a signal in the evaluation of step 4, in the middle of a logging interval."""
    rate, optimizer = made(warmup_epochs=3.0)
    first, step = linear_step(optimizer)
    schedule = every(TOTAL, log=3, evaluate=4, checkpoint=0)

    def stop(state, asked):
        os.kill(os.getpid(), signal.SIGTERM)
        return {}, 0.0

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, first, step, schedule=schedule, learning_rate=rate, evaluate=stop)
    state, position = restored(tmp_path, first)
    assert int(state.step) == 4 and position == {"batches": 4}
    final = run(tmp_path, state, step, schedule=schedule, learning_rate=rate)
    entries = logged(tmp_path, "train")
    assert [entry["step"] for entry in entries] == [3, 6, 9, 12]
    expected = [by_hand(n, warmup_steps=6) for n in range(1, TOTAL + 1)]
    np.testing.assert_allclose([entry["lr"] for entry in entries], expected[2::3], rtol=1e-5)
    # And the optimiser's own count went on: the weight is where all twelve rates take it.
    moved = np.dot(expected, np.arange(1, TOTAL + 1))
    assert float(final.params["w"][0]) == pytest.approx(1 - moved, rel=1e-5)
