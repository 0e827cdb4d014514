"""A loss whose weight is 0 costs nothing: its operations are not in the step."""

import pytest

from avt_jax.experiment.config import load_config
from avt_jax.experiment.cost import profile_config

WEIGHTS = {"classification": 1.0, "contrastive": 0.5, "matching": 0.1, "masked_audio": 0.01}


def step_flops(off=None):
    weights = WEIGHTS | ({off: 0.0} if off else {})
    config = load_config("kinetics_sounds:smoke", {"losses.weights": weights})
    found = profile_config(
        config, {"label": 3}, batch_size=4, forward_memory=False, training_memory=False
    )
    return found.step_flops


@pytest.fixture(scope="module")
def with_all():
    return step_flops()


# Least share of the step that goes with the term. Without the contrastive term its embeddings
# stay, as mining needs them; what goes is the loss over the batch.
@pytest.mark.parametrize(
    ("term", "share"), (("contrastive", 0.0), ("matching", 0.05), ("masked_audio", 0.05))
)
def test_turning_a_term_off_takes_its_operations_away(with_all, term, share):
    assert step_flops(off=term) < (1 - share) * with_all
