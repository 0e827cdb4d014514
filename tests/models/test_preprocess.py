"""Normalisation on the device against its definition."""

import numpy as np

from avt_jax.models.preprocess import normalise_video, standardise_audio


def test_video(rng):
    video = rng.integers(0, 256, size=(1, 2, 3, 3, 3), dtype=np.uint8)
    mean, std = (0.4, 0.45, 0.5), (0.2, 0.225, 0.25)
    got = normalise_video(video, mean, std)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (video / 255 - mean) / std, atol=1e-5)


def test_audio_divides_by_two_standard_deviations(rng):
    fbank = rng.normal(-4, 4, size=(2, 5, 3)).astype(np.float16)
    got = standardise_audio(fbank, -4.27, 4.57)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (fbank.astype(np.float64) + 4.27) / 9.14, atol=1e-5)
