"""The objective: weights, terms that are off, and mistakes in the config."""

import dataclasses
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.losses import contrastive
from avt_jax.losses.objective import TERMS, Objective, ObjectiveConfig, Weights, saved_weights
from avt_jax.settings import fields_of


def config(weights=None, **changes):
    """Only the terms that are named have a weight."""
    given = {"classification": 1.0, "contrastive": 0.5} if weights is None else weights
    return ObjectiveConfig.of(
        {"weights": saved_weights(given), "label_smoothing": 0.0, **changes},
    )


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
    axes.HAS_VIDEO: jnp.ones(2, bool),
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
    objective = Objective(config(), warmup_steps=4)
    contrastive = 0.5 * (np.log(np.exp(2) + 1) - 2)
    for step, share in ((0, 0.0), (1, 0.25), (4, 1.0), (9, 1.0)):
        total, _ = objective(Answers(), BATCH, step)
        np.testing.assert_allclose(total, np.log(4) + share * contrastive, rtol=1e-6)
    np.testing.assert_allclose(objective(Answers(), BATCH)[0], np.log(4), rtol=1e-6)


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


@pytest.mark.parametrize("missing", [axes.HAS_AUDIO, axes.HAS_VIDEO])
def test_a_clip_without_sound_or_picture_is_no_pair(missing):
    batch = BATCH | {missing: jnp.array([True, False])}
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
        (dict(weights={"classification": -1.0}), "give a number of 0 or more for each name"),
        (dict(weights={"classification": float("nan")}), "nan"),
        (dict(label_smoothing=1.0), "label_smoothing is 1.0; give a number of 0 or more and below"),
        (dict(temperature_min=0.0), "temperature_min is 0.0; give a number above 0"),
        (dict(temperature_min=0.6), "temperature_min is 0.6 and temperature_max 0.5; give bounds"),
        (dict(contrastive_form="sigmod"), r"did you mean 'sigmoid'\?"),
        (dict(warmup_steps=-1), "warmup_steps is -1"),
        (dict(label_smoothin=0.1), r"did you mean 'label_smoothing'\?"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        config(**changes)


def test_a_weight_that_is_not_given_has_its_default_but_none_in_a_saved_run():
    defaults = {name: weight for name, (_, weight) in TERMS.items()}
    assert ObjectiveConfig().weights == defaults
    found = ObjectiveConfig.of({"weights": {"contrastive": 0.25}}).weights
    assert found == defaults | {"contrastive": 0.25}
    assert saved_weights({"contrastive": 0.25}) == dict.fromkeys(TERMS, 0.0) | {"contrastive": 0.25}


def test_a_new_term_is_a_line_and_brings_its_own_fields():
    # In another process, for the registry is read when the block is made.
    code = """
import dataclasses
from avt_jax.losses import contrastive, interface
from avt_jax.settings import Block, setting, fields_of

@dataclasses.dataclass(frozen=True)
class Options(Block, where="config.losses"):
    tilt: float = setting(0.5, "how much", at_least=0)

    def check(self):
        if self.tilt == 3:
            raise ValueError("three")

def compute(forward, batch, options):
    return {"tilted": (forward.logits["label"].sum() * options.tilt, 2.0)}

original = contrastive.TERM
contrastive.TERM = interface.Term(compute, Options, needs="tilt", advice="tilt it or ")
from avt_jax.errors import UserError
from avt_jax.losses.objective import TERMS, Objective, ObjectiveConfig
names = [field.name for field in fields_of(ObjectiveConfig)]
assert "tilt" in names and "label_smoothing" in names and len(names) == len(set(names))
# Matching goes on to have what it shares with the term that is gone.
assert "temperature_min" in names
config = ObjectiveConfig.of({"tilt": 2.0})
assert config.tilt == 2.0 and config.where == "config.losses"
try:
    Objective(config, abilities=("match", "reconstruct audio"))
except UserError as error:
    assert "contrastive is 0.5, but this model cannot tilt; tilt it or give 0." in str(error)
else:
    raise AssertionError("not refused")
try:
    ObjectiveConfig.of({"tilt": 3})
except ValueError as error:
    assert str(error) == "three"
else:
    raise AssertionError("not checked")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_terms_fields_do_not_collide():
    blocks = {term.options for term, _ in TERMS.values() if term.options} | {Weights}
    own = [field.name for block in blocks for field in dataclasses.fields(block)]
    # Those of the contrastive term are once more in matching, which extends them.
    shared = {field.name for field in dataclasses.fields(contrastive.Options)}
    assert sorted(own) == sorted([*{f.name for f in fields_of(ObjectiveConfig)}, *shared])


def test_nothing_to_train_on():
    with pytest.raises(UserError, match="no loss is left"):
        Objective(config({"contrastive": 0.5}), modalities="video")
