"""Clips that have nothing to hear or nothing to see."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence

from avt_jax.data.doctor.facts import ClipFacts, Content
from avt_jax.data.doctor.findings import Finding, found
from avt_jax.data.records.labels import class_indices

# Of a class; fewer silent or still clips do not decide what a model learns of it.
_MOST_SHARE = 0.5
# Of fewer clips nothing can be said.
_LEAST_SEEN = 3
# All but a few: the modality is not there at all.
_WHOLE_SHARE = 0.95


def check_senses(
    clips: Sequence[ClipFacts], label_sets: Mapping[str, Sequence[str]]
) -> Iterator[Finding]:
    """Classes that are mostly silent or mostly still, and data that are altogether.

    Args:
      clips: the clips; those without content are passed over.
      label_sets: class names per label set.
    """
    seen = [clip for clip in clips if clip.content is not None]
    if not seen:
        return
    for word, other, lacks in (
        ("silent", "video", lambda content: content.is_silent),
        ("still", "audio", lambda content: content.is_still),
    ):
        number = _number(seen, lacks)
        if number >= _WHOLE_SHARE * len(seen):
            yield found(
                "hint",
                f"all_{word}",
                f"{number} of {len(seen)} clips are {word}",
                f"train with --config.model.modalities={other}",
            )
            continue
        for label_set, names in label_sets.items():
            prefix = "" if len(label_sets) == 1 else f"{label_set}: "
            yield from _classes(seen, label_set, names, prefix, word, lacks)


def _number(clips: Sequence[ClipFacts], lacks: Callable[[Content], bool]) -> int:
    return sum(lacks(clip.content) for clip in clips if clip.content is not None)


def _classes(
    seen: Sequence[ClipFacts],
    label_set: str,
    names: Sequence[str],
    prefix: str,
    word: str,
    lacks: Callable[[Content], bool],
) -> Iterator[Finding]:
    by_class = collections.defaultdict(list)
    for clip in seen:
        for index in class_indices(clip.labels[label_set]):
            by_class[index].append(clip)
    numbers = {index: _number(clips, lacks) for index, clips in sorted(by_class.items())}
    mostly = [
        i
        for i, number in numbers.items()
        if len(by_class[i]) >= _LEAST_SEEN and number > _MOST_SHARE * len(by_class[i])
    ]
    if mostly:
        yield found(
            "warning",
            f"{word}_classes",
            f"{prefix}most clips of {len(mostly)} class(es) are {word}, and others are not: a "
            "model may learn that alone",
            "look at them with avt inspect; take other recordings of these classes, or leave "
            f"{word} clips out of the manifest",
            [f"{names[i]} ({numbers[i]} of {len(by_class[i])})" for i in mostly],
        )
