"""EPIC-Kitchens-100's challenge: what an evaluation adds to its results when it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.errors import UserError
from avt_jax.evaluation.clips import ClipPredictions
from avt_jax.evaluation.epic import annotations as files
from avt_jax.evaluation.epic import breakdown, submission
from avt_jax.experiment.assemble import Say


@dataclass(frozen=True)
class Epic:
    """What is asked for.

    Attributes:
      annotations: folder of the authors' annotation files.
      submission: where the challenge's scores go, .json or .zip; None writes none.
      levels: supervision levels of a submission: pretraining, training labels, training data.
    """

    annotations: Path
    submission: Path | None = None
    levels: Sequence[int] = ()


class EpicJudge:
    """Looks at one evaluation as the challenge does.

    Args:
      asked: what is asked for.
      label_sets: {label set: class names} of the run.
      split: that is judged.
      names: {"id", "source", "start_sec", "end_sec"} of each clip; [] where they are not known.

    Raises:
      UserError: the run names no verbs and nouns, or a file cannot be read.
    """

    def __init__(
        self,
        asked: Epic,
        label_sets: Mapping[str, Sequence[str]],
        split: str,
        names: Sequence[Mapping[str, Any]],
    ):
        if set(label_sets) != {"verb", "noun"}:
            given = ", ".join(sorted(label_sets))
            raise UserError(f"--epic needs the label sets verb and noun; the run has {given}.")
        if asked.submission:
            submission.check_path(asked.submission)
            submission.check_levels(asked.levels)
            for name, number in submission.CLASSES.items():
                if len(label_sets[name]) != number:
                    raise UserError(
                        f"the challenge has {number} classes of {name}, the run has "
                        f"{len(label_sets[name])}; leave out --epic-submission."
                    )
        self._asked, self._names = asked, names
        self._known = files.read_annotations(asked.annotations, split)
        # Clips that are no segments should not cost an evaluation.
        files.find_segments(self._known, names, [(-1, -1)] * len(names))

    def judge(
        self, found: ClipPredictions, groups_n: np.ndarray, say: Say
    ) -> tuple[breakdown.Breakdown, list[Path]]:
        """The accuracies by part, {} where the segments have no classes; what was written.

        Args:
          found: the predictions, with all probabilities where a submission is asked for.
          groups_n: [n] equal = of the same source.
          say: is told what a reader should know.

        Raises:
          UserError: a clip is none of the split's segments, or has other classes.
        """
        verbs, nouns = (found.sets[name].label_n.tolist() for name in ("verb", "noun"))
        labels = list(zip(verbs, nouns, strict=True))
        segments = files.find_segments(self._known, self._names, labels)
        files.check_labels(self._known, segments, labels)
        missing = self._known.count - len(segments)
        if missing:
            say(f"{missing} of {self._known.count} segments of {self._known.file} have no clip")
        written = []
        if self._asked.submission:
            verb_nv, noun_nw = (found.sets[name].p_ny for name in ("verb", "noun"))
            assert verb_nv is not None and noun_nw is not None  # they were asked to be kept
            ids = [one.narration_id for one in segments]
            written.append(self._asked.submission)
            submission.write(written[0], ids, verb_nv, noun_nw, self._asked.levels)
            if missing:
                say(f"{written[0]} lacks these segments; the challenge asks for all of them")
        if any(one.labels is None for one in segments):
            say(f"{self._known.file} has no classes: accuracies of these clips say nothing")
            return {}, written
        return breakdown.break_down(found, segments, self._known, groups_n), written
