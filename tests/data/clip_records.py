"""Records made in memory whose pixels and sound tell which frame and row they are."""

import numpy as np
import simplejpeg

RATE_HZ = 8.0
FRAME_LEVELS = 7  # grey levels between two frames, well above what JPEG changes


def grey_record(
    index=0, *, num_frames=16, duration_sec=2.0, height_px=24, width_px=32, has_audio=True
):
    """Frame i is grey of level 7 i; row j of the spectrogram holds -j / 100."""
    frames = [
        simplejpeg.encode_jpeg(np.full((height_px, width_px, 3), i * FRAME_LEVELS, np.uint8))
        for i in range(num_frames)
    ]
    rows = round(duration_sec * 100) if has_audio else 0
    fbank_sf = np.repeat(-np.arange(rows)[:, None] / 100, 128, axis=1)
    return {
        "id": f"clip-{index}",
        "source": f"video-{index // 2}",
        "frames": frames,
        "frame_rate_hz": RATE_HZ,
        "fbank": fbank_sf.astype(np.float16),
        "has_audio": has_audio,
        "start_sec": 5.0,
        "end_sec": 5.0 + duration_sec,
        "labels": {"label": index % 3},
    }


def noise_record(index, **changes):
    """A record with a texture, so that crops and mirror images differ."""
    record = grey_record(index, **changes)
    rng = np.random.default_rng(index)
    record["frames"] = [
        simplejpeg.encode_jpeg(np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), _BLOCK))
        for _ in record["frames"]
    ]
    return record


_BLOCK = np.ones((4, 4, 1), np.uint8)


def shown_frames(video_thwc):
    """Which stored frame each frame of a grey clip shows."""
    return np.rint(video_thwc.reshape(len(video_thwc), -1).mean(1) / FRAME_LEVELS).astype(int)
