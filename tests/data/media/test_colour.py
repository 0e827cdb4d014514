"""High dynamic range, transparency and interlacing: what is stored of them."""

from __future__ import annotations

import av
import media_kinds as kinds
import numpy as np
import pytest
import simplejpeg
from media_kinds import Picture, moving

from avt_jax.data.extraction.clip_record import ExtractConfig, make_record

CONFIG = ExtractConfig(frame_rate_hz=10, short_side_px=48, jpeg_quality=95)


def make(path):
    return make_record(path, None, None, config=CONFIG, id="x", source="x")


@pytest.mark.parametrize("transfer", [kinds.PQ, kinds.HLG])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_high_dynamic_range_is_shown_on_an_ordinary_display(transfer, suffix, tmp_path):
    # Grey of 18 %, white, ten times as bright as grey, and BT.709's red in BT.2020's primaries.
    red = [100 * share for share in (0.6274, 0.0691, 0.0164)]
    frames = kinds.hdr_frames([[0.18 * 203] * 3, [203] * 3, [900] * 3, red], transfer)
    codec = {"mkv": ("ffv1", {}), "mp4": ("libx265", {"preset": "ultrafast", "crf": "5"})}[suffix]
    setup = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    stream = Picture(frames, codec=codec[0], options=codec[1], pix_fmt="yuv420p10le", setup=setup)
    record = make(kinds.write(tmp_path / f"hdr.{suffix}", [stream]))
    assert "hdr" in record["flags"]
    image_hwc = simplejpeg.decode_jpeg(record["frames"][2]).astype(float)
    grey_rgb, white_rgb, bright_rgb, red_rgb = (
        image_hwc[rows, columns].mean(axis=(0, 1))
        for rows in (slice(4, 20), slice(28, 44))
        for columns in (slice(4, 28), slice(36, 60))
    )
    # A display of BT.1886 shows 0.18 of white for this code.
    assert grey_rgb == pytest.approx(np.full(3, 255 * 0.18 ** (1 / 2.4)), abs=4)
    assert 240 <= white_rgb.min() and white_rgb.max() <= 250
    assert 250 < bright_rgb.min()
    assert red_rgb[0] == pytest.approx(255 * (100 / 203) ** (1 / 2.4), abs=6)
    assert red_rgb[1:].max() < 30


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"), [("mov", "qtrle", "argb"), ("mkv", "ffv1", "yuva420p")]
)
def test_what_is_transparent_is_shown_in_its_colour(suffix, codec, pix_fmt, tmp_path):
    frames = []
    for image_hwc in moving(10):
        alpha_hw1 = np.full((*image_hwc.shape[:2], 1), 255, np.uint8)
        alpha_hw1[:, :32] = 0
        rgba = np.concatenate([image_hwc, alpha_hw1], axis=2)
        frames.append(av.VideoFrame.from_ndarray(rgba, "rgba").reformat(format=pix_fmt))
    stream = Picture(frames, codec=codec, pix_fmt=pix_fmt, options={})
    record = make(kinds.write(tmp_path / f"alpha.{suffix}", [stream]))
    image_hwc = simplejpeg.decode_jpeg(record["frames"][0]).astype(int)
    places = image_hwc[[16, 16, 30, 30], [20, 40, 20, 40]]
    assert np.abs(places - kinds.QUARTERS).max() <= 45


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_interlaced_pictures_are_stored_with_both_fields(suffix, tmp_path):
    image_hwc = np.full((48, 64, 3), 40, np.uint8)
    image_hwc[::2] = 210  # one field is bright
    setup = {"flags": 0x00040000 | 0x20000000}  # interlaced DCT and motion
    stream = Picture([image_hwc] * 40, codec="mpeg2video", options={"g": "1"}, setup=setup)
    path = kinds.write(tmp_path / f"interlaced.{suffix}", [stream])
    with av.open(str(path)) as opened:
        assert next(opened.decode(video=0)).interlaced_frame, "the case should be interlaced"
    record = make(path)
    assert len(record["frames"]) in (16, 17)
    lines_h = simplejpeg.decode_jpeg(record["frames"][3])[:, 8:56, 1].mean(axis=1)
    assert lines_h[::2].min() > 180 and lines_h[1::2].max() < 70
