"""Classification: softmax cross-entropy with label smoothing, one or several label sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import optax

from avt_jax import axes
from avt_jax.losses.interface import Batch, Forward, Metrics, Term
from avt_jax.settings import Block, setting


@dataclass(frozen=True)
class Options(Block, where="config.losses"):
    """The term's own fields."""

    label_smoothing: float = setting(
        0.1,
        "classification: this much of the target is spread evenly over all classes",
        at_least=0,
        below=1,
    )


def classification_loss(
    logits: Mapping[str, jax.Array],
    labels: Mapping[str, jax.Array],
    valid_b: jax.Array,
    *,
    label_smoothing: float = 0.0,
    partner_labels: Mapping[str, jax.Array] | None = None,
    own_share_b: jax.Array | None = None,
) -> Metrics:
    """Cross-entropy summed over the label sets, and the top-1 hits of each.

    Args:
      logits: {label set: [b, y] float}; computed in float32 at least.
      labels: {label set: [b] int32}.
      valid_b: [b] bool; padding (False) counts nowhere.
      label_smoothing: in [0, 1): this much of the target is spread evenly over all classes.
      partner_labels: {label set: [b] int32} of the clips that were mixed in; None = none were.
      own_share_b: [b] float32 in [0, 1], how much of each example is its own; with partner_labels.

    Returns:
      {"classification": (sum, count), "top1/<label set>": (hits, count)}; with two or more label
      sets also "top1/all", the clips that are right in every one of them. What was mixed is right
      with the label of the larger part.

    Raises:
      ValueError: only one of partner_labels and own_share_b is given.

    Source: arXiv:2401.04154, L_cls; EPIC-Kitchens-100 sums verb and noun.
    """
    if (partner_labels is None) != (own_share_b is None):
        raise ValueError("give both or neither of partner_labels and own_share_b")
    weight_b = valid_b.astype(jnp.float32)
    count = weight_b.sum()
    loss_b = jnp.zeros(valid_b.shape)
    right_b = valid_b
    metrics: Metrics = {}
    for name, logits_by in logits.items():
        logits_by = logits_by.astype(jnp.promote_types(logits_by.dtype, jnp.float32))
        label_b, num_classes = labels[name], logits_by.shape[-1]
        target_by = jax.nn.one_hot(label_b, num_classes)
        if partner_labels is not None and own_share_b is not None:
            share_b1, partner_b = own_share_b[:, None], partner_labels[name]
            target_by = share_b1 * target_by + (1 - share_b1) * jax.nn.one_hot(
                partner_b, num_classes
            )
            label_b = jnp.where(own_share_b >= 0.5, label_b, partner_b)
        target_by = optax.smooth_labels(target_by, label_smoothing)
        loss_b += optax.softmax_cross_entropy(logits_by, target_by)
        hit_b = (logits_by.argmax(-1) == label_b) & valid_b
        right_b &= hit_b
        metrics[f"top1/{name}"] = (hit_b.sum().astype(jnp.float32), count)
    if len(logits) > 1:
        metrics["top1/all"] = (right_b.sum().astype(jnp.float32), count)
    # `where`, not a product: a padded row may hold anything, and 0 * inf is not 0.
    metrics["classification"] = (jnp.where(valid_b, loss_b, 0.0).sum(), count)
    return metrics


def _term(forward: Forward, batch: Batch, options: Options) -> Metrics:
    def score(logits: dict[str, jax.Array]) -> Metrics:
        return classification_loss(
            logits,
            batch[axes.LABELS],
            batch[axes.VALID],
            label_smoothing=options.label_smoothing,
            partner_labels=batch.get(axes.PARTNER_LABELS),
            own_share_b=batch.get(axes.OWN_SHARE),
        )

    metrics = score(forward.logits)
    # A model that classifies each modality (MBT) is trained on the mean of their losses; what it
    # predicts, and is counted by, is the mean of their logits.
    apart = [score(logits)["classification"][0] for logits in forward.modality_logits]
    if apart:
        total = sum(apart, start=jnp.float32(0))
        metrics["classification"] = (total / len(apart), metrics["classification"][1])
    return metrics


TERM = Term(_term, Options)
