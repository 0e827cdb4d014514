"""Confusion matrix and training curves: the pictures show the numbers, and names fit."""

import subprocess
import sys

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

from avt_jax.evaluation import pictures

LONG = "a name that is far too long for any axis, $\\frac{"


def test_matplotlib_is_imported_when_a_picture_is_drawn():
    code = "import sys, avt_jax.evaluation.pictures; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def cells(figure, number):
    """Colours of the cells [true, predicted, 3], a quarter in from their corners."""
    image_hwc = region(figure, figure.axes[0])
    height, width = image_hwc.shape[:2]
    place = (np.arange(number) + 0.25) / number
    return image_hwc[np.ix_((place * height).astype(int), (place * width).astype(int))]


@pytest.mark.parametrize("number", [1, 3, 41])
def test_confusion_shades_every_cell_by_its_share(tmp_path, figures, rng, number):
    """Random counts, so that rows and columns cannot be confused."""
    confusion = rng.integers(0, 9, (number, number)) ** 2
    confusion[0, :] = 0  # a class without clips
    confusion[-1, 0] = 500
    path = tmp_path / "confusion.png"
    pictures.draw_confusion(path, confusion, [f"c{i}" for i in range(number)], title="label")
    share = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    expected = matplotlib.colormaps["Blues"](share)[..., :3]
    np.testing.assert_allclose(cells(figures[-1], number), expected, atol=0.02)
    assert list(tmp_path.iterdir()) == [path]
    # The file holds the same dark cells, and nothing of it is cut off.
    image_hwc = read_png(path)
    assert min(image_hwc.shape[:2]) > 350 and has_blank_edge(image_hwc)
    assert like(image_hwc, matplotlib.colormaps["Blues"](share.max())).sum() > 20


def test_counts_stand_in_their_cells(tmp_path, figures):
    confusion = np.array([[7, 0, 2], [0, 11, 0], [5, 0, 123456]])
    pictures.draw_confusion(tmp_path / "c.png", confusion, ["a", "b", "c"], title="x")
    (figure,) = figures
    axes, height = figure.axes[0], figure.axes[0].get_window_extent().height
    found = {}
    for text in axes.texts:
        box = text.get_window_extent()
        from_left = (box.x0 + box.x1) / 2 - axes.bbox.x0
        from_top = axes.bbox.y1 - (box.y0 + box.y1) / 2
        assert box.width < height / 3, "wider than its cell"
        found[int(from_top // (height / 3)), int(from_left // (height / 3))] = text.get_text()
    assert found == {(0, 0): "7", (0, 2): "2", (1, 1): "11", (2, 0): "5", (2, 2): "123456"}


@pytest.mark.parametrize("number", [2, 20, 61])
def test_names_of_classes_lie_beside_the_matrix(tmp_path, figures, number):
    names = [f"{i} {LONG}" for i in range(number)]
    path = tmp_path / "c.png"
    pictures.draw_confusion(path, np.eye(number, dtype=int), names, title="label")
    (figure,) = figures
    assert has_blank_edge(read_png(path)) and colliding(figure) == []
    matrix = figure.axes[0].get_window_extent()
    assert matrix.width > 0.4 * figure.bbox.width, "the names leave it room"
    beside = [
        (int(text.get_text().split()[0]), box)
        for text, box in shown_texts(figure)
        if "a name that" in text.get_text()
    ]
    rows = [(n, box) for n, box in beside if box.x1 < matrix.x0]
    columns = [(n, box) for n, box in beside if box.y1 < matrix.y0]
    # Every class up to 60, then every so many; the first at the top and on the left.
    step = -(-number // 60)
    for found in (sorted(rows, key=lambda place: -place[1].y0), columns):
        assert [n for n, _ in found] == list(range(0, number, step))
    assert len(beside) == len(rows) + len(columns), "no name lies in the matrix"


def entries():
    """A training whose loss falls and whose accuracy grows, and three evaluations."""
    made = [
        {
            "step": step,
            "split": "train",
            "loss": 4 - step / 4,
            "contrastive": 1.0,
            "top1/label": step / 9,
            "lr": 1e-3,
            "grad_norm": 1e6,
            "clips_per_sec": 1e3,
        }
        for step in range(1, 9)
    ]
    return made + [{"step": s, "split": "val", "top1/label": 0.9 - s / 10} for s in (2, 5, 8)]


def test_training_curves_show_what_was_logged(tmp_path, figures):
    path = tmp_path / "curves.png"
    assert pictures.draw_training_curves(path, entries(), title=f"runs/$x_{{{LONG}")
    (figure,) = figures
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "loss",
        "accuracy",
        "learning rate",
    ]
    drawn = {
        line.get_label(): line.get_xydata().tolist() for axes in figure.axes for line in axes.lines
    }
    train, val = ([e for e in entries() if e["split"] == s] for s in ("train", "val"))
    expected = {
        name: [[e["step"], e[name]] for e in train]
        for name in ("loss", "contrastive", "top1/label", "lr")
    }
    expected["top1/label (validation)"] = [[e["step"], e["top1/label"]] for e in val]
    assert drawn == expected, "other scales (grad_norm, clips_per_sec) have no place here"
    assert cut_off(figure) == [] and colliding(figure) == []
    image_hwc = read_png(path)
    assert has_blank_edge(image_hwc) and image_hwc.shape[1] > 3 * image_hwc.shape[0]


def test_curves_of_raw_weights_and_of_held_parameters(tmp_path, figures):
    more = {"train": {"lr_held": 1e-4}, "val": {"raw/top1/label": 0.5, "raw/loss/label": 2.0}}
    made = [one | more[one["split"]] for one in entries()]
    pictures.draw_training_curves(tmp_path / "c.png", made, title="run")
    labels = [[line.get_label() for line in axes.lines] for axes in figures[-1].axes]
    assert "raw/loss/label (validation)" in labels[0]
    assert labels[1:] == [
        ["top1/label", "top1/label (validation)", "raw/top1/label (validation)"],
        ["lr", "lr held"],
    ]


def test_curves_fall_and_rise_in_the_picture(tmp_path, figures):
    pictures.draw_training_curves(tmp_path / "c.png", entries(), title="run")
    (figure,) = figures
    for axes, falls in zip(figure.axes[:2], (True, False), strict=True):
        axes.get_legend().set_visible(False)
        blue = like(region(figure, axes), "#2563eb", 0.1)
        first, last = span(blue, axis=1)
        assert last - first > 0.8 * blue.shape[1]
        left, right = (np.flatnonzero(blue[:, c]).mean() for c in (first + 3, last - 3))
        assert (right - left > 0.5 * blue.shape[0]) if falls else (left > right)


def test_only_what_there_is_gets_a_panel(tmp_path, figures):
    assert pictures.draw_training_curves(tmp_path / "c.png", entries()[-1:], title="run")
    (axes,) = figures[-1].axes
    assert axes.get_title(loc="left") == "accuracy"
    # A single evaluation is a point, not a line that nobody sees.
    assert like(region(figures[-1], axes), "#2563eb", 0.1).sum() > 8


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert not pictures.draw_training_curves(tmp_path / "curves.png", [], title="run")
    assert not list(tmp_path.iterdir())
