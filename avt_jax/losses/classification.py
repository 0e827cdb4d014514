"""Classification: softmax or, for a multi-label set, sigmoid cross-entropy; one or several sets.

With class weights, a clip weighs as much as its class, mixed as its target is, and the mean is
weighted by that, as in torch.nn.CrossEntropyLoss. Of a multi-label set the mean over classes is
weighted, and every clip weighs 1. With several sets a clip counts as the mean over them.
"""

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
        "classification: this much of the target is spread evenly over all classes; of a "
        "multi-label set the targets of a class become share / classes and that plus 1 - share",
        at_least=0,
        below=1,
    )
    class_weights: str = setting(
        "",
        'classification: "balanced" = each class weighs clips / (classes x clips of the class), by '
        "the training split; or a CSV file with the columns class and weight, a row for each class "
        'of a label set. The loss is the weighted mean. "" = all weigh 1',
        empty=True,
    )


def classification_loss(
    logits: Mapping[str, jax.Array],
    labels: Mapping[str, jax.Array],
    valid_b: jax.Array,
    *,
    label_smoothing: float = 0.0,
    partner_labels: Mapping[str, jax.Array] | None = None,
    own_share_b: jax.Array | None = None,
    class_weights: Mapping[str, jax.Array] | None = None,
) -> Metrics:
    """Cross-entropy summed over the label sets, and the top-1 hits of each.

    A set whose labels are [b, y] is multi-label: its loss is the mean over classes of the sigmoids'
    binary cross-entropy, and a hit is a most probable class that applies.

    Args:
      logits: {label set: [b, y] float}; computed in float32 at least.
      labels: {label set: [b] int32, or [b, y] of 0 and 1}.
      valid_b: [b] bool; padding (False) counts nowhere.
      label_smoothing: in [0, 1): this much of the target is spread evenly over all classes.
      partner_labels: the same of the clips that were mixed in; None = none were. Targets are mixed
        as the clips are.
      own_share_b: [b] float32 in [0, 1], how much of each example is its own; with partner_labels.
      class_weights: {label set: [y], 0 or more}; sets left out weigh 1, and so does all for None.

    Returns:
      {"classification": (sum, count, or weights added up), "top1/<label set>": (hits, count)},
      "hit1/" of a multi-label set; with several sets also "top1/all", the clips that are right in
      every one. What was mixed is right with the label of the larger part.

    Raises:
      ValueError: only one of partner_labels and own_share_b is given.

    Source: arXiv:2401.04154, L_cls; EPIC-Kitchens-100 sums verb and noun. Multi-label smoothing is
    that of Scenic, with which MBT was trained on AudioSet.
    """
    if (partner_labels is None) != (own_share_b is None):
        raise ValueError("give both or neither of partner_labels and own_share_b")
    partners, weights = partner_labels or {}, class_weights or {}
    count = divisor = valid_b.astype(jnp.float32).sum()
    loss_b, weighs_b, right_b = jnp.zeros(valid_b.shape), jnp.zeros(valid_b.shape), valid_b
    metrics: Metrics = {}
    for name, logits_by in logits.items():
        label, partner = labels[name], partners.get(name)
        one_b, right_one_b, weighs_one_b = _judged(
            logits_by, label, partner, own_share_b, label_smoothing, weights.get(name)
        )
        loss_b += one_b
        weighs_b += weighs_one_b
        hit_b = right_one_b & valid_b
        right_b &= hit_b
        key = f"{'top1' if label.ndim == 1 else 'hit1'}/{name}"
        metrics[key] = (hit_b.sum().astype(jnp.float32), count)
    if len(logits) > 1:
        metrics["top1/all"] = (right_b.sum().astype(jnp.float32), count)
    # `where`, not a product: a padded row may hold anything, and 0 * inf is not 0.
    if class_weights:
        divisor = jnp.where(valid_b, weighs_b, 0.0).sum() / len(logits)
    metrics["classification"] = (jnp.where(valid_b, loss_b, 0.0).sum(), divisor)
    return metrics


def _judged(
    logits_by: jax.Array,
    label: jax.Array,
    partner: jax.Array | None,
    own_share_b: jax.Array | None,
    label_smoothing: float,
    weight_y: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array | float]:
    """Of one label set: [b] loss, [b] whether the most probable class is right, [b] weights."""
    logits_by = logits_by.astype(jnp.promote_types(logits_by.dtype, jnp.float32))
    target_by = _target(label, logits_by)
    if partner is not None and own_share_b is not None:
        target_by, label = _mixed(target_by, label, partner, own_share_b)
    smooth_by = optax.smooth_labels(target_by, label_smoothing)
    if label.ndim > 1:
        best_b1 = logits_by.argmax(-1, keepdims=True)
        right_b = jnp.take_along_axis(label, best_b1, axis=-1)[:, 0] > 0
        loss_by = optax.sigmoid_binary_cross_entropy(logits_by, smooth_by)
        if weight_y is None:
            return loss_by.mean(-1), right_b, 1.0
        return (weight_y * loss_by).sum(-1) / weight_y.sum(), right_b, 1.0
    right_b = logits_by.argmax(-1) == label
    if weight_y is None:
        return optax.softmax_cross_entropy(logits_by, smooth_by), right_b, 1.0
    weighs_b = (weight_y * target_by).sum(-1)
    return optax.softmax_cross_entropy(logits_by, weight_y * smooth_by), right_b, weighs_b


def _mixed(
    target_by: jax.Array, label: jax.Array, partner: jax.Array, own_share_b: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """([b, y] targets of both, the labels of the larger part)."""
    share_b1 = own_share_b[:, None]
    mixed_by = share_b1 * target_by + (1 - share_b1) * _target(partner, target_by)
    is_own = (share_b1 if label.ndim > 1 else own_share_b) >= 0.5
    return mixed_by, jnp.where(is_own, label, partner)


def _target(label: jax.Array, like_by: jax.Array) -> jax.Array:
    """Class indices [b], or 0 and 1 [b, y], as [b, y] float."""
    if label.ndim > 1:
        return label.astype(like_by.dtype)
    return jax.nn.one_hot(label, like_by.shape[-1])


def _term(forward: Forward, batch: Batch, options: Options) -> Metrics:
    def score(logits: dict[str, jax.Array]) -> Metrics:
        return classification_loss(
            logits,
            batch[axes.LABELS],
            batch[axes.VALID],
            label_smoothing=options.label_smoothing,
            partner_labels=batch.get(axes.PARTNER_LABELS),
            own_share_b=batch.get(axes.OWN_SHARE),
            class_weights=batch.get(axes.CLASS_WEIGHTS),
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
