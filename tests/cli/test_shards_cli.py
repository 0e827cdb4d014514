"""avt shards: what it prints, exit codes, messages."""

import json
import shlex
import shutil

import numpy as np
import pytest
import simplejpeg

from avt_jax.cli.common import run
from avt_jax.cli.data import shards
from avt_jax.data.records.writer import RecordWriter
from avt_jax.experiment.config import load_config


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Four clips, frames of which a half is red."""
    folder = tmp_path_factory.mktemp("cli") / "shards"
    folder.mkdir()
    frame = np.zeros((16, 32, 3), np.uint8)
    frame[:, 16:] = (255, 102, 0)
    frame[:, :16, 2] = 51
    writer = RecordWriter(
        folder, label_sets={"label": ("a", "b")}, frame_rate_hz=4, short_side_px=16
    )
    for index in range(4):
        record = {
            "id": f"clip-{index}",
            "source": "video.mp4",
            "frames": [simplejpeg.encode_jpeg(frame, quality=100, colorsubsampling="444")],
            "frame_rate_hz": np.float32(4),
            "fbank": np.full((20, 128), -index, np.float16),
            "has_audio": True,
            "start_sec": 0.25 * index,
            "end_sec": 0.25 * (index + 1),
            "labels": {"label": index % 2},
        }
        writer.add("train", record)
    writer.close()
    return folder


@pytest.fixture
def damaged(clean, tmp_path):
    """A copy whose record 0 cannot be read."""
    folder = shutil.copytree(clean, tmp_path / "damaged")
    [shard] = folder.glob("*.array_record-*")
    content = bytearray(shard.read_bytes())
    content[300] ^= 255
    shard.write_bytes(bytes(content))
    return folder


def call(*arguments):
    return run(shards.main, list(map(str, arguments)))


def test_verify(clean, damaged, capsys):
    assert call("verify", clean, "--workers", "0") == 0
    captured = capsys.readouterr()
    assert "1 shards, 4 records" in captured.out and "nothing is damaged" in captured.out
    assert "4/4" in captured.err and "clip/s" in captured.err
    assert call("verify", damaged, "--workers", "0") == 1
    out = capsys.readouterr().out
    name = "avt_clips-train.array_record-00000-of-00001"
    assert f"damaged: {name}: has changed since it was written" in out
    assert f"damaged: {name} record 0: cannot be read" in out
    assert "damaged: 1 files, 1 records" in out
    assert call("verify", damaged, "--quick", "--workers", "0") == 1
    assert "damaged: 1 files, 0 records" in capsys.readouterr().out


def test_damage_found_is_damage_left_out(damaged, tmp_path, capsys):
    assert call("reshard", damaged, tmp_path / "out") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "record 0 of shard" in error and "--drop-damaged" in error
    assert call("reshard", damaged, tmp_path / "out", "--drop-damaged", "--workers", "0") == 0
    out = capsys.readouterr().out
    assert "record 0: cannot be read" in out
    assert "3 clips (train 3), 1 damaged ones left out" in out
    assert call("verify", tmp_path / "out", "--workers", "0") == 0


def test_merge(clean, tmp_path, capsys):
    other = shutil.copytree(clean, tmp_path / "other")
    assert call("merge", tmp_path / "out", clean, other) == 2
    assert "--prefix-ids" in capsys.readouterr().err
    assert call("merge", tmp_path / "out", clean, other, "--prefix-ids") == 0
    assert "8 clips (train 8)" in capsys.readouterr().out
    assert call("verify", tmp_path / "out", "--workers", "0") == 0


def test_what_stats_prints_can_be_pasted(clean, tmp_path, capsys):
    path = tmp_path / "stats.json"
    assert call("stats", clean, "--workers", "0", "--out", path) == 0
    out = capsys.readouterr().out
    assert "4 clips, 4 frames, 4 clips with sound of 0.8 s" in out
    [line] = [line for line in out.splitlines() if line.startswith("--config")]
    config = load_config("quickstart", shlex.split(line))
    stats = json.loads(path.read_text())
    np.testing.assert_allclose(config.data.audio_mean, -1.5, atol=1e-5)
    np.testing.assert_allclose(config.data.audio_std, np.std([0, 1, 2, 3]), atol=1e-5)
    np.testing.assert_allclose(config.data.video_mean, stats["video_mean"], atol=1e-5)
    np.testing.assert_allclose(stats["video_mean"], [0.5, 0.2, 0.1], atol=0.01)
    np.testing.assert_allclose(stats["video_std"], [0.5, 0.2, 0.1], atol=0.01)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["verify", "none"], "no shard folder at none"),
        (["verify", "text"], "text"),
        (["merge", "out", "none"], "two shard folders or more"),
        (["merge", "out", "none", "none"], "no shard folder at none"),
        (["reshard", "none", "out"], "no shard folder at none"),
        (["reshard", "SHARDS", "out", "--max-shard-mb", "-1"], "--max-shard-mb -1"),
        (["reshard", "SHARDS", "text"], "text exists"),
        (["stats", "SHARDS", "--split", "trian"], "did you mean 'train'"),
        (["stats", "SHARDS", "--out", "none/stats.json"], "folder of --out"),
        (["stats", "SHARDS", "--max-clips", "0"], "0 clips"),
        (["stats", "SHARDS", "--workers", "-1"], "num_workers is -1"),
    ],
)
def test_mistakes_end_with_code_2_and_write_nothing(
    arguments, expected, clean, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").touch()
    before = sorted(tmp_path.iterdir())
    arguments = [str(clean) if word == "SHARDS" else word for word in arguments]
    assert call(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("avt: error: ") and expected in error
    assert sorted(tmp_path.iterdir()) == before
