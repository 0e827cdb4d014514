"""Lengths and intervals of a training in steps, examples and epochs."""

import pytest

from avt_jax.errors import UserError
from avt_jax.training.durations import Pace
from avt_jax.training.loop import Schedule, TrainConfig

# 100 clips are 3 steps of 32 clips an epoch.
CLIPS = 100


def config(**changes):
    return TrainConfig(**({"batch_size": 32} | changes))


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"epochs": 1.5}, 4),  # 4.5, rounded to the even one
        ({"epochs": 2.0}, 6),
        ({"epochs": 0.01}, 1),
        ({"steps": 7}, 7),
        ({"examples": 320}, 10),
        ({"examples": 1}, 1),
        ({"epochs": 0.0}, 1),
    ],
)
def test_length_of_a_training(fields, steps):
    assert config(**fields).schedule(CLIPS).total_steps == steps


def test_pace():
    assert config().pace(CLIPS) == Pace(batch_size=32, steps_per_epoch=3)
    assert config().pace(5) == Pace(32, 1), "fewer clips than a batch"


def test_intervals():
    found = config(
        steps=50, log_every_steps=0, log_every_epochs=0.5, checkpoint_every_examples=640
    ).schedule(CLIPS)
    # Evaluations are once an epoch where nothing is said of them.
    assert found == Schedule(total_steps=50, log_every=2, eval_every=3, checkpoint_every=20)
    found = config(eval_every_steps=10, epochs=1).schedule(CLIPS)
    assert (found.eval_every, found.checkpoint_every, found.log_every) == (10, 0, 50)
    found = config(log_every_examples=1, eval_every_epochs=0.1).schedule(CLIPS)
    assert (found.log_every, found.eval_every) == (1, 1), "at least a step"


def test_what_is_due_when():
    schedule = Schedule(total_steps=10, log_every=3, eval_every=4, checkpoint_every=5)
    steps = range(1, 11)
    assert [n for n in steps if schedule.logs(n)] == [3, 6, 9, 10]
    assert [n for n in steps if schedule.evaluates(n)] == [4, 8, 10]
    assert [n for n in steps if schedule.checkpoints(n)] == [4, 5, 8, 10]
    without = Schedule(total_steps=10, log_every=3, eval_every=4, checkpoint_every=0)
    assert [n for n in steps if without.checkpoints(n)] == [4, 8, 10]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 5, "examples": 64}, "config.train.steps is 5 and examples 64; give one of them"),
        ({"eval_every_steps": 5, "eval_every_epochs": 1.0}, "eval_every_steps is 5 and"),
        ({"log_every_steps": 0}, "config.train.log_every_steps is 0; give 1 or more"),
        ({"batch_size": 0}, "config.train.batch_size is 0"),
        ({"eval_batch_size": 0}, "config.train.eval_batch_size is 0"),
        ({"keep_last": 0}, "config.train.keep_last is 0"),
        ({"epochs": -1.0}, "config.train.epochs is -1.0"),
        ({"keep_best": -1}, "config.train.keep_best is -1"),
    ],
)
def test_bad_lengths_are_named(fields, message):
    with pytest.raises(UserError, match=message):
        config(**fields)
