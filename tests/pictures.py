"""Looking at pictures: what was drawn, and whether its labels lie on it and apart."""

import itertools

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

_SLACK_PX = 1.0  # a box of text is a little larger than its letters


def read_png(path):
    """A PNG as float RGB in [0, 1]: [h, w, 3]; it must be opaque."""
    image_hwc = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image_hwc is not None, f"{path} is no picture"
    if image_hwc.shape[2] == 4:
        assert (image_hwc[..., 3] == 255).all()
    return image_hwc[..., 2::-1] / 255


def has_blank_edge(image_hwc, *, width_px=2):
    """Whether nothing touches the picture's edge, as what is cut off there does."""
    ink_hw = ~like(image_hwc, "white")
    inner = slice(width_px, -width_px)
    return ink_hw.sum() == ink_hw[inner, inner].sum()


def like(image_hwc, colour, tolerance=0.02):
    """[h, w] bool: pixels of one colour, given as matplotlib takes it."""
    return np.abs(image_hwc - np.array(to_rgb(colour))).max(-1) < tolerance


def span(is_ink, axis):
    """First and last index along an axis at which there is any ink."""
    places = np.flatnonzero(is_ink.any(axis=1 - axis))
    assert len(places), "there is no ink"
    return int(places[0]), int(places[-1])


def rendered(figure):
    """A whole figure as float RGB, without the trimming that files may have had."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3] / 255


def region(figure, axes):
    """The part of a figure that some of its axes cover: float RGB."""
    image_hwc, box = rendered(figure), axes.get_window_extent()
    top, bottom = (round(len(image_hwc) - y) for y in (box.y1, box.y0))
    return image_hwc[top:bottom, round(box.x0) : round(box.x1)]


@pytest.fixture(name="figures")
def figures_fixture(monkeypatch):
    """The matplotlib figures made so far, oldest first."""
    made, create = [], Figure.__init__

    def remember(self, *args, **kwargs):
        create(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Figure, "__init__", remember)
    return made


def shown_texts(figure):
    """[(text, its box in pixels)] of all that is written in a figure."""
    figure.draw_without_rendering()
    silent = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not axes.axison or not low <= tick.get_loc() <= high:
                    silent |= {tick.label1, tick.label2}
            if not axes.axison:
                silent |= {axis.label, axis.offsetText}
    return [
        (text, text.get_window_extent())
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip() and text not in silent
    ]


def cut_off(figure):
    """The texts that reach beyond the figure's edge."""
    whole = figure.bbox
    return [
        text.get_text()
        for text, box in shown_texts(figure)
        if box.x0 < whole.x0 - _SLACK_PX
        or box.y0 < whole.y0 - _SLACK_PX
        or box.x1 > whole.x1 + _SLACK_PX
        or box.y1 > whole.y1 + _SLACK_PX
    ]


def colliding(figure):
    """Pairs of texts that lie on each other; slanted ones, whose boxes say little, left out."""
    level = [(t.get_text(), box) for t, box in shown_texts(figure) if t.get_rotation() % 90 == 0]
    return [
        (one, other)
        for (one, a), (other, b) in itertools.combinations(level, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > _SLACK_PX
        and min(a.y1, b.y1) - max(a.y0, b.y0) > _SLACK_PX
    ]
