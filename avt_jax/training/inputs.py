"""What a `data` block says of the model's input: its shape and its normalisation."""

from __future__ import annotations

from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import MEL_BINS
from avt_jax.models.forward import Normalisation
from avt_jax.models.inputs import InputSpec


def normalisation(data: DataConfig) -> Normalisation:
    """The normalisation constants of a `data` block."""
    return Normalisation(data.video_mean, data.video_std, data.audio_mean, data.audio_std)


def input_spec(data: DataConfig) -> InputSpec:
    """The shape of a clip as a `data` block describes it."""
    return InputSpec(data.num_frames, data.frame_size_px, data.fbank_frames, MEL_BINS)
