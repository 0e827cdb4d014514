"""What the reconstruction terms hide of a batch: the strategies of `audio.masking`, for a model."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jax

from avt_jax import axes
from avt_jax.audio.activity import ActivityConfig
from avt_jax.audio.masking import MaskingConfig, PatchGrid, hide_audio, hide_video
from avt_jax.errors import UserError
from avt_jax.models.avt import AVT
from avt_jax.models.forward import Hide
from avt_jax.models.inputs import InputSpec


def make_hide(
    model: AVT,
    modalities: Collection[str],
    masking: MaskingConfig,
    activity: ActivityConfig,
    spec: InputSpec,
) -> dict[str, Hide]:
    """Builds the functions that choose what is hidden.

    Args:
      model: an AVT; only its encoders' grids are looked at.
      modalities: of "audio" and "video".
      masking: strategy and ratios.
      activity: parameters of the activity detection.
      spec: the shape of what the model reads.

    Returns:
      {modality: (batch, key) -> (masked [b, tokens], fallback [b])}, for `models.forward.Forward`.

    Raises:
      UserError: frames so small that the video encoder sees them as one patch, which would leave
        nothing to see.
    """
    if "video" in modalities:
        side = spec.frame_size_px
        _, rows, columns = model.video_encoder.token_grid((1, spec.num_frames, side, side, 3))
        if rows * columns < 2:
            raise UserError(
                f"config.data.frame_size_px is {side}: that is one patch for the video encoder; "
                "give larger frames, or 0 for config.losses.weights.masked_video."
            )

    def audio(batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        encoder, fbank_bsf = model.audio_encoder, batch[axes.AUDIO]
        grid = PatchGrid(*encoder.token_grid(fbank_bsf.shape), *encoder.config.strides)
        return hide_audio(fbank_bsf, key, grid=grid, config=masking, activity=activity)

    def video(batch: Mapping[str, Any], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = batch[axes.VIDEO].shape
        grid = model.video_encoder.token_grid(shape)
        masked_bn = hide_video((shape[0], *grid), key, ratio=masking.video_ratio)
        # A tube is always there to be chosen.
        return masked_bn, ~masked_bn.any(1)

    known = {"audio": audio, "video": video}
    return {name: known[name] for name in modalities}
