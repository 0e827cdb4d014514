"""A sheet of the worst mistakes: what was seen and heard, what it is, what it was taken for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avt_jax.data.records import RecordSource
from avt_jax.data.shard_tools.contact_sheet import save_contact_sheet
from avt_jax.evaluation.clips import SetPredictions

MAX_CLIPS = 12


def worst_mistakes(found: SetPredictions, group_n: np.ndarray) -> list[int]:
    """The clips that are wrong with the most conviction, the worst first, one of each source.

    Args:
      found: what was predicted.
      group_n: [n] equal = of the same source.
    """
    wrong = np.flatnonzero(~found.right_n)
    order = wrong[np.argsort(-found.p_nk[wrong, 0], kind="stable")]
    _, first = np.unique(group_n[order], return_index=True)
    return [int(i) for i in order[np.sort(first)][:MAX_CLIPS]]


def draw_mistakes(
    path: Path,
    source: RecordSource,
    found: SetPredictions,
    group_n: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
) -> bool:
    """Draws them: frames, spectrogram, and above them true class, predicted class and probability.

    Args:
      path: the PNG to write.
      source: the split.
      found: what was predicted for its clips.
      group_n: [n] equal = of the same source.
      class_names: of the label set.
      title: above the picture.

    Returns:
      False when nothing was wrong; no file is written then.

    Raises:
      UserError: the file cannot be written, or a frame is damaged.
    """
    chosen = worst_mistakes(found, group_n)
    if not chosen:
        return False
    headings = [
        f"{class_names[found.label_n[i]]}, taken for {class_names[found.top_nk[i, 0]]} "
        f"({100 * found.p_nk[i, 0]:.0f} %)"
        for i in chosen
    ]
    save_contact_sheet(source, chosen, path, title=title, headings=headings)
    return True
