"""Classes of unequal size in a training: what is refused, and that the config reaches the data."""

import contextlib
import itertools

import numpy as np
import pytest

import avt_jax
from avt_jax.axes import LABELS
from avt_jax.errors import UserError
from avt_jax.experiment.assemble import Experiment

SIZES = (15, 4, 1)


def own_records(sizes=SIZES):
    """Clips of noise, each class by itself."""
    rng = np.random.default_rng(0)
    return [
        avt_jax.record_from_arrays(
            rng.integers(0, 256, (4, 40, 40, 3), np.uint8),
            frame_rate_hz=4.0,
            waveform=rng.normal(0, 0.1, 16000),
            labels={"label": label},
            id=f"{label}-{number}",
        )
        for label, size in enumerate(sizes)
        for number in range(size)
    ]


def experiment(changes, *, train=None):
    config = avt_jax.load_config(
        "quickstart:smoke", {"model.modalities": "audio", "train.batch_size": 8, **changes}
    )
    train = own_records() if train is None else train
    data = avt_jax.OwnData({"label": ["many", "few", "one"]}, train)
    return Experiment(config, data=data)


def test_own_clips_are_drawn_class_by_class():
    made = experiment({"data.balance": "label"})
    with contextlib.closing(made.train_batches()) as batches:
        labels = [batch[LABELS]["label"] for batch in itertools.islice(batches, 15)]
    counts = np.bincount(np.concatenate(labels), minlength=3)
    assert counts.sum() == 120 and counts.tolist() == [40, 40, 40]  # six epochs of 20


def test_a_set_that_is_none_is_refused_before_anything_is_written(tmp_path):
    made = experiment({"data.balance": "lable"})
    with pytest.raises(UserError, match=r"config.data.balance is 'lable'.*'label'"):
        avt_jax.train(made, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_batches_cannot_be_balanced():
    made = experiment({"data.balance": "label"}, train=iter([]))
    with pytest.raises(UserError, match=r"OwnData.train gives batches"):
        made.check_batches()
