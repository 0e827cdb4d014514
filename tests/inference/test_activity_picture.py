"""The picture of what was found in a file: spans, sound and curves on one time axis."""

import jax
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
    shown_texts,
    span,
)

from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.activity_spans import analyse
from avt_jax.errors import UserError
from avt_jax.inference.activities import FileActivities
from avt_jax.inference.activity_picture import draw_activities

FOUND, TRUE = "#d97706", "#059669"


@pytest.fixture(scope="module")
def found():
    """4 s of which the second second is loud."""
    fbank_sf = np.random.default_rng(0).normal(-9, 0.3, (400, 128)).astype(np.float32)
    fbank_sf[100:200] += 6
    curves = jax.tree.map(np.asarray, analyse(fbank_sf, ActivityConfig()))
    return FileActivities("folder/a.mp4", 4.0, ((1.0, 2.0),), 0.01, fbank_sf, curves)


def drawn(tmp_path, figures, found, **options):
    """(figure, the file it was saved in, as RGB)."""
    draw_activities(found, ActivityConfig(), tmp_path / "a.png", **options)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    return figures[-1], read_png(tmp_path / "a.png")


def as_shares(is_ink, axis=1):
    first, last = span(is_ink, axis)
    return first / is_ink.shape[axis], (last + 1) / is_ink.shape[axis]


def test_spans_sound_and_curves_agree(tmp_path, figures, found):
    figure, image_hwc = drawn(tmp_path, figures, found, true=[(1.0, 2.0), (3.0, 3.5)])
    assert has_blank_edge(image_hwc) and cut_off(figure) == [] and colliding(figure) == []
    bars, sound, envelope, gradient = (region(figure, axes) for axes in figure.axes)
    assert as_shares(like(bars, FOUND)) == pytest.approx((0.25, 0.5), abs=0.005)
    assert as_shares(like(bars, TRUE)) == pytest.approx((0.25, 0.875), abs=0.005)
    assert not like(bars, TRUE)[:, bars.shape[1] * 5 // 8].any(), "two spans, not one"
    assert span(like(bars, FOUND), 0)[1] < span(like(bars, TRUE), 0)[0]
    bright = sound.sum(-1) > matplotlib.colormaps["magma"](0.7)[0] + 1
    assert bright[:, bright.shape[1] // 4 + 5 : bright.shape[1] // 2 - 5].mean() > 0.9
    assert bright[:, : bright.shape[1] // 4 - 5].mean() < 0.1
    # The smoothed envelope is high over the span; its gradient is up at the start, down at the end.
    curve, slope = (like(picture, "#2563eb", 0.3) for picture in (envelope, gradient))
    upper = curve[: len(curve) // 2]
    assert as_shares(upper) == pytest.approx((0.25, 0.5), abs=0.03)
    rising, falling = np.array_split(slope, [slope.shape[1] * 3 // 8], axis=1)
    assert span(rising, 0)[0] < len(slope) / 4 and span(falling, 0)[1] > len(slope) * 3 / 4


def test_without_truth_there_is_one_bar(tmp_path, figures, found):
    figure, _ = drawn(tmp_path, figures, found)
    bars = region(figure, figure.axes[0])
    assert like(bars, FOUND).any() and not like(bars, TRUE).any()
    written = [text.get_text() for text, _ in shown_texts(figure)]
    assert "found" in written and "true" not in written
    assert "1 activity, 25 % of the time" in written and "a.mp4   0:04.0" in written


def test_nothing_found_in_no_sound_at_all(tmp_path, figures, found):
    curves = jax.tree.map(lambda x: x[:0] if x.ndim else x, found.curves)
    nothing = FileActivities("a.mp4", 0.0, (), 0.01, found.fbank[:0], curves)
    figure, image_hwc = drawn(tmp_path, figures, nothing)
    assert "0 activities, 0 % of the time" in [text.get_text() for text, _ in shown_texts(figure)]
    assert has_blank_edge(image_hwc)


@pytest.mark.parametrize("name", ["W" * 300, "$\\frac{" * 40 + "\x1b"])
def test_long_names_stay_on_the_picture(tmp_path, figures, found, name):
    renamed = FileActivities(f"folder/{name}.mp4", *(vars(found)[k] for k in list(vars(found))[1:]))
    figure, image_hwc = drawn(tmp_path, figures, renamed, true=[])
    assert has_blank_edge(image_hwc) and cut_off(figure) == [] and colliding(figure) == []


def test_a_picture_that_cannot_be_written(tmp_path, found):
    with pytest.raises(UserError, match="cannot write"):
        draw_activities(found, ActivityConfig(), tmp_path / "no" / "a.png")
