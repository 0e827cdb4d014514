"""Adding up (sum, count) metrics, and finding the one that is not finite."""

import numpy as np
import pytest

from avt_jax.training.metrics import Mean, not_finite


def test_means_weigh_by_count():
    mean = Mean()
    mean.add({"loss": (6.0, 2), "top1": (1, 4)})
    mean.add({"loss": (1.0, 1), "empty": (0.0, 0)})
    assert mean.pop() == {"loss": pytest.approx(7 / 3), "top1": 0.25}
    assert mean.pop() == {}


def test_not_finite_names_terms_before_the_total():
    metrics = {"loss": (np.nan, 1), "top1": (1.0, 2), "contrastive": (np.inf, 2)}
    assert not_finite(metrics) == ["contrastive", "loss"]
    assert not_finite({"loss": (np.float32(1), 1)}) == []
