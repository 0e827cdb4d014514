"""Cuts sound out of video files: one channel, placed by its time stamps."""

from __future__ import annotations

import math
import os

import av
import numpy as np

from avt_jax.data.media.container import (
    DecodeError,
    DecodeReport,
    check_output,
    check_span,
    open_media,
    past_end_error,
)
from avt_jax.data.media.demux import Damage, decoded_frames, seek
from avt_jax.data.media.layout import Layout
from avt_jax.data.media.probe import layout_at

# Sound is decoded from a little earlier: codecs need a few frames to settle.
_LEAD_SEC = 0.5
# A jump in time stamps beyond this is a hole, less is jitter.
_GAP_SEC = 0.02
# Resampled along with the span on both sides, so that its edges are like any other place. A whole
# number of samples at every usual rate.
_MARGIN_SEC = 0.02
# What a header may ask for: more than any recorder makes, and little enough to fit into memory.
_MAX_RATE_HZ = 1_000_000

# PyAV looks for the end of a list of planes that is full from eight planes on, and reads beyond it.
_MANY_CHANNELS = 8

# What the channels of surround sound count in the mean of the two channels of ITU-R BS.775's mix,
# and 1/2 for what is at the front. Their sum is more than 1: loud passages of all of them are cut.
_HALF_POWER = 0.5**0.5
_SURROUND = dict.fromkeys(("SL", "SR", "BL", "BR", "TFL", "TFR", "TBL", "TBR"), _HALF_POWER / 2)
_MIX = {"FL": 0.5, "FR": 0.5, "FLC": 0.5, "FRC": 0.5, "FC": _HALF_POWER, "BC": 0.5, "LFE": 0.0}
_MIX |= _SURROUND
# What as many channels are when a file does not say.
_USUAL_LAYOUTS = {6: "5.1", 8: "7.1"}

# Zero and full scale of the sample formats, without the "p" of those with a plane per channel.
_SCALES = {
    "u8": (128, 128.0),
    "s16": (0, 2.0**15),
    "s32": (0, 2.0**31),
    "s64": (0, 2.0**63),
    "flt": (0, 1.0),
    "dbl": (0, 1.0),
}


def decode_audio(
    path: str | os.PathLike[str],
    start_sec: float,
    end_sec: float,
    *,
    sample_rate_hz: int = 16000,
    report: DecodeReport | None = None,
) -> np.ndarray | None:
    """Decodes the sound of a span as one channel: the mean of two, or the mix of surround sound.

    Args:
      path: a local file. Of several audio streams the one marked as default is taken, else the
        first.
      start_sec: >= 0, from the start of the file.
      end_sec: > start_sec.
      sample_rate_hz: of the result.
      report: told what was met, when all is decoded.

    Returns:
      float32 [samples] in [-1, 1], exactly round((end_sec - start_sec) * sample_rate_hz) samples,
      the first at start_sec; zeros where the stream has nothing. None without an audio stream.

    Raises:
      DecodeError: with any of `container.REASON_CODES` but no_video.
    """
    check_span(path, start_sec, end_sec)
    num_samples = round((end_sec - start_sec) * sample_rate_hz)
    check_output(path, num_samples * 4)
    layout = layout_at(path)
    if layout.audio is None:
        return None
    if start_sec >= layout.duration_sec:
        raise past_end_error(path, start_sec, layout.duration_sec)
    with open_media(path) as container:
        stream = container.streams[layout.audio]
        assert isinstance(stream, av.AudioStream), "that is what was chosen"
        timeline, num_damaged = _read_timeline(path, container, stream, start_sec, end_sec, layout)
    if report is not None:
        report.num_damaged += num_damaged
        if timeline is not None:
            report.sound_sec += timeline.covered_sec
            report.sound_end_sec = start_sec + timeline.covered_end_sec
    if timeline is None:
        if start_sec < _LEAD_SEC:
            raise DecodeError("unreadable", f"no sound of {path} can be decoded")
        return np.zeros(num_samples, np.float32)
    out = _resample(timeline.samples, timeline.sample_rate_hz, sample_rate_hz)
    out = out[round(_MARGIN_SEC * sample_rate_hz) :][:num_samples]
    return np.clip(np.pad(out, (0, num_samples - len(out))), -1.0, 1.0)


