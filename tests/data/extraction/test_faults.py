"""Every fault of real collections gives the record, the flag or the reason that is documented."""

from __future__ import annotations

import os
import struct

import av
import numpy as np
import pytest
import simplejpeg
from media_files import moving_bar, remux, tone, write_clip

from avt_jax.audio.melspec import fbank
from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.media import demux
from avt_jax.data.media.container import DecodeError
from avt_jax.data.media.sound import decode_audio

CONFIG = ExtractConfig(frame_rate_hz=25, short_side_px=48)


def make(path, start_sec=None, end_sec=None, config=CONFIG):
    return make_record(path, start_sec, end_sec, config=config, id="x", source="x")


def reason(path, start_sec=None, end_sec=None):
    with pytest.raises(DecodeError) as caught:
        make(path, start_sec, end_sec)
    return caught.value.reason_code


def bar_px(record):
    """Left edge of the moving bar in every frame."""
    images_thwc = [simplejpeg.decode_jpeg(jpeg) for jpeg in record["frames"]]
    return np.array([(image[:, :, 1].mean(axis=0) > 130).argmax() for image in images_thwc])


def loudest_bin(record):
    return int(record["fbank"].astype(np.float32).mean(axis=0).argmax())


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """One second with sound, in two groups of pictures."""
    path = tmp_path_factory.mktemp("good") / "good.mkv"
    options = {"g": "13", "sc_threshold": "0", "bf": "0"}
    return write_clip(path, moving_bar(), waves=[tone()], audio_codec="flac", video_options=options)


