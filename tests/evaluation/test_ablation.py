"""The table and the picture of an ablation, from numbers made up here."""

import csv

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
from avt_jax.evaluation.ablation import Cost, RunResult, draw, markdown, summarise, write_csv
from avt_jax.host.output.cells import cell_text

SETTINGS = ["plain", "+ one", "+ two | three", "broken"]
COSTS = {"plain": Cost(2_000_000_000, 1000), "+ one": Cost(3_000_000_000, 1200)}


def runs():
    return [
        RunResult("+ one", 1, 0.75, 0.3),
        RunResult("plain", 2, 0.8, 0.1),
        RunResult("plain", 0, 0.6, 0.1),
        RunResult("plain", 1, 0.7, 0.4),
        RunResult("+ one", 0, 0.5, 0.2),
        RunResult("+ two | three", 7, 0.9),
        RunResult("broken", 0, error="loss is not finite"),
        RunResult("broken", 1, error="loss is not finite"),
        RunResult("broken", 2, error="no such\nfile"),
    ]


def test_mean_spread_and_difference_over_the_seeds_that_both_have():
    plain, one, two, broken = summarise(SETTINGS, runs(), COSTS)
    assert plain.top1 == {0: 0.6, 1: 0.7, 2: 0.8}
    assert plain.mean == pytest.approx(0.7) and plain.std == pytest.approx(0.1)
    assert plain.gain is None and plain.gain_std is None
    assert plain.step_sec == pytest.approx(0.1), "the median: one run was disturbed"
    # Seed 2 of "+ one" has not run: its difference is over seeds 0 and 1, -0.1 and +0.05.
    assert one.mean == pytest.approx(0.625)
    assert one.gain == pytest.approx(-0.025)
    assert one.gain_std == pytest.approx(np.std([-0.1, 0.05], ddof=1))
    assert two.mean == 0.9 and two.std is None, "one run has no spread"
    assert two.gain is None, "no seed in common with the first setting"
    assert two.step_sec is None and two.cost is None
    assert broken.mean is None and broken.errors == ("loss is not finite", "no such\nfile")


def test_markdown():
    lines = markdown(summarise(SETTINGS, runs(), COSTS)).splitlines()
    cells = [[cell.strip() for cell in line.replace("\\|", "/")[1:-1].split("|")] for line in lines]
    assert {len(row) for row in cells} == {8}, "every row has every column"
    assert cells[2] == ["plain", "70.0 ± 10.0", "3", "", "100", "2.00", "1,000", ""]
    assert cells[3] == ["+ one", "62.5 ± 17.7", "2", "-2.5 ± 10.6", "250", "3.00", "1,200", ""]
    assert cells[4] == ["+ two / three", "90.0", "1", "", "", "", "", ""]
    assert cells[5][0] == "broken" and cells[5][2] == "0"
    assert cells[5][-1] == "loss is not finite; no such file"
    assert "against plain" in lines[0]
    whole = summarise(SETTINGS[:2], runs(), COSTS)
    assert "failed" not in markdown(whole)


def test_csv_holds_every_seed(tmp_path):
    write_csv(tmp_path / "a.csv", summarise(SETTINGS, runs(), COSTS))
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = {cell_text(row["setting"]): row for row in csv.DictReader(file)}
    assert list(rows) == SETTINGS
    assert float(rows["plain"]["top1_mean"]) == pytest.approx(0.7)
    assert float(rows["plain"]["top1_seed_2"]) == 0.8 and rows["+ one"]["top1_seed_2"] == ""
    assert rows["+ two | three"]["top1_seed_7"] == "0.9" and rows["+ two | three"]["n"] == "1"
    assert rows["plain"]["step_flops"] == "2000000000" and rows["broken"]["step_flops"] == ""
    assert rows["broken"]["failed"].startswith("loss is not finite")
    with pytest.raises(UserError, match="cannot write"):
        write_csv(tmp_path / "no" / "a.csv", summarise(SETTINGS, runs(), COSTS))


def drawn(tmp_path, figures, rows, title="losses"):
    """(figure, the picture it was saved as)."""
    assert draw(tmp_path / "a.png", rows, title=title)
    return figures[-1], read_png(tmp_path / "a.png")


def test_the_picture_shows_every_run_beside_its_setting(tmp_path, figures):
    figure, image_hwc = drawn(tmp_path, figures, summarise(SETTINGS, runs(), COSTS))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == SETTINGS
    assert left.get_ylim()[0] > left.get_ylim()[1], "the first setting on top"
    seeds = [line.get_xydata() for line in left.lines if line.get_markerfacecolor() == "none"]
    assert [sorted(xy[:, 0].tolist()) for xy in seeds] == [
        pytest.approx([60, 70, 80]),
        pytest.approx([50, 75]),
        pytest.approx([90]),
        [],
    ]
    assert [round(xy[0, 1]) for xy in seeds if len(xy)] == [0, 1, 2]
    assert [text.get_text() for text in left.texts] == ["failed"]
    bars = [(round(bar.get_y() + bar.get_height() / 2), bar.get_width()) for bar in right.patches]
    assert bars == [(0, 2.0), (1, 3.0)], "settings of known cost, in GFLOP"
    assert has_blank_edge(image_hwc) and like(image_hwc, "#2563eb", 0.1).sum() > 6 * 15


def test_runs_are_seen_where_their_accuracy_is(tmp_path, figures):
    rows = summarise(["low", "high"], [RunResult("low", 0, 0.1), RunResult("high", 0, 0.9)], {})
    figure, _ = drawn(tmp_path, figures, rows)
    blue = like(region(figure, figure.axes[0]), "#2563eb", 0.1)
    upper, lower = np.array_split(blue, 2)
    assert span(upper, 1)[1] < blue.shape[1] / 3 and span(lower, 1)[0] > blue.shape[1] * 2 / 3


@pytest.mark.parametrize("number", [1, 12])
def test_long_names_leave_room_for_the_picture(tmp_path, figures, number):
    names = [
        f"{i} losses.weights=$a_{{ and a fusion of every last block" * 3 for i in range(number)
    ]
    runs = [RunResult(name, 0, 0.5, 0.1) for name in names]
    costs = {name: Cost(12_345_000_000_000, 5) for name in names}
    figure, image_hwc = drawn(tmp_path, figures, summarise(names, runs, costs), title="$\\frac{")
    assert has_blank_edge(image_hwc) and colliding(figure) == [] and cut_off(figure) == []
    left, right = (axes.get_window_extent() for axes in figure.axes)
    assert left.width > 2 * right.width > 2 * 100
    rows_px = left.height / number
    labels = [box for text, box in shown_texts(figure) if "losses.weights" in text.get_text()]
    assert len(labels) == number
    assert all(box.x1 < left.x0 and box.height < rows_px for box in labels)


def test_nothing_to_draw(tmp_path):
    rows = summarise(SETTINGS, [RunResult("broken", 0, error="x")], {})
    assert not draw(tmp_path / "a.png", rows, title="none")
    assert not (tmp_path / "a.png").exists()
    assert len(markdown(rows).splitlines()) == 2 + len(SETTINGS)
