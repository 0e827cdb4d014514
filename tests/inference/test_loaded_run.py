"""A run that is loaded says once for each batch size that it is compiled."""

import gc

import numpy as np
from tiny_run import make_run

from avt_jax.host import collecting
from avt_jax.inference.load import LoadedRun


def batch(clips):
    return {
        "video": np.zeros((clips, 4, 32, 32, 3), np.uint8),
        "audio": np.full((clips, 100, 128), -5, np.float32),
        "has_audio": np.ones(clips, bool),
    }


def test_compiling_is_said_once_a_batch_size(tmp_path, monkeypatch):
    monkeypatch.setenv("AVT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    run = make_run(tmp_path / "run", ["--config.model.modalities=audio"])
    said = []
    collecting.hold()
    try:
        model = LoadedRun(run, say=said.append)
        for clips in (2, 2, 1):
            assert model.predict(batch(clips))["label"].shape == (clips, 16)
        assert gc.isenabled()
    finally:
        collecting.resume()
        gc.unfreeze()
    assert [line.split(" in ")[0] for line in said] == ["compiling", "compiled"] * 2
    # Another start knows how long it took.
    LoadedRun(run, say=said.append).predict(batch(2))
    assert said[4].endswith("s last time)")
    said.clear()
    LoadedRun(run).predict(batch(2))
    assert not said
