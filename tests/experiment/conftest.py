"""These tests train on one of the eight simulated devices: tests/integration compares them."""

import functools

import jax
import pytest

from avt_jax.training import mesh as meshes


@pytest.fixture(scope="module", autouse=True)
def one_device():
    with pytest.MonkeyPatch.context() as patch:
        make_mesh = meshes.make_mesh

        @functools.wraps(make_mesh)
        def on_one(config, devices=None):
            return make_mesh(config, jax.devices()[:1] if devices is None else devices)

        patch.setattr(meshes, "make_mesh", on_one)
        yield
