import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg

from avt_jax.errors import UserError
from avt_jax.inference.windows import PreviewBuilder, plan_windows, read_ahead


@pytest.mark.parametrize(
    ("duration", "hop", "starts"),
    [
        (4.0, 4.0, [0]),
        (4.1, 4.0, [0]),  # a rest of 0.1 s is not worth a window
        (8.0, 4.0, [0, 4]),
        (10.0, 4.0, [0, 4, 6]),  # the last one ends with the file
        (10.0, 2.0, [0, 2, 4, 6]),
        (10.0, 6.0, [0, 6]),
        (12.5, 6.0, [0, 6, 8.5]),
        (0.1 * 3 + 4, 0.1, [0, 0.1, 0.2, 0.3]),  # 0.1 * 3 + 4 is a little less than 4.3
    ],
)
def test_windows_cover_the_file(duration, hop, starts):
    windows = plan_windows(duration, clip_sec=4.0, hop_sec=hop)
    np.testing.assert_allclose([start for start, _ in windows], starts, atol=1e-9)
    np.testing.assert_allclose([end - start for start, end in windows], 4.0)


def test_short_file_is_one_short_window():
    assert plan_windows(1.5, clip_sec=4.0, hop_sec=4.0) == [(0.0, 1.5)]


@pytest.mark.parametrize("hop", [0.0, -1.0, float("nan"), float("inf")])
def test_hop_must_be_positive(hop):
    with pytest.raises(UserError, match="give a positive number"):
        plan_windows(10.0, clip_sec=4.0, hop_sec=hop)


def test_a_forged_duration_does_not_fill_the_memory():
    with pytest.raises(UserError, match="give a larger hop"):
        plan_windows(1e12, clip_sec=4.0, hop_sec=4.0)


def test_read_ahead_keeps_order_and_depth():
    running, lock, most = set(), threading.Lock(), []

    def work(item):
        with lock:
            running.add(item)
        time.sleep(0.002 * (item % 3))
        return item

    with ThreadPoolExecutor(3) as pool:
        for item in read_ahead(pool, work, range(20), depth=4):
            with lock:
                most.append(max(running))
            assert len(most) == item + 1
    assert all(started <= done + 4 for done, started in enumerate(most))


def test_read_ahead_goes_on_with_what_a_result_brings():
    waiting = [1]  # of which each number up to 4 brings the next two

    class Growing:
        def __iter__(self):
            return self

        def __next__(self):
            if not waiting:
                raise StopIteration
            return waiting.pop(0)

    found = []
    with ThreadPoolExecutor(2) as pool:
        for item in read_ahead(pool, lambda item: item, Growing(), depth=3):
            found.append(item)
            waiting.extend([2 * item, 2 * item + 1] if item < 5 else [])
    assert found == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_read_ahead_raises_at_its_place():
    def work(item):
        if item == 2:
            raise KeyError(item)
        return item

    with ThreadPoolExecutor(2) as pool:
        results = read_ahead(pool, work, range(5), depth=3)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(KeyError):
            next(results)


def record(start_sec, end_sec, *, rows=True):
    """Frames whose grey level is 20 times their time; log-mel rows that hold their time."""
    number = round((end_sec - start_sec) * 4)
    greys = [20 * (start_sec + i / 4) for i in range(number)]
    rows_sf = start_sec + np.arange(round((end_sec - start_sec) * 100) - 2)[:, None] / 100
    return {
        "start_sec": start_sec,
        "frame_rate_hz": np.float32(4.0),
        "frames": [
            simplejpeg.encode_jpeg(np.full((32, 32, 3), grey, np.uint8), quality=95)
            for grey in greys
        ],
        "fbank": (rows_sf * np.ones(128) if rows else np.zeros((0, 128))).astype(np.float16),
    }


def test_preview_shows_the_right_times():
    windows = plan_windows(10.0, clip_sec=4.0, hop_sec=4.0)
    builder = PreviewBuilder(10.0, windows, aspect=1.0, strip_aspect=5.0)
    for index, window in enumerate(windows):
        builder.add(index, record(*window))
    preview = builder.build()
    levels = [frame.mean() / 20 for frame in preview.frames]
    np.testing.assert_allclose(levels, [1, 3, 5, 7, 9], atol=0.3)
    times = (np.arange(1000) + 0.5) / 100
    np.testing.assert_allclose(preview.fbank_sf[:, 0], times, atol=0.06)  # and no hole at seams


def test_preview_of_a_long_file_stays_small():
    windows = plan_windows(40_000.0, clip_sec=4.0, hop_sec=4.0)
    builder = PreviewBuilder(40_000.0, windows, aspect=16 / 9)
    builder.add(9_000, record(36_000.0, 36_004.0))
    preview = builder.build()
    assert preview.fbank_sf.shape == (1200, 128) and 3 <= len(preview.frames) <= 14
    assert np.flatnonzero(np.isfinite(preview.fbank_sf[:, 0])).tolist() == [1080]


def test_preview_of_sound_alone():
    builder = PreviewBuilder(4.0, [(0.0, 4.0)], aspect=1.0)
    builder.add(0, record(0.0, 4.0) | {"frames": [], "flags": ["no_video"]})
    preview = builder.build()
    assert set(preview.frames) == {None} and np.isfinite(preview.fbank_sf).all()


def test_preview_without_sound():
    builder = PreviewBuilder(4.0, [(0.0, 4.0)], aspect=1.0)
    builder.add(0, record(0.0, 4.0, rows=False))
    assert np.isnan(builder.build().fbank_sf).all()
