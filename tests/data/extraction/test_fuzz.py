"""Files broken at random: every one gives a sound record or a reason, and none stops the job."""

from __future__ import annotations

import collections

import pytest
from fuzz_files import LIMIT_SEC, try_damaged
from media_files import moving_bar, tone, write_clip

from avt_jax.data.media.container import REASON_CODES
from avt_jax.host import worker_pool

NUM_VARIANTS = 880  # 80 of each file

_QUICK_VPX = {"deadline": "realtime", "cpu-used": "8"}
# name, video codec, audio codec, options, sample rate
FORMATS = [
    ("h264_aac.mp4", "libx264", "aac", {}, 16000),
    ("h264_opus.mkv", "libx264", "libopus", {}, 48000),
    ("mpeg4_flac.mkv", "mpeg4", "flac", {}, 16000),
    ("vp9_opus.webm", "libvpx-vp9", "libopus", _QUICK_VPX, 48000),
    ("vp8_opus.webm", "libvpx", "libopus", _QUICK_VPX, 48000),
    ("mpeg4_pcm.avi", "mpeg4", "pcm_s16le", {}, 16000),
    ("mpeg4_mp3.avi", "mpeg4", "mp3", {}, 16000),
    ("h264_aac.ts", "libx264", "aac", {}, 16000),
    ("flv1_mp3.flv", "flv1", "mp3", {}, 44100),
    ("wmv2_wmav2.asf", "wmv2", "wmav2", {}, 48000),
    ("vp8_opus.ogg", "libvpx", "libopus", _QUICK_VPX, 48000),
]


@pytest.fixture(scope="module")
def good_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return [
        str(
            write_clip(
                folder / name,
                moving_bar(),
                video_codec=video_codec,
                video_options=options,
                audio_codec=audio_codec,
                waves=[tone(sample_rate_hz=rate_hz)],
                sample_rate_hz=rate_hz,
            )
        )
        for name, video_codec, audio_codec, options, rate_hz in FORMATS
    ]


def test_damaged_files_give_a_sound_record_or_a_reason(good_files):
    num_files = len(good_files)
    items = [
        (good_files[i % num_files], good_files[(3 * i + 1) % num_files], i // num_files)
        for i in range(NUM_VARIANTS)
    ]
    outcomes = collections.Counter()
    slowest_sec = 0.0
    seen = []
    for item, result in worker_pool.ordered_map(
        try_damaged, items, num_workers=2, time_limit_sec=LIMIT_SEC
    ):
        seen.append(item)
        if isinstance(result, worker_pool.WorkerDied):
            # A codec that crashes costs its own file and no other.
            outcomes["worker_died"] += 1
            continue
        if isinstance(result, worker_pool.TimedOut):
            outcomes["timeout"] += 1
            continue
        outcome, detail, seconds = result
        assert outcome == "record" or outcome in REASON_CODES, (outcome, detail, item)
        outcomes[outcome] += 1
        slowest_sec = max(slowest_sec, seconds)
    assert seen == items and outcomes.total() == NUM_VARIANTS
    assert slowest_sec < LIMIT_SEC
    # The damage is neither so slight nor so heavy that nothing is tested.
    assert 0.2 * NUM_VARIANTS < outcomes["record"] < 0.9 * NUM_VARIANTS
    assert outcomes["worker_died"] + outcomes["timeout"] <= 0.01 * NUM_VARIANTS
    assert outcomes["truncated"] and outcomes["span_past_end"]
