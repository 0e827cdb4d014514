"""The picture of a prediction: frames, sound and probabilities where their time is."""

import re

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

from avt_jax.errors import UserError
from avt_jax.inference import timeline
from avt_jax.inference.prediction import FilePrediction, Window
from avt_jax.inference.windows import Preview

BLUE, ORANGE = "#2563eb", "#d97706"
LONG = "WWW a name of a class, $\\frac{, that goes on beyond every place there is for it"
SETS = {"verb": ("cut", "open", "wash"), "noun": ("$egg$", "pan")}


def predicted(
    probabilities, *, sets=None, fbank_sf=None, frames=(None,) * 3, path="a.mp4", picture=True
):
    """A file whose window i of 4 s has the probabilities[i][label set]."""
    sets = SETS if sets is None else sets
    windows = tuple(
        Window(4.0 * i, 4.0 * i + 4, {k: np.array(v, np.float32) for k, v in found.items()})
        for i, found in enumerate(probabilities)
    )
    return FilePrediction(
        path=path,
        duration_sec=4.0 * len(windows),
        has_audio=fbank_sf is not None,
        has_video=picture,
        label_sets=dict(sets),
        windows=windows,
        overall={name: np.mean([w.probabilities[name] for w in windows], axis=0) for name in sets},
        preview=Preview(frames, np.full((50, 128), np.nan) if fbank_sf is None else fbank_sf),
    )


def in_turn(number):
    """Each verb and noun most probable in its turn."""
    verbs = np.roll([0.7, 0.2, 0.1], 1), np.array([0.7, 0.2, 0.1]), np.roll([0.7, 0.2, 0.1], 2)
    return [{"verb": verbs[i % 3], "noun": [0.6, 0.4]} for i in range(number)]


def drawn(tmp_path, figures, prediction, **options):
    """(figure, the file it was saved in, as RGB)."""
    timeline.draw_timeline(prediction, tmp_path / "a.png", **options)
    return figures[-1], read_png(tmp_path / "a.png")


def rows(figure):
    """{name of a class: the axes of its row}, from the top."""
    return {
        axes.texts[0].get_text(): axes
        for axes in figure.axes
        if len(axes.texts) == 2 and axes.texts[1].get_text().endswith("%")
    }


@pytest.mark.parametrize("number", [1, 3, 200])
@pytest.mark.parametrize("sound", [True, False])
def test_every_row_is_drawn(tmp_path, figures, rng, number, sound):
    fbank_sf = rng.normal(-5, 1, (50, 128)) if sound else None
    figure, image_hwc = drawn(tmp_path, figures, predicted(in_turn(number), fbank_sf=fbank_sf))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    expected = {"cut", "open", "wash", "$egg$", "pan"}
    assert set(rows(figure)) == expected and len(figure.axes) == 2 + 2 + 5
    tops = [axes.get_window_extent().y1 for axes in figure.axes]
    assert tops == sorted(tops, reverse=True), "one below the other"
    assert image_hwc.shape[:2] == (int(figure.bbox.height), int(figure.bbox.width))
    for name, colour in (("$egg$", BLUE), ("pan", ORANGE)):
        share = like(region(figure, rows(figure)[name]), colour).mean()
        assert share > 0.15, name
    written = [text.get_text() for text, _ in shown_texts(figure)]
    assert ("no sound in this file" in written) != sound and "60.0 %" in written


@pytest.mark.parametrize("picture", [True, False])
def test_sound_alone_says_that_there_is_no_picture(tmp_path, figures, rng, picture):
    prediction = predicted(in_turn(2), fbank_sf=rng.normal(-5, 1, (50, 128)), picture=picture)
    figure, _ = drawn(tmp_path, figures, prediction)
    written = [text.get_text() for text, _ in shown_texts(figure)]
    assert ("no picture in this file" in written) != picture


