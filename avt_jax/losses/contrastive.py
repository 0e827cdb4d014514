"""Audio-video contrastive loss (before fusion) over the global batch."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from avt_jax import axes
from avt_jax.errors import UserError
from avt_jax.losses.interface import Batch, Forward, Metrics, Term, paired
from avt_jax.settings import Block, setting


@dataclass(frozen=True)
class Options(Block, where="config.losses"):
    """The term's own fields."""

    temperature_min: float = setting(
        0.01, "contrastive: lower bound of the learned temperature", above=0
    )
    temperature_max: float = setting(0.5, "contrastive: upper bound of the temperature", above=0)
    contrastive_form: str = setting(
        "softmax",
        "contrastive: softmax (InfoNCE) or sigmoid (SigLIP)",
        choices=("softmax", "sigmoid"),
    )

    def check(self) -> None:
        """Refuses bounds that leave no room."""
        if self.temperature_min > self.temperature_max:
            raise UserError(
                f"config.losses.temperature_min is {self.temperature_min} and temperature_max "
                f"{self.temperature_max}; give bounds with the smaller one first."
            )


# Stands for "not a candidate". Finite, because a row without any candidate must not give NaN.
_EXCLUDED = -1e9


def bounded_temperature(
    log_temperature: jax.Array, temperature_min: float, temperature_max: float
) -> jax.Array:
    """exp of a learned logarithm, kept within two bounds; outside them its gradient is 0."""
    wide = log_temperature.astype(jnp.promote_types(log_temperature.dtype, jnp.float32))
    return jnp.clip(jnp.exp(wide), temperature_min, temperature_max)


def contrastive_loss(
    z_video_bd: jax.Array,
    z_audio_bd: jax.Array,
    log_temperature: jax.Array,
    group_b: jax.Array,
    valid_b: jax.Array,
    *,
    form: str = "softmax",
    bias: jax.Array | float = 0.0,
    temperature_min: float = 0.01,
    temperature_max: float = 0.5,
) -> Metrics:
    """Contrast between the clips' video and audio embeddings.

    The arrays are global: under `jit` on a mesh, `z_video @ z_audio.T` already compares every
    clip with every other on all devices, so one device and many give the same number.

    Args:
      z_video_bd: [b, d] L2-normalised.
      z_audio_bd: [b, d] L2-normalised; same row = same clip.
      log_temperature: scalar; exp of it is kept within the two bounds.
      group_b: [b] int32 source video; two clips of one source are not each other's negatives.
      valid_b: [b] bool; False (padding, or no pair to compare) is neither anchor nor candidate.
      form: "softmax": symmetric InfoNCE, the mean of both directions' cross-entropy; "sigmoid":
        every pair by itself, the sum over a clip's pairs, as in SigLIP.
      bias: scalar added to the logits; of the sigmoid form only.
      temperature_min: lower bound of the temperature, no unit.
      temperature_max: upper bound.

    Returns:
      {"contrastive": (sum, count), "contrastive_top1": (hits, count), "temperature": (value, 1)};
      the sum and the count are over valid clips; one without any negative adds 0 to the sum.

    Source: arXiv:2401.04154, L_AVC; sigmoid: arXiv:2303.15343, sec. 3.2. Deviation: clips of one
    source are excluded as negatives.
    """
    temperature = bounded_temperature(log_temperature, temperature_min, temperature_max)
    wide = jnp.promote_types(z_video_bd.dtype, jnp.float32)
    # What is not valid may hold anything: it is replaced before it can meet a gradient.
    z_video_bd, z_audio_bd = (
        jnp.where(valid_b[:, None], z.astype(wide), 0) for z in (z_video_bd, z_audio_bd)
    )
    logits_bb = z_video_bd @ z_audio_bd.T / temperature
    same_clip_bb = jnp.eye(len(group_b), dtype=bool)
    negative_bb = (group_b[:, None] != group_b) & valid_b[:, None] & valid_b
    softmax_bb = jnp.where(negative_bb | same_clip_bb, logits_bb, _EXCLUDED)
    if form == "sigmoid":
        sign_bb = jnp.where(same_clip_bb, 1, -1)
        loss_bb = -jax.nn.log_sigmoid(sign_bb * (logits_bb + bias))
        loss_b = jnp.where(negative_bb | same_clip_bb, loss_bb, 0).sum(1)
    else:
        both = jax.nn.logsumexp(softmax_bb, axis=1) + jax.nn.logsumexp(softmax_bb, axis=0)
        loss_b = 0.5 * both - jnp.diagonal(softmax_bb)
    count = valid_b.sum().astype(jnp.float32)
    hits = ((softmax_bb.argmax(1) == jnp.arange(len(group_b))) & valid_b).sum()
    return {
        "contrastive": (jnp.where(negative_bb.any(1), loss_b, 0.0).sum(), count),
        "contrastive_top1": (hits.astype(jnp.float32), count),
        "temperature": (jax.lax.stop_gradient(temperature), jnp.float32(1)),
    }


def _term(forward: Forward, batch: Batch, options: Options) -> Metrics:
    is_sigmoid = options.contrastive_form == "sigmoid"
    return contrastive_loss(
        *forward.embeddings,
        forward.log_temperature,
        batch[axes.GROUP],
        paired(batch),
        form=options.contrastive_form,
        bias=forward.contrastive_bias if is_sigmoid else 0.0,
        temperature_min=options.temperature_min,
        temperature_max=options.temperature_max,
    )


TERM = Term(_term, Options, modalities=("video", "audio"), needs="project", whole_batch=True)
