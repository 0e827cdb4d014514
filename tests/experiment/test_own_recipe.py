import numpy as np
import pytest
from small_shards import clip, write

from avt_jax import UserError
from avt_jax.data.shard_tools.sample import sample_split
from avt_jax.experiment.config import load_config


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    made = [clip(i, labels={"label": i % 3}) for i in range(25)]
    return write(tmp_path_factory.mktemp("own") / "shards", made)


def test_the_clips_say_how_they_are_read(shards):
    found = sample_split(str(shards))
    assert (found.num_clips, found.length_sec, found.frame_rate_hz) == (25, 0.5, 8.0)
    assert found.label_sets == {"label": 3}
    heard = np.concatenate([clip(i)["fbank"] for i in range(25) if i % 5 != 4]).astype(np.float64)
    assert (found.audio_mean, found.audio_std) == pytest.approx((heard.mean(), heard.std()))

    config = load_config("own", [f"--config.data.path={shards}"])
    assert (config.data.clip_sec, config.data.num_frames) == (0.5, 4)
    assert config.data.audio_mean == pytest.approx(heard.mean(), abs=1e-3)
    # 80,000 clips seen would be 3,200 epochs; the most are 100.
    assert (config.train.epochs, config.train.batch_size) == (100.0, 16)
    # What a user says counts, and the same shards give the same config.
    words = [f"--config.data.path={shards}", "--config.data.num_frames=2"]
    assert load_config("own", words).data.num_frames == 2
    assert load_config("own", {"data.path": str(shards)}).to_dict() == config.to_dict()


def test_sizes(shards):
    path = [f"--config.data.path={shards}"]
    tiny, base = (load_config(f"own:{size}", path) for size in ("tiny", "base"))
    assert tiny.model.video_encoder.dim[0] == 16 and tiny.data.frame_size_px == 64
    assert base.model.video_encoder.variant == "B" and base.data.frame_size_px == 224
    with pytest.raises(UserError, match="own takes none, 'tiny', 'small', 'base' or 'tokens'"):
        load_config("own:huge", path)


def test_without_shards_it_can_be_read(tmp_path):
    assert load_config("own").data.clip_sec == 4.0
    with pytest.raises(UserError, match="no shard folder|not a shard folder|dataset_info"):
        load_config("own", {"data.path": str(tmp_path)})


def test_damaged_and_silent_clips(tmp_path):
    mute = [clip(i, fbank=np.zeros((0, 128), np.float16), has_audio=False) for i in range(6)]
    mute[2]["frames"] = [b"no picture"] * 4
    found = sample_split(str(write(tmp_path / "shards", mute)))
    assert found.audio_mean is None and found.num_clips == 6
    config = load_config("own", {"data.path": str(tmp_path / "shards")})
    assert config.data.audio_mean == pytest.approx(-4.2677, abs=1e-3)
