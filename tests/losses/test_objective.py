"""The objective: weights, terms that are off, and mistakes in the config."""

import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.losses.objective import Objective, ObjectiveConfig


def config(**changes):
    defaults = dict(
        weights={"classification": 1.0, "contrastive": 0.5},
        label_smoothing=0.0,
        temperature_min=0.01,
        temperature_max=0.5,
        contrastive_form="softmax",
        matching_same_label=False,
        warmup_steps=0,
    )
    return ObjectiveConfig(**(defaults | changes))


class Answers:
    """A `Forward` that remembers what it was asked for."""

    modality_logits = ()

    def __init__(self):
        self.asked = []

    @property
    def logits(self):
        self.asked.append("logits")
        return {"label": jnp.zeros((2, 4))}

    @property
    def embeddings(self):
        self.asked.append("embeddings")
        return jnp.eye(2), jnp.eye(2)

    @property
    def log_temperature(self):
        return jnp.log(0.5)


BATCH = {
    axes.LABELS: {"label": jnp.array([0, 1])},
    axes.VALID: jnp.ones(2, bool),
    axes.HAS_AUDIO: jnp.ones(2, bool),
    axes.GROUP: jnp.array([0, 1]),
}


def test_weighted_sum():
    total, metrics = Objective(config())(Answers(), BATCH)
    expected = np.log(4) + 0.5 * (np.log(np.exp(2) + 1) - 2)
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert metrics["loss"][0] == total and metrics["contrastive"][1] == 2


def test_a_model_that_classifies_each_modality_is_trained_on_the_mean_of_their_losses():
    forward = Answers()
    # One modality is certain and right about both clips, the other knows nothing.
    right = 20.0 * jnp.eye(2, 4)
    forward.modality_logits = [{"label": right}, {"label": jnp.zeros((2, 4))}]
    weights = {"classification": 1.0}
    total, metrics = Objective(config(weights=weights))(forward, BATCH)
    np.testing.assert_allclose(total, np.log(4) / 2, rtol=1e-6)
    # Accuracy is that of the joint logits: all equal, so the first class.
    assert metrics["top1/label"] == (1, 2)


def test_a_model_that_lacks_something():
    with pytest.raises(UserError, match="contrastive is 0.5, but this model cannot project"):
        Objective(config(), abilities=())
    Objective(config(weights={"classification": 1.0, "contrastive": 0.0}), abilities=())
    masked = config(weights={"masked_audio": 0.1})
    with pytest.raises(UserError, match="cannot reconstruct audio; put 'audio' into config.model"):
        Objective(masked, abilities=("project", "match", "reconstruct video"))
    assert Objective(masked, abilities=("reconstruct audio",)).hides == ("audio",)


def test_the_other_weights_grow_from_nothing():
    objective = Objective(config(warmup_steps=4))
    contrastive = 0.5 * (np.log(np.exp(2) + 1) - 2)
    for step, share in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
        total, _ = objective(Answers(), BATCH, step)
        np.testing.assert_allclose(total, np.log(4) + share * contrastive, rtol=1e-6)


def test_a_modality_that_is_missing_cannot_be_hidden_or_compared():
    weights = {"classification": 1.0, "matching": 0.1, "masked_audio": 0.1, "masked_video": 0.1}
    objective = Objective(config(weights=weights), modalities="audio")
    assert objective.skipped == ("matching", "masked_video") and objective.hides == ("audio",)


def test_a_term_that_is_off_asks_for_nothing():
    forward = Answers()
    _, metrics = Objective(config(weights={"classification": 1.0, "contrastive": 0.0}))(
        forward, BATCH
    )
    assert forward.asked == ["logits"] and "contrastive" not in metrics
    forward = Answers()
    Objective(config(weights={"classification": 0.0, "contrastive": 1.0}))(forward, BATCH)
    assert forward.asked == ["embeddings"]


def test_a_clip_without_audio_is_no_pair():
    batch = BATCH | {axes.HAS_AUDIO: jnp.array([True, False])}
    _, metrics = Objective(config())(Answers(), batch)
    np.testing.assert_allclose(metrics["contrastive"], (0.0, 1.0), atol=1e-6)
    assert metrics["classification"][1] == 2


def test_one_modality_leaves_the_contrastive_term_out():
    objective = Objective(config(), modalities="audio")
    assert objective.skipped == ("contrastive",) and list(objective.weights) == ["classification"]


@pytest.mark.parametrize(
    "changes,message",
    [
        (dict(weights={"contrastiv": 1.0}), "did you mean 'contrastive'"),
        (dict(weights={"classification": -1.0}), "-1.0"),
        (dict(weights={"classification": float("nan")}), "nan"),
        (dict(label_smoothing=1.0), "label_smoothing is 1.0"),
        (dict(temperature_min=0.6), "0.6"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        config(**changes)


def test_nothing_to_train_on():
    with pytest.raises(UserError, match="no loss is left"):
        Objective(config(weights={"contrastive": 0.5}), modalities="video")
