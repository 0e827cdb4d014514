"""Classification: softmax cross-entropy with label smoothing, one or several label sets."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

Metrics = dict[str, tuple[jax.Array, jax.Array]]


def classification_loss(
    logits: Mapping[str, jax.Array],
    labels: Mapping[str, jax.Array],
    valid_b: jax.Array,
    *,
    label_smoothing: float = 0.0,
) -> Metrics:
    """Cross-entropy summed over the label sets, and the top-1 hits of each.

    Args:
      logits: {label set: [b, y] float}; computed in float32 at least.
      labels: {label set: [b] int32}.
      valid_b: [b] bool; padding (False) counts nowhere.
      label_smoothing: in [0, 1): this much of the target is spread evenly over all classes.

    Returns:
      {"classification": (sum, count), "top1/<label set>": (hits, count)}; with two or more label
      sets also "top1/all", the clips that are right in every one of them.

    Source: arXiv:2401.04154, L_cls; EPIC-Kitchens-100 sums verb and noun.
    """
    weight_b = valid_b.astype(jnp.float32)
    count = weight_b.sum()
    loss_b = jnp.zeros(valid_b.shape)
    right_b = valid_b
    metrics: Metrics = {}
    for name, logits_by in logits.items():
        logits_by = logits_by.astype(jnp.promote_types(logits_by.dtype, jnp.float32))
        target_by = optax.smooth_labels(
            jax.nn.one_hot(labels[name], logits_by.shape[-1]), label_smoothing
        )
        loss_b += optax.softmax_cross_entropy(logits_by, target_by)
        hit_b = (logits_by.argmax(-1) == labels[name]) & valid_b
        right_b &= hit_b
        metrics[f"top1/{name}"] = (hit_b.sum().astype(jnp.float32), count)
    if len(logits) > 1:
        metrics["top1/all"] = (right_b.sum().astype(jnp.float32), count)
    # `where`, not a product: a padded row may hold anything, and 0 * inf is not 0.
    metrics["classification"] = (jnp.where(valid_b, loss_b, 0.0).sum(), count)
    return metrics
