"""The shape of what a model reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class InputSpec:
    """The shape of what a model reads.

    Attributes:
      num_frames: video frames of a clip.
      frame_size_px: height and width of a frame.
      fbank_frames: spectrogram frames of a clip.
      mel_bins: mel bins of the spectrogram.
      video_tokens: (tokens, width) of cached tokens, read in place of frames; (0, 0) = none.
      audio_tokens: the same, in place of a spectrogram.
    """

    num_frames: int
    frame_size_px: int
    fbank_frames: int
    mel_bins: int
    video_tokens: tuple[int, int] = (0, 0)
    audio_tokens: tuple[int, int] = (0, 0)

    @property
    def is_tokens(self) -> bool:
        """Whether cached tokens are read."""
        return any(self.video_tokens + self.audio_tokens)

    def of_clip(self) -> dict[str, Any]:
        """The fields of a clip, by name."""
        names = ("num_frames", "frame_size_px", "fbank_frames", "mel_bins")
        return {name: getattr(self, name) for name in names}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{modality: shape of what is read of one clip}."""
        if self.is_tokens:
            return {"video": self.video_tokens, "audio": self.audio_tokens}
        side = self.frame_size_px
        return {
            "video": (self.num_frames, side, side, 3),
            "audio": (self.fbank_frames, self.mel_bins),
        }
