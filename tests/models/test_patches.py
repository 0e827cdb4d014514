"""Patches cut out and hidden, against slices written out."""

import jax.numpy as jnp
import numpy as np
import pytest

from avt_jax.models.patches import hide_pixels, spectrogram_patches, video_patches


@pytest.mark.parametrize(("strides", "grid"), (((16, 16), (2, 3)), ((10, 7), (2, 4))))
def test_spectrogram_patches_are_frequency_major(rng, strides, grid):
    fbank = rng.normal(size=(2, 48, 32))
    found = spectrogram_patches(jnp.asarray(fbank), grid, strides)
    assert found.shape == (2, grid[0] * grid[1], 256)
    for row in range(grid[0]):
        for column in range(grid[1]):
            bins = slice(row * strides[0], row * strides[0] + 16)
            frames = slice(column * strides[1], column * strides[1] + 16)
            np.testing.assert_array_equal(
                found[:, row * grid[1] + column].reshape(2, 16, 16),
                fbank[:, frames, bins].transpose(0, 2, 1).astype(np.float32),
            )


def test_video_patches_are_row_major(rng):
    video = rng.normal(size=(1, 4, 6, 9, 3)).astype(np.float32)
    found = video_patches(jnp.asarray(video), (2, 3, 4))  # the last column of pixels fills none
    assert found.shape == (1, 24, 2 * 2 * 2 * 3)
    number = 1 * 12 + 2 * 4 + 3
    np.testing.assert_array_equal(found[0, number].reshape(2, 2, 2, 3), video[0, 2:4, 4:6, 6:8])


def test_hidden_pixels_are_those_of_the_patches(rng):
    video = jnp.asarray(rng.normal(size=(2, 4, 5, 4, 3)), jnp.float32)
    grid = (2, 2, 2)
    masked = jnp.asarray(rng.random((2, 8)) < 0.5)
    colour = jnp.array([7.0, 8.0, 9.0])
    hidden = hide_pixels(video, masked, grid, colour)
    patches = video_patches(hidden, grid).reshape(2, 8, -1, 3)
    np.testing.assert_array_equal((patches == colour).all((2, 3)), masked)
    np.testing.assert_array_equal(hidden[:, :, 4], video[:, :, 4])  # fills no patch, stays
    np.testing.assert_array_equal(hide_pixels(video, jnp.zeros((2, 8), bool), grid, colour), video)
