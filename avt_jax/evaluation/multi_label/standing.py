"""Where mAP stands: its interval, beside scores that say nothing, training clips and a baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from avt_jax.evaluation.clips import SetPredictions
from avt_jax.evaluation.intervals import Interval, mean_interval
from avt_jax.evaluation.multi_label.intervals import (
    draw,
    interval,
    mean_auc,
    mean_average_precision,
    num_draws,
)
from avt_jax.evaluation.multi_label.ranking import d_prime
from avt_jax.evaluation.multi_label.scores import KS
from avt_jax.host.output.tables import PlainTable

# mAP that training clips have more than evaluated ones, which says: learned by heart.
_OVERFITTED = 0.2


@dataclass(frozen=True)
class RankingStanding:
    """Where the means of one multi-label set stand.

    Attributes:
      mean_ap: mAP with its interval over sources; None where no clip has a class.
      auc: mean AUC with its interval; None where no class has clips and clips without it.
      hits: {k: Hit@k with its interval}.
      chance: mAP of scores that say nothing, the mean share of clips of a class.
      draws: bootstrap drawings.
      train_map: on training clips, None where not measured.
      baseline_map: of the baseline, with its interval; None where not computed.
      ahead: how much higher the model's mAP is, over the same drawings.
    """

    mean_ap: Interval | None
    auc: Interval | None
    hits: Mapping[str, Interval]
    chance: float
    draws: int
    train_map: float | None
    baseline_map: Interval | None
    ahead: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """As in results.json."""
        found: dict[str, Any] = {
            "hits_interval": {k: _ends(one) for k, one in self.hits.items()},
            "sources": self.hits["1"].groups,
            "draws": self.draws,
            "chance_mAP": self.chance,
        }
        if self.mean_ap:
            found["mAP_interval"] = _ends(self.mean_ap)
        if self.auc:
            found["auc_interval"] = _ends(self.auc)
            found["d_prime_interval"] = [d_prime(self.auc.low), d_prime(self.auc.high)]
        if self.train_map is not None:
            found["train_mAP"] = self.train_map
        if self.baseline_map and self.ahead:
            found |= {
                "baseline_mAP": self.baseline_map.value,
                "baseline_mAP_interval": _ends(self.baseline_map),
                "ahead_of_baseline": self.ahead.value,
                "ahead_of_baseline_interval": _ends(self.ahead),
            }
        return found


def _ends(one: Interval) -> list[float]:
    return [one.low, one.high]


def ranking_standing(
    found: SetPredictions,
    groups_n: np.ndarray,
    *,
    train_map: float | None = None,
    baseline_ny: np.ndarray | None = None,
) -> RankingStanding:
    """Where a multi-label set stands.

    Args:
      found: its predictions, with `labels_ny` and `p_ny`.
      groups_n: [n] equal = of the same source.
      train_map: on training clips.
      baseline_ny: [n, y] scores of the baseline.
    """
    assert found.labels_ny is not None and found.p_ny is not None
    is_ny, p_ny = found.labels_ny > 0, found.p_ny
    count, classes = is_ny.shape
    groups = len(np.unique(groups_n))
    hits = {
        str(k): mean_interval((found.rank_n < k).astype(np.float64), groups_n)
        for k in KS
        if k <= classes
    }
    share_y = is_ny.mean(axis=0)
    present_y = share_y > 0
    chance = float(share_y[present_y].mean()) if present_y.any() else 0.0
    draws = num_draws(count, classes)
    value, area = mean_average_precision(p_ny, is_ny), mean_auc(p_ny, is_ny)
    if value is None:
        return RankingStanding(None, None, hits, chance, draws, train_map, None, None)
    drawn = draw(p_ny, is_ny, groups_n, draws=draws)
    auc = None if area is None else interval(area, drawn.auc_b, groups)
    baseline = ahead = None
    if baseline_ny is not None:
        other = mean_average_precision(baseline_ny, is_ny)
        assert other is not None  # the same clips have the same classes
        other_b = draw(baseline_ny, is_ny, groups_n, draws=draws).map_b
        baseline = interval(other, other_b, groups)
        ahead = interval(value - other, drawn.map_b - other_b, groups, lowest=-1.0)
    mean_ap = interval(value, drawn.map_b, groups)
    return RankingStanding(mean_ap, auc, hits, chance, draws, train_map, baseline, ahead)


def verdict(name: str, standing: RankingStanding) -> str:
    """Whether the model is any good, in a sentence or two.

    Args:
      name: of the label set.
      standing: where it stands.
    """
    found, ahead = standing.mean_ap, standing.ahead
    if found is None:
        return f"{name}: no clip here has a class, so there is no mAP; evaluate on other clips."
    if found.low <= standing.chance:
        said = (
            f"{name}: the model is not shown to rank better than scores that say nothing "
            f"(mAP {standing.chance:.3f})"
        )
    elif ahead is None:
        return f"{name}: better than scores that say nothing (mAP {standing.chance:.3f})."
    else:
        ends = f"(95 % interval {ahead.low:+.3f} to {ahead.high:+.3f})"
        if ahead.low > 0:
            return f"{name}: the model beats the baseline by {ahead.value:.3f} mAP {ends}."
        if ahead.high < 0:
            said = (
                f"{name}: the model does NOT beat the baseline, it is {-ahead.value:.3f} mAP "
                f"behind {ends}"
            )
        else:
            said = (
                f"{name}: the model is NOT shown to beat the baseline: {ahead.value:+.3f} mAP "
                f"{ends}"
            )
    trained = standing.train_map
    where = "docs/own_videos.md, 'Accuracy is poor', has the remedies"
    if trained is None:
        return f"{said}. {where}."
    heart = "it knows them by heart; " if trained - found.value > _OVERFITTED else ""
    return f"{said}. On its own training clips it has mAP {trained:.3f}: {heart}{where}."


def standing_table(
    title: str, standing: RankingStanding, silenced: Mapping[str, float | None]
) -> PlainTable:
    """The means of one multi-label set with their intervals, and what mAP stands beside.

    Args:
      title: above the table.
      standing: where they stand.
      silenced: {modality: mAP without it}.
    """
    groups = standing.hits["1"].groups
    heading = f"95 % interval, {groups} sources, {standing.draws} draws"
    table = PlainTable(title, "", "value", heading)

    def row(words: str, one: Interval | None) -> None:
        if one:
            table.row(words, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}")

    row("mAP, this model", standing.mean_ap)
    for modality, value in silenced.items():
        table.row(f"  without {modality}", "" if value is None else f"{value:.3f}", "")
    if standing.train_map is not None:
        table.row("  on its training clips", f"{standing.train_map:.3f}", "")
    row("mAP, baseline (avt baseline)", standing.baseline_map)
    row("  model minus baseline", standing.ahead)
    table.row("mAP, scores that say nothing", f"{standing.chance:.3f}", "")
    row("AUC", standing.auc)
    for k, one in standing.hits.items():
        if k in ("1", "5"):
            row(f"hit@{k}", one)
    return table


def baseline_table(title: str, found: Mapping[str, Interval], chance: float) -> PlainTable:
    """mAP of the baseline by modality.

    Args:
      title: above the table.
      found: {modalities: mAP}.
      chance: mAP of scores that say nothing.
    """
    groups = max(one.groups for one in found.values())
    table = PlainTable(title, "", "mAP", f"95 % interval, {groups} sources")
    for name, one in found.items():
        table.row(name, f"{one.value:.3f}", f"{one.low:.3f} to {one.high:.3f}")
    table.row("scores that say nothing", f"{chance:.3f}", "")
    return table
