"""Masked reconstruction: what was hidden, predicted from the fused tokens."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from avt_jax import axes
from avt_jax.losses.interface import Batch, Forward, Metrics, Term

# Added to a patch's variance: a patch of digital silence has none.
_EPS = 1e-6


def normalise_patches(patches_bmp: jax.Array) -> jax.Array:
    """[b, m, p] to zero mean and unit variance within each patch; a constant patch to zeros."""
    wide = patches_bmp.astype(jnp.promote_types(patches_bmp.dtype, jnp.float32))
    mean = wide.mean(-1, keepdims=True)
    variance = jnp.square(wide - mean).mean(-1, keepdims=True)
    return (wide - mean) * jax.lax.rsqrt(variance + _EPS)


def reconstruction_loss(
    name: str,
    predicted_bmp: jax.Array,
    target_bmp: jax.Array,
    masked_bm: jax.Array,
    fallback_b: jax.Array,
    valid_b: jax.Array,
) -> Metrics:
    """Mean squared error on the hidden patches' normalised content.

    Args:
      name: of the term, such as "masked_audio".
      predicted_bmp: [b, m, p] what the decoder says, on the normalised scale.
      target_bmp: [b, m, p] the patches' content, not yet normalised.
      masked_bm: [b, m] bool, True = hidden.
      fallback_b: [b] bool, True where the strategy had nothing to choose from.
      valid_b: [b] bool; False (padding, nothing to hide) counts nowhere.

    Returns:
      {name: (sum, count), name_hidden: (hidden, all patches), name_fallback: (clips, clips)}: the
      sum is over hidden patches of the mean squared error within the patch; exactly 0, with zero
      gradient, when nothing is hidden.

    Source: arXiv:2401.04154, L_MAS; per-patch normalisation: MAE, arXiv:2111.06377.
    """
    used_bm = masked_bm & valid_b[:, None]
    difference = predicted_bmp - normalise_patches(target_bmp)
    # What is not used may hold anything; it is replaced before the square.
    difference = jnp.where(used_bm[..., None], difference, 0)
    count = used_bm.sum().astype(jnp.float32)
    clips = valid_b.sum().astype(jnp.float32)
    return {
        name: (jnp.square(difference).mean(-1).sum(), count),
        f"{name}_hidden": (count, clips * masked_bm.shape[1]),
        f"{name}_fallback": ((fallback_b & valid_b).sum().astype(jnp.float32), clips),
    }


def _compute(modality: str, forward: Forward, batch: Batch, options: object) -> Metrics:
    del options
    found = forward.reconstruction(modality)
    has_modality = {"audio": axes.HAS_AUDIO, "video": axes.HAS_VIDEO}[modality]
    valid_b = batch[axes.VALID] & batch[has_modality]
    return reconstruction_loss(
        f"masked_{modality}",
        found.predicted_bmp,
        found.target_bmp,
        found.masked_bm,
        found.fallback_b,
        valid_b,
    )


def _term(modality: str) -> Term:
    return Term(
        functools.partial(_compute, modality),
        modalities=(modality,),
        needs=f"reconstruct {modality}",
        advice=f"put {modality!r} into config.model.decoders or ",
        hides=modality,
    )


AUDIO, VIDEO = _term("audio"), _term("video")
