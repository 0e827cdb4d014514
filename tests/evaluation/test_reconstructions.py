"""Hidden patches put back in their places, and the picture of them."""

import numpy as np
import pytest
from matplotlib.image import imread

from avt_jax.evaluation.reconstructions import (
    Hidden,
    draw_reconstructions,
    restore,
    spectrogram_corners,
    video_corners,
)


def normalised(patches):
    return (patches - patches.mean(-1, keepdims=True)) / np.sqrt(
        patches.var(-1, keepdims=True) + 1e-6
    )


@pytest.fixture
def spectrogram(rng):
    """Two clips of 4 frames x 6 bins, in 3 rows of 2 patches of 2 x 2."""
    original = rng.normal(size=(2, 4, 6))
    starts = spectrogram_corners((3, 2), (2, 2))
    patches = np.stack(
        [original[:, s : s + 2, f : f + 2].transpose(0, 2, 1).reshape(2, 4) for s, f in starts], 1
    )
    masked = np.zeros((2, 6), bool)
    masked[0, 3] = masked[1] = True
    return Hidden(["a", "b"], original, normalised(patches), patches, masked, starts, (2, 2))


def test_corners():
    assert spectrogram_corners((2, 3), (10, 16)) == [
        (0, 0),
        (16, 0),
        (32, 0),
        (0, 10),
        (16, 10),
        (32, 10),
    ]
    assert video_corners((2, 1, 2), (2, 8, 8)) == [(0, 0, 0), (0, 0, 8), (2, 0, 0), (2, 0, 8)]


def test_a_perfect_prediction_restores_the_original(spectrogram):
    shown, restored = restore(spectrogram)
    np.testing.assert_allclose(restored, spectrogram.original, atol=1e-9)
    # Patch 3 is the second in time of the second row: frames 2 and 3, bins 2 and 3.
    assert np.isnan(shown[0, 2:4, 2:4]).all() and np.isnan(shown[0]).sum() == 4
    assert np.isnan(shown[1]).all()


def test_overlapping_predictions_are_averaged():
    original = np.zeros((1, 3, 2))
    target = np.stack([np.zeros((1, 4)), np.ones((1, 4))], 1)
    hidden = Hidden(
        ["a"],
        original,
        np.zeros((1, 2, 4)),
        target,
        np.ones((1, 2), bool),
        [(0, 0), (1, 0)],
        (2, 2),
    )
    np.testing.assert_allclose(restore(hidden)[1][0], [[0, 0], [0.5, 0.5], [1, 1]])


def test_video_and_the_picture(rng, tmp_path, spectrogram):
    original = rng.normal(size=(1, 4, 4, 4, 3))
    starts = video_corners((2, 2, 2), (2, 2, 2))
    patches = np.stack(
        [original[:, t : t + 2, y : y + 2, x : x + 2].reshape(1, 24) for t, y, x in starts], 1
    )
    masked = rng.random((1, 8)) < 0.5
    hidden = Hidden(["clip$"], original, normalised(patches), patches, masked, starts, (2, 2, 2))
    shown, restored = restore(hidden)
    np.testing.assert_allclose(restored, original, atol=1e-9)
    assert np.isnan(shown).sum() == masked.sum() * 24
    for name, value in (("video", hidden), ("audio", spectrogram)):
        draw_reconstructions(tmp_path / f"{name}.png", value, title=name)
        assert imread(tmp_path / f"{name}.png").std() > 0.05
