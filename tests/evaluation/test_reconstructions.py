"""Hidden patches put back in their places, and the picture of them."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from pictures import (
    colliding,
    cut_off,
    figures_fixture,  # noqa: F401
    has_blank_edge,
    like,
    read_png,
    region,
)

from avt_jax.evaluation.reconstructions import (
    Hidden,
    clip_label,
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


@pytest.fixture
def video(rng):
    """A clip of 4 frames of 4 x 4 pixels; half of its 8 tubelets hidden."""
    original = rng.normal(size=(1, 4, 4, 4, 3))
    starts = video_corners((2, 2, 2), (2, 2, 2))
    patches = np.stack(
        [original[:, t : t + 2, y : y + 2, x : x + 2].reshape(1, 24) for t, y, x in starts], 1
    )
    masked = np.array([[0, 1, 1, 0, 1, 0, 0, 1]], bool)
    return Hidden(["clip$"], original, normalised(patches), patches, masked, starts, (2, 2, 2))


def test_video(video):
    shown, restored = restore(video)
    np.testing.assert_allclose(restored, video.original, atol=1e-9)
    assert np.isnan(shown).sum() == 4 * 24


GREY = "#9ca3af"


def middles(figure, axes, rows, columns):
    """Colours of a picture's cells [rows, columns, 3], in their middle."""
    image_hwc = region(figure, axes)
    y, x = ((np.arange(n) + 0.5) / n for n in (rows, columns))
    return image_hwc[np.ix_((y * len(image_hwc)).astype(int), (x * image_hwc.shape[1]).astype(int))]


def test_picture_of_a_spectrogram(tmp_path, figures, spectrogram):
    path = tmp_path / "audio.png"
    draw_reconstructions(path, spectrogram, title="audio")
    (figure,) = figures
    assert len(figure.axes) == 6 and has_blank_edge(read_png(path))
    assert cut_off(figure) == [] and colliding(figure) == []
    original, shown, restored = (middles(figure, axes, 6, 4) for axes in figure.axes[:3])
    # Time goes to the right and frequency up: frames 2 and 3, bins 2 and 3 are hidden.
    hidden = np.zeros((6, 4), bool)
    hidden[2:4, 2:4] = True
    np.testing.assert_array_equal(like(shown, GREY), hidden)
    np.testing.assert_allclose(restored, original, atol=0.01)
    np.testing.assert_allclose(shown[~hidden], original[~hidden], atol=0.01)
    assert like(middles(figure, figure.axes[4], 6, 4), GREY).all(), "all of clip b"
    low, high = np.percentile(spectrogram.original[0], (1, 99))
    colours = matplotlib.colormaps["magma"]((spectrogram.original[0].T[::-1] - low) / (high - low))
    np.testing.assert_allclose(original, colours[..., :3], atol=0.02)


def test_picture_of_a_video(tmp_path, figures, video):
    path = tmp_path / "video.png"
    draw_reconstructions(path, video, title="video")
    (figure,) = figures
    assert has_blank_edge(read_png(path)) and cut_off(figure) == []
    original, shown, restored = (middles(figure, axes, 4, 4) for axes in figure.axes)
    # The middle frame is of the second tubelets in time: upper left and lower right hidden.
    hidden = np.kron([[1, 0], [0, 1]], np.ones((2, 2))).astype(bool)
    np.testing.assert_array_equal(like(shown, GREY), hidden)
    np.testing.assert_allclose(restored, original, atol=0.01)
    np.testing.assert_allclose(shown[~hidden], original[~hidden], atol=0.01)
    frame = video.original[0, 2]
    low, high = np.percentile(video.original, (1, 99))
    np.testing.assert_allclose(original, np.clip((frame - low) / (high - low), 0, 1), atol=0.01)


def test_long_ids_and_many_clips(tmp_path, figures, spectrogram):
    ids = [f"folder/of/videos/{i}/a video whose name goes on and on.mp4$" for i in range(2)]
    draw_reconstructions(
        tmp_path / "a.png", dataclasses.replace(spectrogram, ids=ids), title="audio"
    )
    assert cut_off(figures[-1]) == [] and colliding(figures[-1]) == []


def test_clips_are_named_whole_or_with_the_middle_left_out():
    assert clip_label("videos/a b.mp4@0.000-2.000#480") == "a b.mp4\n0.000 to 2.000 s"
    long = clip_label("x/a_very_long_name_of_a_video_00012.mp4@1.5-2.0#3")
    assert long == "a_very_long_…eo_00012.mp4\n1.5 to 2.0 s"
    assert clip_label("17") == "17" and clip_label("a\nb@1-2#3") == "a\\nb\n1 to 2 s"
