"""Average precision of each class as a picture."""

from __future__ import annotations

from pathlib import Path

from avt_jax.evaluation.multi_label.report import by_precision
from avt_jax.evaluation.multi_label.scores import MultiLabelReport
from avt_jax.evaluation.pictures import new_figure, save_png, short_name

_INK, _MUTED, _GRID, _BLUE = "#22272e", "#6b7280", "#e5e7eb", "#2563eb"
_MOST = 40  # classes; of more, as many of the best and of the worst


def draw_precisions(path: Path, report: MultiLabelReport, *, title: str, subtitle: str) -> bool:
    """Draws the average precision of the classes, best first, beside the share of their clips.

    That share is what a model without knowledge reaches. Of more than 40 classes the 20 best and
    the 20 worst are drawn.

    Args:
      path: the PNG to write.
      report: of a multi-label set.
      title: above the picture.
      subtitle: below the title, smaller.

    Returns:
      False when no class has clips; no file is written then.

    Raises:
      UserError: the file cannot be written.
    """
    classes = by_precision(report["classes"])[::-1]
    if not classes:
        return False
    if len(classes) > _MOST:
        subtitle += f"; the {_MOST // 2} best and worst of {len(classes)} classes"
        classes = classes[: _MOST // 2] + classes[-_MOST // 2 :]
    figure = new_figure(7.5, 1.4 + 0.24 * len(classes))
    axes = figure.subplots()
    places = range(len(classes))
    axes.barh(places, [one["ap"] or 0.0 for one in classes], height=0.66, color=_BLUE)
    shares = [one["count"] / report["count"] for one in classes]
    axes.plot(shares, places, "|", color=_INK, ms=9, mew=1.6, label="share of clips")
    axes.set_yticks(places, [short_name(one["name"]) for one in classes], fontsize=8)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("average precision", color=_MUTED)
    axes.set_title(title, loc="left", color=_INK, fontsize=12, pad=22)
    axes.annotate(
        subtitle.replace("$", r"\$"),
        (0, 1),
        xytext=(0, 8),
        xycoords="axes fraction",
        textcoords="offset points",
        fontsize=8,
        color=_MUTED,
    )
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GRID)
    axes.tick_params(colors=_MUTED, length=0)
    axes.tick_params(axis="y", labelcolor=_INK)
    axes.legend(frameon=False, fontsize=8, loc="lower right", labelcolor=_INK)
    save_png(figure, path, dpi=130)
    return True
