"""Raw pixels and log-mels to model input, on the device."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def normalise_video(
    video_bthwc: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
    """uint8 RGB to zero mean and unit variance.

    Args:
      video_bthwc: [b, t, h, w, 3] uint8.
      mean: per channel, on the [0, 1] scale.
      std: per channel, on the [0, 1] scale.

    Returns:
      [b, t, h, w, 3] float32.
    """
    # One multiply-add per value: (x / 255 - mean) / std.
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    shift = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return video_bthwc.astype(jnp.float32) * scale - shift


def standardise_audio(fbank_bsf: jax.Array, mean: float, std: float) -> jax.Array:
    """Log-mel to (x - mean) / (2 std), the scale of AST's weights.

    Args:
      fbank_bsf: [b, s, f] raw log-mel.
      mean: over the data set.
      std: over the data set.

    Returns:
      [b, s, f] float32.
    """
    return (fbank_bsf.astype(jnp.float32) - mean) / (2 * std)