def _read_timeline(
    path: str | os.PathLike[str],
    container: av.container.InputContainer,
    stream: av.AudioStream,
    start_sec: float,
    end_sec: float,
    layout: Layout,
) -> tuple[_Timeline | None, int]:
    """The span's sound with a margin on both sides, and how many packets of it are damaged."""
    damage = Damage(start_sec + layout.origin_sec, end_sec + layout.origin_sec)
    if start_sec > _LEAD_SEC and layout.can_seek:
        seek(container, stream, start_sec - _LEAD_SEC + layout.origin_sec)
    clock = layout.clock()
    timeline = None
    for frame in decoded_frames(container, stream, damage):
        time_sec = None if frame.time is None else clock(frame.time)
        if not 0 < frame.sample_rate <= _MAX_RATE_HZ:
            damage.add(frame.time)
            continue
        if timeline is None:
            check_output(path, round((end_sec - start_sec) * frame.sample_rate) * 4)
            timeline = _Timeline(start_sec, end_sec, frame.sample_rate)
        if time_sec is not None and time_sec >= end_sec + _MARGIN_SEC:
            break
        try:
            is_good = timeline.add(frame, time_sec)
        except (av.error.FFmpegError, ValueError, KeyError):
            is_good = False  # no such format, or a number of channels that nothing can hold
        if not is_good:
            damage.add(frame.time)
    return timeline, damage.count


class _Timeline:
    """Mono sound at the source's own rate; frames are put where their time stamps say.

    Attributes:
      samples: float32, from _MARGIN_SEC before the span to as much after it; zero where nothing
        was added.
      sample_rate_hz: the source's.
      covered_sec: how much of the span was added.
      covered_end_sec: where in the span the last of it ends.
    """

    def __init__(self, start_sec: float, end_sec: float, sample_rate_hz: int):
        self._margin = round(_MARGIN_SEC * sample_rate_hz)
        self._start_sec = start_sec - _MARGIN_SEC
        num_samples = math.ceil((end_sec - start_sec + 2 * _MARGIN_SEC) * sample_rate_hz)
        self.samples = np.zeros(num_samples, np.float32)
        self.sample_rate_hz = sample_rate_hz
        self.covered_sec = self.covered_end_sec = 0.0
        self._position: int | None = None  # where a frame that follows without a hole goes

    def add(self, frame: av.AudioFrame, time_sec: float | None) -> bool:
        """Takes one decoded frame and its time (None: right after the one before).

        Returns:
          False when the frame holds values that are no numbers; they are made zero.
        """
        stated = self._position
        if time_sec is not None:
            stated = round((time_sec - self._start_sec) * self.sample_rate_hz)
        elif stated is None:
            stated = round(-self._start_sec * self.sample_rate_hz)
        # Containers round stamps (Matroska to 1 ms): only a real hole moves the position.
        allowed = _GAP_SEC * self.sample_rate_hz
        if self._position is None or abs(stated - self._position) > allowed:
            self._position = stated
        mono = _to_mono(frame)
        is_finite = bool(np.isfinite(mono).all())
        if not is_finite:
            mono = np.nan_to_num(mono, nan=0.0, posinf=0.0, neginf=0.0)
        # The rate may change within a stream; all of it must fit the rate of its first frame.
        mono = _resample(mono, frame.sample_rate, self.sample_rate_hz)
        first = max(0, -self._position)
        start = max(0, self._position)
        taken = mono[first : first + max(0, len(self.samples) - start)]
        self.samples[start : start + len(taken)] = taken
        self._position += len(mono)
        inner_end = min(start + len(taken), len(self.samples) - self._margin)
        num_inner = inner_end - max(start, self._margin)
        if num_inner > 0:
            self.covered_sec += num_inner / self.sample_rate_hz
            end_sec = (inner_end - self._margin) / self.sample_rate_hz
            self.covered_end_sec = max(self.covered_end_sec, end_sec)
        return is_finite


def _to_mono(frame: av.AudioFrame) -> np.ndarray:
    """One channel, float32 [samples], of any layout and sample format."""
    layout = frame.layout
    if frame.format.is_planar and layout.nb_channels >= _MANY_CHANNELS:
        interleave = av.AudioResampler("flt", layout, frame.sample_rate).resample
        frame.pts = None
        [frame] = interleave(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, layout.nb_channels).T
    zero, full_scale = _SCALES[frame.format.name.removesuffix("p")]
    weights = _weights(layout)
    if weights is None:
        mono = samples.mean(axis=0, dtype=np.float64) - zero
    else:
        mono = weights @ (samples.astype(np.float64) - zero)
    return (mono / full_scale).astype(np.float32)


def _weights(layout: av.AudioLayout) -> np.ndarray | None:
    """How much each channel counts in the mix; None: as much as every other.

    The mix is ITU-R BS.775's for two channels, and their mean: half of left and right, 0.71 of the
    centre, 0.35 of each surround channel, nothing of the channel for low frequencies.
    """
    if layout.nb_channels < 3:
        return None
    channels = [channel.name for channel in layout.channels]
    if not set(channels) <= set(_MIX) and len(channels) in _USUAL_LAYOUTS:
        usual = av.AudioLayout(_USUAL_LAYOUTS[len(channels)])
        channels = [channel.name for channel in usual.channels]
    if not set(channels) <= set(_MIX):
        return None
    return np.array([_MIX[name] for name in channels])


def _resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """Changes the rate of float32 [samples]; the first sample keeps its place in time."""
    if from_hz == to_hz:
        return samples
    frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
    frame.sample_rate = from_hz
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=to_hz)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])
