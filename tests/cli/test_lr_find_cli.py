"""`avt lr-find`: the two rates by hand, and a range test on generated clips."""

import csv

import numpy as np
import pytest
from tiny_run import tiny_run_fixture  # noqa: F401

from avt_jax.cli import main as cli
from avt_jax.experiment.rates.range_test import judged, smoothed


def test_smoothing_by_hand():
    # Weights 1; 0.9 and 1; 0.81, 0.9 and 1, each divided by their sum.
    expected = [2.0, (0.9 * 2 + 4) / 1.9, (0.81 * 2 + 0.9 * 4 + 1) / 2.71]
    np.testing.assert_allclose(smoothed([2.0, 4.0, 1.0]), expected)


RATES = np.geomspace(1e-6, 1, 61)


def test_a_fall_and_a_rise_are_found():
    # Flat, a fall around 1e-4, a rise from 1e-1 on.
    loss_n = 2 - 1 / (1 + (1e-4 / RATES) ** 2) + np.where(RATES > 0.1, 50 * (RATES - 0.1), 0)
    found = judged(RATES, loss_n)
    # Smoothing looks back: some steps later, each a factor of 1.26.
    assert 1e-4 < found.steepest < 1e-3 and 0.1 < found.diverges < 0.4


def test_a_loss_that_becomes_no_number():
    loss_n = np.where(RATES < 1e-2, 2 - 0.1 * np.log10(RATES / 1e-6), np.nan)
    found = judged(RATES, loss_n)
    assert found.diverges == RATES[RATES >= 1e-2][0] and found.steepest < 1e-2


@pytest.mark.parametrize("loss_n", [np.full(61, 2.0), np.linspace(1, 2, 61), np.full(61, np.nan)])
def test_a_loss_that_never_falls(loss_n):
    assert judged(RATES, loss_n).steepest is None


def lr_find(folder, *words):
    command = ["lr-find", "--config", "quickstart:smoke", "--workdir", str(folder)]
    return cli.main([*command, "--config.model.modalities=audio", *words])


def test_table_and_plot(tmp_path, capsys):
    folder = tmp_path / "lr"
    words = ["--config.data.path=generated:16:label=2", "--config.train.batch_size=8"]
    # What a training of three steps could not hold: here all is trained from the start.
    words += ["--config.optimizer.held=('^audio_encoder/',)", "--config.optimizer.held_steps=9"]
    assert lr_find(folder, "--steps", "40", "--high", "10", *words) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["lr_find.csv", "lr_find.png"]
    with open(folder / "lr_find.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert 10 <= len(rows) <= 40
    rates = np.array([float(row["lr"]) for row in rows])
    np.testing.assert_allclose(rates, np.geomspace(1e-6, 10, 40)[: len(rows)])
    losses = np.array([float(row["loss"]) for row in rows])
    np.testing.assert_allclose([float(row["smoothed_loss"]) for row in rows], smoothed(losses))
    # At such rates the weights hardly move, at the last ones they are thrown about.
    assert losses[:5].std() < 0.2 and losses[-5:].max() > losses[:5].max()
    out = capsys.readouterr().out
    assert "it diverges at" in out and "wrote" in out


def test_a_run_and_a_range_that_is_none_are_refused(tiny_run, tmp_path, capsys):
    before = sorted(tiny_run.rglob("*"))
    assert lr_find(tiny_run) == 2
    assert "is the folder of a run" in capsys.readouterr().err
    assert sorted(tiny_run.rglob("*")) == before
    assert lr_find(tmp_path / "lr", "--low", "1", "--high", "0.1") == 2
    assert "is no range of learning rates" in capsys.readouterr().err
    assert not (tmp_path / "lr").exists()
