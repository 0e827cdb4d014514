"""Audio-video contrastive loss (before fusion) over the global batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp

Metrics = dict[str, tuple[jax.Array, jax.Array]]

# Stands for "not a candidate". Finite, because a row without any candidate must not give NaN.
_EXCLUDED = -1e9


def contrastive_loss(
    z_video_bd: jax.Array,
    z_audio_bd: jax.Array,
    log_temperature: jax.Array,
    group_b: jax.Array,
    valid_b: jax.Array,
    *,
    temperature_min: float = 0.01,
    temperature_max: float = 0.5,
) -> Metrics:
    """Symmetric InfoNCE between the clips' video and audio embeddings.

    The arrays are global: under `jit` on a mesh, `z_video @ z_audio.T` already compares every
    clip with every other on all devices, so one device and many give the same number.

    Args:
      z_video_bd: [b, d] L2-normalised.
      z_audio_bd: [b, d] L2-normalised; same row = same clip.
      log_temperature: scalar; exp of it is kept within the two bounds.
      group_b: [b] int32 source video; two clips of one source are not each other's negatives.
      valid_b: [b] bool; False (padding, or no audio to compare) is neither anchor nor candidate.
      temperature_min: lower bound of the temperature, no unit.
      temperature_max: upper bound.

    Returns:
      {"contrastive": (sum, count), "contrastive_top1": (hits, count), "temperature": (value, 1)};
      the sum is over valid clips of the mean of video-to-audio and audio-to-video cross-entropy.

    Source: arXiv:2401.04154, L_AVC. Deviation: clips of one source are excluded as negatives.
    """
    temperature = jnp.clip(
        jnp.exp(log_temperature.astype(jnp.float32)), temperature_min, temperature_max
    )
    logits_bb = (z_video_bd.astype(jnp.float32) @ z_audio_bd.astype(jnp.float32).T) / temperature
    same_clip_bb = jnp.eye(len(group_b), dtype=bool)
    candidate_bb = (group_b[:, None] != group_b[None, :]) & valid_b[:, None] & valid_b[None, :]
    logits_bb = jnp.where(candidate_bb | same_clip_bb, logits_bb, _EXCLUDED)
    positive_b = jnp.diagonal(logits_bb)
    loss_b = 0.5 * (
        jax.nn.logsumexp(logits_bb, axis=1) + jax.nn.logsumexp(logits_bb, axis=0)
    ) - positive_b
    count = valid_b.sum().astype(jnp.float32)
    hits = ((logits_bb.argmax(1) == jnp.arange(len(group_b))) & valid_b).sum()
    return {
        "contrastive": (jnp.where(valid_b, loss_b, 0.0).sum(), count),
        "contrastive_top1": (hits.astype(jnp.float32), count),
        "temperature": (jax.lax.stop_gradient(temperature), jnp.float32(1)),
    }
