"""The shape of what a model reads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class InputSpec:
    """The shape of what a model reads.

    Attributes:
      num_frames: video frames of a clip.
      frame_size_px: height and width of a frame.
      fbank_frames: spectrogram frames of a clip.
      mel_bins: mel bins of the spectrogram.
    """

    num_frames: int
    frame_size_px: int
    fbank_frames: int
    mel_bins: int
