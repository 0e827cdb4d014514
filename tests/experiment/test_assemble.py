"""The parts that an experiment builds do what the config says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import avt_jax
from avt_jax import axes
from avt_jax.experiment import assemble
from avt_jax.training.state import TrainState


@pytest.mark.parametrize("with_ema", [True, False])
def test_evaluations_use_the_average_where_there_is_one(monkeypatch, with_ema):
    """Parameters that always choose class 0, and an average that always chooses class 1."""

    def make_predict(skeleton, normalisation, multi_label):
        def predict(params, stats, batch):
            number = batch[axes.VALID].shape[0]
            return {"label": jnp.broadcast_to(params["chosen"], (number, 3))}

        return predict

    monkeypatch.setattr(assemble, "make_predict", make_predict)
    config = avt_jax.load_config(
        "quickstart:smoke", {"data.path": "generated:20:label=3", "train.eval_batch_size": 8}
    )
    experiment = assemble.Experiment(config)
    by_params, by_average = jax.nn.one_hot(jnp.array([0, 1]), 3)
    average = {"chosen": by_average} if with_ema else {}
    metrics, score = experiment.evaluate(
        TrainState(jnp.int32(1), {"chosen": by_params}, {}, average, {}), lambda: 0
    )
    val = experiment.splits.val
    labels = np.array([val[index]["labels"]["label"] for index in range(len(val))])
    shares = [np.mean(labels == chosen) for chosen in (0, 1)]
    assert len(labels) == 20 and shares[0] != shares[1], "the case tells the two apart"
    assert metrics["top1/label"] == score == pytest.approx(shares[int(with_ema)])
