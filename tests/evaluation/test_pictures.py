import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest

from avt_jax.evaluation import pictures


def test_matplotlib_is_imported_when_a_picture_is_drawn():
    code = "import sys, avt_jax.evaluation.pictures; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("number", [2, 16, 61])
def test_confusion_shows_the_diagonal(tmp_path, number):
    names = [f"$class_{i} with a name that is far too long for any axis" for i in range(number)]
    path = tmp_path / "confusion.png"
    pictures.draw_confusion(path, 7 * np.eye(number, dtype=int), names, title="label")
    image_hwc = matplotlib.image.imread(path)
    assert list(tmp_path.iterdir()) == [path]
    # Dark blue cells on the diagonal, and light ones beside it.
    dark = (image_hwc[..., 2] > image_hwc[..., 0] + 0.2) & (image_hwc[..., 0] < 0.1)
    assert 0.3 / number < dark.mean() * 2 < 1.5 / number + 0.05


def test_confusion_of_a_class_without_clips(tmp_path):
    confusion = np.array([[0, 0], [1, 2]])
    pictures.draw_confusion(tmp_path / "c.png", confusion, ["none", "some"], title="x")
    assert (tmp_path / "c.png").stat().st_size > 1000


def test_training_curves(tmp_path):
    entries = [
        {
            "step": s,
            "split": "train",
            "loss": 3 / s,
            "contrastive": 1 / s,
            "top1/label": s / 9,
            "lr": 1e-3,
            "grad_norm": 1e6,
            "clips_per_sec": 1e3,
        }
        for s in range(1, 9)
    ]
    entries += [{"step": 8, "split": "val", "top1/label": 0.5}]
    path = tmp_path / "curves.png"
    assert pictures.draw_training_curves(path, entries, title="run")
    wide = matplotlib.image.imread(path)
    assert pictures.draw_training_curves(path, entries[-1:], title="run")
    narrow = matplotlib.image.imread(path)
    assert wide.shape[1] > 2 * narrow.shape[1]  # three panels, then only accuracy


def test_nothing_to_draw_writes_nothing(tmp_path):
    assert not pictures.draw_training_curves(tmp_path / "curves.png", [], title="run")
    assert not list(tmp_path.iterdir())
