"""Metric files, and that a resumed run logs every step once."""

import errno
import json
import os

import board
import numpy as np

from avt_jax.host.growing_file import GrowingFile
from avt_jax.training.observing.goodput import Goodput
from avt_jax.training.writer import METRICS_FILE, MetricWriter


def lines(folder):
    return [json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines()]


def test_writes_both_formats(tmp_path):
    writer = MetricWriter(tmp_path, step=0)
    writer.write(1, "train", {"loss": 2.5})
    writer.close()
    assert lines(tmp_path) == [{"step": 1, "split": "train", "loss": 2.5}]
    (file,) = (tmp_path / "tensorboard").iterdir()
    scalars = {v.tag: v.simple_value for event in board.events(file) for v in event.summary.value}
    assert scalars == {"train/loss": 2.5}


def test_an_image_goes_to_tensorboard_alone(tmp_path):
    writer = MetricWriter(tmp_path, step=0)
    writer.write_image(3, "a", np.zeros((4, 6, 3), np.uint8))
    writer.close()
    assert board.images(tmp_path) == {(3, "val/a"): (4, 6)} and lines(tmp_path) == []


def test_resume_drops_what_will_be_repeated(tmp_path):
    writer = MetricWriter(tmp_path, step=0)
    for step in (1, 2, 3):
        writer.write(step, "train", {"loss": float(step)})
    writer.close()
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 4, "spl')  # killed while writing
    writer = MetricWriter(tmp_path, step=2)
    writer.write(3, "train", {"loss": 30.0})
    writer.close()
    assert [(e["step"], e["loss"]) for e in lines(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_mount_that_has_died_does_not_hide_why_a_training_ends(tmp_path, monkeypatch):
    def close(file):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    monkeypatch.setattr(GrowingFile, "close", close)
    for one in (MetricWriter(tmp_path, step=0), Goodput(tmp_path, step=0, began_sec=0.0)):
        one.close()
