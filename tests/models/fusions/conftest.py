"""Tokens for the tests of the fusions."""

import jax.numpy as jnp
import pytest
from fusion_inputs import DIM


@pytest.fixture
def video_bnd(rng):
    return jnp.asarray(rng.normal(size=(2, 5, DIM)), jnp.float32)


@pytest.fixture
def audio_bmd(rng):
    return jnp.asarray(rng.normal(size=(2, 7, DIM)), jnp.float32)