def test_a_good_clip_has_no_flags(good):
    record = make(good, 0.0, 1.0)
    assert record["flags"] == [] and record["has_audio"]
    assert len(record["frames"]) == 25 and len(record["fbank"]) == 98
    assert np.abs(bar_px(record) - np.arange(25) * 40 // 25).max() <= 1


# -- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height_px", "width_px"), [(47, 63), (33, 21), (1, 40), (301, 17)])
def test_odd_sizes(height_px, width_px, tmp_path):
    frames_thwc = np.full((5, height_px, width_px, 3), 60, np.uint8)
    frames_thwc[:, :, : width_px // 2, 1] = 200
    path = write_clip(
        tmp_path / "odd.mkv", frames_thwc, video_codec="ffv1", pix_fmt="yuv444p", waves=[tone(0.2)]
    )
    record = make(path)
    image_hwc = simplejpeg.decode_jpeg(record["frames"][-1])
    scale = min(1, 48 / min(height_px, width_px))
    assert image_hwc.shape == (round(height_px * scale), round(width_px * scale), 3)
    assert image_hwc[:, 0, 1].mean() > 180 and image_hwc[:, -1, 1].mean() < 80


@pytest.mark.parametrize(
    ("matrix", "corner"),
    [
        ((1, 0, 0, 1), (0, 0)),
        ((0, 1, -1, 0), (0, 1)),  # a quarter turn clockwise
        ((-1, 0, 0, -1), (1, 1)),
        ((0, -1, 1, 0), (1, 0)),
    ],
)
def test_rotation_in_the_header(matrix, corner, tmp_path):
    frames_thwc = np.full((25, 32, 64, 3), 30, np.uint8)
    frames_thwc[:, :12, :12] = 220  # marks the top left
    path = write_clip(tmp_path / "turned.mp4", frames_thwc, waves=[tone()])
    data = bytearray(path.read_bytes())
    # Nine 32-bit numbers, 40 bytes into the body of the track header (version 0).
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    image_hwc = simplejpeg.decode_jpeg(make(path)["frames"][3])
    assert image_hwc.shape == ((64, 32, 3) if matrix[0] == 0 else (32, 64, 3))
    corners = image_hwc[[[4], [-5]], [4, -5], 1]  # [top or bottom, left or right]
    assert np.unravel_index(corners.argmax(), (2, 2)) == corner and corners.max() > 180


@pytest.mark.parametrize("name", ["b.mp4", "b.mkv"])
def test_b_frames_at_the_start_keep_their_places(name, tmp_path):
    options = {"bf": "3", "b-pyramid": "normal", "b_strategy": "0", "g": "25"}
    path = write_clip(tmp_path / name, moving_bar(), video_options=options, waves=[tone()])
    record = make(path, 0.0, 1.0)
    assert len(record["frames"]) == 25 and record["flags"] == []
    assert np.abs(bar_px(record) - np.arange(25) * 40 // 25).max() <= 1


def test_a_file_that_starts_with_b_frames_of_a_group_that_is_gone(tmp_path):
    options = {"bf": "3", "g": "10", "x264-params": "open-gop=1:scenecut=0:b-adapt=0"}
    # Sound without a lead-in, which copying packets would turn into an offset.
    whole = write_clip(
        tmp_path / "whole.mov",
        moving_bar(),
        video_options=options,
        waves=[tone()],
        audio_codec="pcm_s16le",
    )
    keys = []

    def from_second_group(kind, index, packet):
        if kind == "video":
            keys.extend([index] * packet.is_keyframe)
            if len(keys) < 2:
                return None
        return bytes(packet)

    path = remux(whole, tmp_path / "open.mkv", from_second_group)
    record = make(path, 0.0, 1.0)
    # The first picture that can be decoded is shown until its successor's time; none is misplaced.
    shown = bar_px(record)
    first = int(shown[0] * 25 / 40 + 0.5)
    assert 7 <= first <= 14 and len(shown) == 25
    want = np.maximum(np.arange(25), first) * 40 // 25
    assert np.abs(shown - want).max() <= 2


def test_frames_of_another_size_in_mid_stream_are_fitted_to_the_first(tmp_path):
    small, large = [
        write_clip(tmp_path / f"{side}.h264", moving_bar(12, side, side)).read_bytes()
        for side in (48, 96)
    ]
    (tmp_path / "both.h264").write_bytes(small + large)
    record = make(tmp_path / "both.h264")
    assert len(record["frames"]) == 24
    assert {simplejpeg.decode_jpeg(j).shape for j in record["frames"]} == {(48, 48, 3)}
    shown = bar_px(record)
    assert np.abs(shown - np.tile(np.arange(12) * 40 // 12, 2)).max() <= 4


def noise_picture(seed, side_px=96):
    """Blotches of all sizes: harder to encode than a flat area."""
    rng = np.random.default_rng(seed)
    sizes = (2, 4, 8, 16)
    layers = [np.kron(rng.normal(0, 30, (side_px // s,) * 2), np.ones((s, s))) for s in sizes]
    grey = np.clip(128 + sum(layers), 0, 255).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


@pytest.mark.parametrize("crf", ["18", "30"])
def test_a_still_picture_is_flagged_in_spite_of_coding_noise(crf, tmp_path):
    still_thwc = np.repeat(noise_picture(0)[None], 25, axis=0)
    options = {"crf": crf, "g": "8"}
    path = write_clip(tmp_path / "still.mp4", still_thwc, video_options=options, waves=[tone()])
    assert make(path)["flags"] == ["still_video"]


def test_a_small_thing_that_moves_is_no_still_picture(tmp_path):
    frames_thwc = np.repeat(noise_picture(0)[None], 25, axis=0).copy()
    for index, image_hwc in enumerate(frames_thwc):
        image_hwc[40:48, 20 + 2 * index : 28 + 2 * index] = 255
    path = write_clip(tmp_path / "small.mp4", frames_thwc, waves=[tone()])
    assert make(path)["flags"] == []


def test_a_single_frame_is_not_called_still(good):
    assert make(good, 0.0, 0.04)["flags"] == []


# -- sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "rate_hz", "layout"),
    [
        ("a.avi", "pcm_u8", 8000, "mono"),
        ("b.mov", "pcm_s16le", 11025, "stereo"),
        ("c.mkv", "pcm_s24le", 44100, "5.1"),
        ("d.mov", "pcm_s24le", 192000, "mono"),
        ("e.mkv", "flac", 192000, "stereo"),
        ("f.mkv", "pcm_f64le", 96000, "stereo"),
        ("g.mp4", "aac", 48000, "5.1"),
        ("h.avi", "mp3", 32000, "mono"),
        ("i.mkv", "aac", 48000, "7.1"),
    ],
)
def test_every_depth_rate_and_number_of_channels(name, codec, rate_hz, layout, tmp_path):
    channels = {"mono": 1, "stereo": 2, "5.1": 6, "7.1": 8}[layout]
    wave_cs = tone(sample_rate_hz=rate_hz, channels=channels, frequency_hz=1000)
    path = write_clip(
        tmp_path / name,
        moving_bar(),
        video_codec="mpeg4" if name.endswith("avi") else "libx264",
        waves=[wave_cs],
        audio_codec=codec,
        sample_rate_hz=rate_hz,
        layout=layout,
    )
    waveform = decode_audio(path, 0.1, 0.9)
    assert waveform.shape == (12800,)
    # The mean of equal channels has the loudness of one of them. In surround sound the front counts
    # half each, the centre 0.71, and the channels at the sides and back 0.35 each.
    share = {6: 2.414, 8: 3.121}.get(channels, 1.0)
    assert waveform.std() == pytest.approx(0.3 / 2**0.5 * share, rel=0.05)
    crossings = np.count_nonzero(np.diff(np.signbit(waveform[1600:11200])))
    assert abs(crossings - 1200) <= 2  # 0.6 s of 1 kHz
    record = make(path, 0.0, 0.96)
    assert record["flags"] == [] and record["has_audio"]


def test_of_several_audio_streams_the_default_one_is_heard(tmp_path):
    waves = [tone(frequency_hz=300), tone(frequency_hz=3000)]
    alone = loudest_bin({"fbank": fbank(waves[1][0])})
    for default, name in [(1, "second.mkv"), (0, "first.mkv")]:
        path = write_clip(tmp_path / name, moving_bar(), waves=waves, default_audio=default)
        assert (loudest_bin(make(path)) == alone) == (default == 1)


@pytest.mark.parametrize(
    ("amplitude", "flags"), [(0.0, ["silent_audio"]), (5e-4, ["silent_audio"]), (5e-3, [])]
)
def test_silence_is_flagged(amplitude, flags, tmp_path):
    path = write_clip(
        tmp_path / "quiet.mkv",
        moving_bar(),
        waves=[tone(amplitude=amplitude)],
        audio_codec="pcm_s16le",
    )
    record = make(path)
    assert record["flags"] == flags and record["has_audio"] and len(record["fbank"]) == 98


def test_sound_of_a_part_of_the_clip_is_flagged(tmp_path):
    path = write_clip(tmp_path / "part.mp4", moving_bar(), waves=[tone(0.5)], audio_start_sec=0.3)
    record = make(path)
    assert record["flags"] == ["partial_audio"]
    loud_s = record["fbank"].astype(np.float32).max(axis=1) > -5
    rows = np.flatnonzero(loud_s)
    assert abs(rows[0] - 29) <= 2 and abs(rows[-1] - 79) <= 2


def test_a_span_without_any_sound_has_none(tmp_path):
    path = write_clip(tmp_path / "early.mkv", moving_bar(50), waves=[tone(0.3)])
    record = make(path, 1.2, 2.0)
    assert record["has_audio"] is False and record["fbank"].shape == (0, 128)
    assert record["flags"] == []


def test_sound_that_cannot_be_decoded_leaves_the_pictures(good, tmp_path):
    path = remux(
        good,
        tmp_path / "noise.mkv",
        lambda kind, index, packet: bytes(packet) if kind == "video" else b"\xff" * packet.size,
    )
    record = make(path)
    assert record["has_audio"] is False and len(record["frames"]) >= 25
    assert record["flags"] == ["damaged"]


def test_samples_that_are_no_numbers_are_silent(tmp_path):
    path = write_clip(
        tmp_path / "nan.mkv",
        moving_bar(),
        waves=[tone()],
        audio_codec="pcm_f32le",
        video_options={"bf": "0"},
    )
    nan = np.full(400, np.nan, "<f4").tobytes()
    broken = remux(
        path,
        tmp_path / "broken.mkv",
        lambda kind, index, packet: (
            nan + bytes(packet)[len(nan) :] if kind == "audio" and index == 4 else bytes(packet)
        ),
    )
    record = make(broken)
    assert np.isfinite(record["fbank"]).all() and record["flags"] == ["damaged"]


# -- length and damage ---------------------------------------------------------------------------


def test_a_file_that_ends_before_the_manifest_says_is_short(good):
    record = make(good, 0.2, 10.0)
    assert record["flags"] == ["short"] and record["end_sec"] < 1.2
    assert make(good, 0.2, 1.05)["flags"] == []  # less is missing than counts


def test_pictures_that_end_before_the_sound_are_short(tmp_path):
    path = write_clip(tmp_path / "long_sound.mp4", moving_bar(25), waves=[tone(3.0)])
    record = make(path)
    assert record["flags"] == ["short"]
    assert len(record["frames"]) == 25 and len(record["fbank"]) == pytest.approx(300, abs=10)
    assert reason(path, 1.5, 2.5) in ("span_past_end", "unreadable")


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.webm", "cut.avi"])
def test_a_file_cut_in_half_is_truncated(name, tmp_path):
    codecs = {"webm": ("libvpx", "libopus", 48000), "avi": ("mpeg4", "mp3", 16000)}
    video, audio, rate_hz = codecs.get(name[4:], ("libx264", "aac", 16000))
    options = {"deadline": "realtime", "cpu-used": "8"} if video == "libvpx" else {"g": "10"}
    path = write_clip(
        tmp_path / name,
        moving_bar(75),
        video_codec=video,
        video_options=options,
        audio_codec=audio,
        waves=[tone(3.0, sample_rate_hz=rate_hz)],
        sample_rate_hz=rate_hz,
    )
    data = path.read_bytes()
    for share in (0.1, 0.5):
        path.write_bytes(data[: int(share * len(data))])
        assert reason(path, 0.0, 3.0) == "truncated"


@pytest.mark.parametrize("kind", ["video", "audio"])
def test_broken_packets_in_the_middle_are_bridged_and_flagged(kind, good, tmp_path):
    path = remux(
        good,
        tmp_path / "broken.mkv",
        lambda kind_, index, packet: (
            b"\xff" * packet.size if kind_ == kind and 5 <= index < 8 else bytes(packet)
        ),
    )
    record = make(path, 0.0, 1.0)
    assert "damaged" in record["flags"]
    assert len(record["frames"]) == 25 and len(record["fbank"]) == 98
    # The second group of pictures starts with frame 13 and depends on nothing before it.
    shown = bar_px(record)
    for index in (0, 2, 14, 24):
        assert abs(shown[index] - index * 40 // 25) <= 1
    # A clip after the damage has nothing to do with it.
    assert make(path, 0.7, 1.0)["flags"] == []


def test_absurd_frame_sizes_are_refused_before_anything_is_allocated(tmp_path):
    path = write_clip(tmp_path / "huge.avi", moving_bar(), video_codec="rawvideo")
    data = bytearray(path.read_bytes())
    at = data.index(b"strf") + 8 + 4  # width and height in the stream's format
    data[at : at + 8] = (15000).to_bytes(4, "little") * 2
    path.write_bytes(data)
    assert reason(path) == "too_large"


def test_absurd_sample_rates_leave_the_pictures(tmp_path):
    path = write_clip(
        tmp_path / "rate.avi",
        moving_bar(),
        video_codec="mpeg4",
        audio_codec="pcm_s16le",
        waves=[tone()],
    )
    data = bytearray(path.read_bytes())
    at = data.rindex(b"strf") + 8 + 4  # samples per second in the sound's format
    assert data[at : at + 4] == (16000).to_bytes(4, "little")
    data[at : at + 4] = (2_000_000_000).to_bytes(4, "little")
    path.write_bytes(data)
    record = make(path)
    assert record["has_audio"] is False and "damaged" in record["flags"]
    assert len(record["frames"]) == 25


# -- no end --------------------------------------------------------------------------------------


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    assert reason(tmp_path / "pipe.mp4") == "unreadable"


class _StuckContainer:
    """Reports the same error each time it is read, as a demuxer may that cannot go on."""

    def __init__(self):
        self.num_reads = 0

    def demux(self, stream):
        self.num_reads += 1
        raise av.error.InvalidDataError(1, "stuck")
        yield


def test_a_reader_that_gets_nowhere_is_given_up(good):
    stuck = _StuckContainer()
    damage = demux.Damage(0.0, 1.0)
    with av.open(str(good)) as container:
        stream = container.streams.video[0]
        assert list(demux.decoded_frames(stuck, stream, damage)) == []
    assert 1 < stuck.num_reads <= 1000 and damage.count == stuck.num_reads
