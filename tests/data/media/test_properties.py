"""One property, one container: the record is what the file was made to show and to play."""

from __future__ import annotations

import dataclasses
import fractions

import av
import media_kinds as kinds
import numpy as np
import pytest
import simplejpeg
from media_kinds import (
    AMPLITUDE,
    ONSET_SEC,
    SECONDS,
    Picture,
    Sound,
    Text,
    beep,
    both,
    grey,
    moving,
)

from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.media import scan
from avt_jax.data.media.probe import probe
from avt_jax.data.media.sound import decode_audio

FRAME_RATE_HZ = 10
CONFIG = ExtractConfig(frame_rate_hz=FRAME_RATE_HZ, short_side_px=48, jpeg_quality=95)
FLAGS = av.stream.Disposition
LEVEL = AMPLITUDE / 2**0.5

# Display matrices, and the same done to an array.
ONE, HALF = 1 << 16, 1 << 30
TURNS = {
    "mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upended": ((1, 0, 0, -1), lambda image: image[::-1]),
    "half": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "counterclockwise": ((0, -1, 1, 0), np.rot90),
    "transposed": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "transverse": ((0, -1, -1, 0), lambda image: image[::-1, ::-1].transpose(1, 0, 2)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A file, and what is to be found in it.

    `make` writes the file. `turn` gives the wanted picture from the coded one. `shows`: the number
    of the source's frame at a time in seconds; None: not looked at.
    """

    name: str
    suffix: str
    make: object
    seconds: float = SECONDS
    num_frames: int = 16
    size_px: tuple[int, int] = (48, 64)  # height, width
    turn: object = lambda image: image
    onset_sec: float | None = ONSET_SEC
    level: float = LEVEL
    flags: tuple[str, ...] = ()
    picture_sec: float = 0.0  # when the first frame is shown
    is_timed: bool = True  # the bar can be looked at

    def __str__(self):
        return f"{self.name}-{self.suffix}"


def matrix(a, b, c, d):
    return (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, HALF)


def every(name, suffixes, make, **expected):
    return [Case(name, suffix, make, **expected) for suffix in suffixes.split()]


ALL = "mp4 mov mkv webm ts avi flv asf ogg"
SHIFTED = "mp4 mov mkv webm ts flv asf ogg"  # AVI knows no start
TEXTS = {"mkv": "srt", "webm": "webvtt", "mp4": "mov_text"}


def lengths():
    yield from every("plain", ALL, both)
    for start_sec in (0.7, 1000.0):
        yield from every(
            f"starts_at_{start_sec:g}", SHIFTED, lambda path, s=start_sec: both(path, start_sec=s)
        )
    for suffix, codec in TEXTS.items():
        yield Case(
            "subtitle_outlasts",
            suffix,
            lambda path, c=codec: both(path, more=[Text(c, 0.2, 9.0)]),
        )
        yield Case(
            "subtitle_hangs_over",
            suffix,
            lambda path, c=codec: both(path, more=[Text(c, 0.2, 1.75)]),
        )
    yield from every(
        "header_says_less",
        "mp4 mkv webm avi flv asf",
        lambda path: kinds.state_length(both(path), 0.3),
    )
    for suffix in ("mp4", "mkv", "webm", "avi"):
        yield Case(
            "header_says_more",
            suffix,
            lambda path: kinds.state_length(both(path), 3.0),
            # Of an mp4's two statements FFmpeg believes the one about its samples.
            flags=() if suffix == "mp4" else ("short",),
        )
    yield from every(
        "one_picture",
        ALL,
        lambda path: both(path, picture={"images": moving()[:1]}),
        flags=("still_video",),
        is_timed=False,
    )
    yield from every(
        "sound_late",
        "mp4 mov mkv webm ts flv",
        sound_late,
        seconds=2.1,
        num_frames=16,
        onset_sec=ONSET_SEC + 0.5,
        flags=("partial_audio", "short"),
    )
    yield from every(
        "picture_late",
        "mp4 mov mkv webm ts flv",
        picture_late,
        seconds=2.0,
        num_frames=20,
        picture_sec=0.4,
        flags=("partial_audio",),
    )


def sound_late(path):
    return both(path, sound={"start_sec": 0.5})


def picture_late(path):
    return both(path, picture={"start_sec": 0.4})


def geometry():
    for name, (numbers, turn) in TURNS.items():
        yield from every(
            name,
            "mp4 mov",
            lambda path, n=numbers: both(path, picture={"matrix": matrix(*n)}),
            size_px=(64, 48) if numbers[0] == 0 else (48, 64),
            turn=turn,
            is_timed=name == "mirrored",
        )
    wide = {"sar": fractions.Fraction(4, 3)}
    yield from every(
        "wide_pixels",
        "mp4 mov mkv ts avi flv asf ogg",
        lambda path: both(path, picture=wide),
        size_px=(48, 85),
    )
    narrow = {"sar": fractions.Fraction(1, 2), "matrix": matrix(0, 1, -1, 0)}
    yield from every(
        "narrow_pixels_turned",
        "mp4 mov",
        lambda path: both(path, picture=narrow),
        size_px=(32, 48),
        turn=TURNS["clockwise"][1],
        is_timed=False,
    )


def streams():
    other = Picture(grey(height_px=96, width_px=128), disposition=0)
    chosen = {"disposition": FLAGS.default}
    yield from every(
        "default_before_larger", "mkv", lambda path: both(path, picture=chosen, more=[other])
    )
    # The muxer of mp4 marks the first stream as default unless told otherwise.
    small = Picture(grey(height_px=24, width_px=32), disposition=FLAGS.default)
    thumbnail = Picture(grey(1, 96, 128), disposition=FLAGS.default)
    yield from every("largest", "mp4 mov ts", lambda path: after(path, small, chosen))
    yield from every("no_thumbnail", "mp4 mov mkv ts", lambda path: after(path, thumbnail, chosen))
    cover = Picture(
        grey(1, 96, 128), codec="mjpeg", pix_fmt="yuvj420p", disposition=FLAGS.attached_pic
    )
    yield from every("no_cover", "mp4 mkv", lambda path: both(path, more=[cover]))


def after(path, other, chosen):
    """The usual streams after another one."""
    rate_hz = kinds.CONTAINERS[path.suffix[1:]].audio_rate_hz
    return kinds.write(path, [other, Picture(moving(), **chosen), Sound(beep(rate_hz=rate_hz))])


def levels():
    for layout, only, share in [
        ("stereo", 0, 0.5),
        ("5.1", 2, 0.5**0.5),
        ("5.1", 0, 0.5),
        ("5.1", 4, 0.5**0.5 / 2),
        ("7.1", 2, 0.5**0.5),
    ]:
        for suffix, codec in [("mp4", "aac"), ("mkv", "flac"), ("ts", "aac"), ("mov", "pcm_s16le")]:
            channels = {"stereo": 2, "5.1": 6, "7.1": 8}[layout]
            wave_cs = beep(channels=channels, only=only)
            yield Case(
                f"channel_{only}_of_{layout}",
                suffix,
                lambda path, w=wave_cs, y=layout, c=codec: both(
                    path, sound={"wave_cs": w, "layout": y, "codec": c}
                ),
                level=share * LEVEL,
            )


CASES = [*lengths(), *geometry(), *streams(), *levels()]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_record_is_what_the_file_was_made_to_be(case, tmp_path):
    check_record(case, tmp_path)


LENGTH_CASES = [
    case
    for case in lengths()
    if case.suffix not in ("webm", "ogg") and not case.name.endswith(("_late", "_0.7"))
]


@pytest.mark.parametrize("case", LENGTH_CASES, ids=str)
def test_so_it_is_where_only_the_ends_of_a_file_are_read(case, tmp_path, monkeypatch):
    monkeypatch.setattr(scan, "_SMALL_BYTES", 1000)
    check_record(case, tmp_path)


def check_record(case, tmp_path):
    """Compares the record, the probe and the sound of a case's file."""
    path = case.make(tmp_path / f"a.{case.suffix}")
    record = make_record(path, None, None, config=CONFIG, id="x", source="x")
    # A packet of sound, 1024 samples at 48 kHz, may hang over; ASF counts what is read ahead.
    assert record["end_sec"] == pytest.approx(case.seconds, abs=0.09)
    assert abs(len(record["frames"]) - case.num_frames) <= 1
    assert record["flags"] == list(case.flags)
    images_thwc = [simplejpeg.decode_jpeg(jpeg) for jpeg in record["frames"]]
    assert images_thwc[0].shape[:2] == case.size_px
    media = probe(path)
    assert media.duration_sec == record["end_sec"]
    assert (media.height_px, media.width_px) == case.size_px
    for image_hwc in images_thwc[:: len(images_thwc) - 1]:
        check_picture(image_hwc, case)
    if case.is_timed:
        check_times(images_thwc, case)
    waveform = decode_audio(path, 0.0, record["end_sec"])
    assert onset_sec(waveform) == pytest.approx(case.onset_sec, abs=0.05)
    heard = waveform[round((case.onset_sec + 0.1) * 16000) :][:8000]
    assert heard.std() == pytest.approx(case.level, rel=0.08)


def check_picture(image_hwc, case):
    """Compares a place of each quarter; the bar is never there in the first and last frame."""
    wanted_hwc = case.turn(kinds.picture())
    for row in (0.32, 0.62):
        for column in (0.32, 0.62):
            got, want = (
                image[round(row * image.shape[0]), round(column * image.shape[1])].astype(int)
                for image in (image_hwc, wanted_hwc)
            )
            assert np.abs(got - want).max() <= 45, (row, column)


def check_times(images_thwc, case):
    """The bar's upper edge, in pixels, is the number of the frame."""
    for index, image_hwc in enumerate(images_thwc):
        lines_hc = image_hwc[:, 4:20].astype(int).mean(axis=1)
        rows = np.flatnonzero(np.abs(lines_hc - 110).max(axis=1) < 30)
        wanted = max(0.0, (index / FRAME_RATE_HZ - case.picture_sec) * kinds.RATE_HZ)
        assert abs(rows.mean() - 3.5 - int(wanted + 0.1)) <= 2, index


def onset_sec(waveform):
    """When the sound becomes loud."""
    loud = np.abs(waveform) > 0.3 * np.abs(waveform).max()
    return float(loud.argmax()) / 16000


def test_slides_stay_as_long_as_there_is_sound(tmp_path):
    for suffix in ("mp4", "mkv", "webm", "avi"):
        images = [kinds.picture(), kinds.picture()[:, ::-1]]
        rate_hz = kinds.CONTAINERS[suffix].audio_rate_hz
        path = kinds.write(
            tmp_path / f"slides.{suffix}",
            [Picture(images, [0.0, 1.0]), Sound(beep(2.6, rate_hz=rate_hz))],
        )
        record = make(path)
        assert record["flags"] == [] and len(record["frames"]) in (26, 27)
        first, last = (simplejpeg.decode_jpeg(record["frames"][i]).astype(int) for i in (5, -1))
        assert np.abs(first[10, 10] - kinds.QUARTERS[0]).max() < 45
        assert np.abs(last[10, 10] - kinds.QUARTERS[1]).max() < 45
        # Behind the last picture, too.
        assert len(make(path, 2.0, 2.5)["frames"]) == 5


@pytest.mark.parametrize("is_large", [False, True])
@pytest.mark.parametrize("starts_sec", [(0.0, 0.0, 0.0), (1000.0, 0.0), (0.0, 40.0, 7.0)])
def test_transport_streams_joined_end_to_end_go_on(starts_sec, is_large, tmp_path, monkeypatch):
    parts = [both(tmp_path / f"{sec:g}.ts", start_sec=sec) for sec in starts_sec]
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    if is_large:
        monkeypatch.setattr(scan, "_SMALL_BYTES", 1000)
    alone = make(parts[-1])
    record = make(path)
    # A packet of sound, 1024 samples at 48 kHz, hangs over at the end of each part.
    part_sec = SECONDS + 1024 / 48000
    start_sec = (len(starts_sec) - 1) * part_sec
    if starts_sec[1] > starts_sec[0]:
        start_sec += 40 - part_sec  # stamps that leap ahead are a hole
    assert record["end_sec"] == pytest.approx(start_sec + part_sec, abs=0.03)
    # The last part is where the others end, and the same as alone.
    again = make(path, start_sec, None)
    assert abs(len(again["frames"]) - len(alone["frames"])) <= 1
    # Its very first frame comes a moment after its sound.
    for one, two in zip(alone["frames"][1:16], again["frames"][1:16], strict=False):
        one_hwc, two_hwc = (simplejpeg.decode_jpeg(jpeg).astype(int) for jpeg in (one, two))
        assert np.abs(one_hwc - two_hwc).mean() < 8
    waveform = decode_audio(path, start_sec, start_sec + SECONDS)
    assert onset_sec(waveform) == pytest.approx(ONSET_SEC, abs=0.05)


def make(path, start_sec=None, end_sec=None):
    return make_record(path, start_sec, end_sec, config=CONFIG, id="x", source="x")
