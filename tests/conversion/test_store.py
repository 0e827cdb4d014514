"""Folders of converted weights: whole or not there, and checked when read."""

import json

import numpy as np
import pytest

from avt_jax.conversion import store
from avt_jax.errors import UserError

CONVERTED = store.Converted(
    kind="ast",
    config={"dim": 4, "stride": 10},
    grid=(12, 101),
    variables={"head/bias": np.arange(3, dtype=np.float32), "norm/scale": np.ones(4, np.float32)},
    source={"file": "a.pth", "sha256": "0"},
    left_out=["v.head.weight"],
)


def test_round_trip(tmp_path):
    folder = tmp_path / "new" / "weights"
    store.write_converted(folder, CONVERTED)
    found = store.read_converted(folder)
    assert (found.kind, found.config, found.grid) == ("ast", CONVERTED.config, (12, 101))
    assert (found.source, found.left_out) == (CONVERTED.source, CONVERTED.left_out)
    assert found.variables.keys() == CONVERTED.variables.keys()
    for path, value in CONVERTED.variables.items():
        np.testing.assert_array_equal(found.variables[path], value)
    assert [entry.name for entry in folder.parent.iterdir()] == ["weights"], "nothing half-written"


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        store.write_converted(tmp_path, CONVERTED)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupted_writing_leaves_nothing(tmp_path, monkeypatch):
    def fail(arrays, file):
        raise KeyboardInterrupt

    monkeypatch.setattr(store, "save_file", fail)
    with pytest.raises(KeyboardInterrupt):
        store.write_converted(tmp_path / "weights", CONVERTED)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "words"),
    (
        (lambda f: (f / "conversion.json").unlink(), "conversion.json is missing"),
        (lambda f: (f / "weights.safetensors").unlink(), "is damaged"),
        (lambda f: (f / "conversion.json").write_text("{"), "is damaged"),
        (lambda f: (f / "conversion.json").write_text("[]"), "is damaged"),
        (lambda f: (f / "weights.safetensors").write_bytes(b"\0" * 64), "checksum does not match"),
        (lambda f: change(f, format=2), "has format 2, this version of avt_jax reads 1"),
        (lambda f: change(f, surprise=1), "is damaged"),
    ),
)
def test_a_damaged_folder(tmp_path, damage, words):
    folder = tmp_path / "weights"
    store.write_converted(folder, CONVERTED)
    damage(folder)
    with pytest.raises(UserError, match=words):
        store.read_converted(folder)


def change(folder, **fields):
    file = folder / "conversion.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