def test_steps_lie_at_their_time_and_are_as_high_as_their_probability(tmp_path, figures):
    sets = {"x": ("first", "second")}
    found = [{"x": [0.9, 0.1]}, {"x": [0.5, 0.5]}, {"x": [0.0, 1.0]}, {"x": [0.0, 1.0]}]
    figure, _ = drawn(tmp_path, figures, predicted(found, sets=sets))
    # The class of the highest mean comes first, and the first row is blue.
    assert list(rows(figure)) == ["second", "first"]
    for index, (axes, colour) in enumerate(zip(rows(figure).values(), (BLUE, ORANGE), strict=True)):
        is_bar = like(region(figure, axes), colour)
        height, width = is_bar.shape
        for window, wanted in enumerate(found):
            middle = is_bar[:, round((window + 0.5) * width / 4)]
            assert middle.sum() == pytest.approx(wanted["x"][1 - index] / 1.18 * height, abs=2)
    first = like(region(figure, rows(figure)["first"]), ORANGE)
    assert span(first, axis=1) == pytest.approx((0, first.shape[1] / 2), abs=4)


def test_one_window_gives_bars_as_long_as_their_probability(tmp_path, figures):
    figure, _ = drawn(tmp_path, figures, predicted(in_turn(1)))
    for (name, axes), share in zip(rows(figure).items(), (0.7, 0.2, 0.1, 0.6, 0.4), strict=True):
        image_hwc = region(figure, axes)
        middle_wc = image_hwc[len(image_hwc) // 2]
        is_track = like(middle_wc[None], "#f3f4f6")[0]
        assert (~is_track).mean() == pytest.approx(share, abs=0.01), name


def test_frames_and_sound_share_the_time_axis(tmp_path, figures):
    colours = [(200, 30, 30), None, (30, 200, 30), (30, 30, 200)]
    frames = tuple(None if c is None else np.full((20, 30, 3), c, np.uint8) for c in colours)
    fbank_sf = np.full((80, 128), -12.0)
    fbank_sf[20:40, :64] = 2.0  # the second quarter, low
    figure, _ = drawn(tmp_path, figures, predicted(in_turn(2), fbank_sf=fbank_sf, frames=frames))
    strip, sound = (region(figure, axes) for axes in figure.axes[:2])
    for slot, colour in enumerate(colours):
        seen = strip[len(strip) // 2, round((slot + 0.5) * strip.shape[1] / 4)]
        wanted = (0xF1, 0xF2, 0xF4) if colour is None else colour
        np.testing.assert_allclose(seen, np.array(wanted) / 255, atol=0.01)
    bright = like(sound, matplotlib.colormaps["magma"](1.0)[:3])
    assert span(bright, 1) == pytest.approx(np.array([0.25, 0.5]) * bright.shape[1], abs=4)
    assert span(bright, 0) == pytest.approx(np.array([0.5, 1.0]) * bright.shape[0], abs=4)


def test_number_of_classes(tmp_path, figures):
    figure, _ = drawn(tmp_path, figures, predicted(in_turn(2)), number=1)
    assert len(rows(figure)) == 2


@pytest.mark.parametrize("number", [1, 30])
def test_long_names_stay_on_the_picture(tmp_path, figures, number):
    sets = {
        "verb": tuple(f"{i} {LONG}" for i in range(3)),
        "a label set of a long name " * 9: tuple(f"{i} {'W' * 150}" for i in range(2)),
    }
    found = [dict(zip(sets, values.values(), strict=True)) for values in in_turn(number)]
    prediction = predicted(found, sets=sets, path=f"folder/{LONG * 3}\x1b.mp4")
    figure, image_hwc = drawn(tmp_path, figures, prediction)
    assert has_blank_edge(image_hwc) and cut_off(figure) == [] and colliding(figure) == []
    best, file = (text.get_text() for text in figure.texts)
    assert re.search(r"…   \d+ %$", best) and len(best) > 50
    assert file.startswith("WWW a name of a class, $\\frac{") and "window" in file


def test_names_that_fit_are_whole(tmp_path, figures):
    figure, _ = drawn(tmp_path, figures, predicted(in_turn(3), path="folder/[red]a\x1b.mp4"))
    best, file = (text.get_text() for text in figure.texts)
    assert file == "[red]a\\x1b.mp4   0:12.0   3 windows"
    assert best.rsplit("   ", 1)[0] in {f"{v} + $egg$" for v in SETS["verb"]}


def test_a_picture_that_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        timeline.draw_timeline(predicted(in_turn(1)), tmp_path / "missing" / "a.png")
