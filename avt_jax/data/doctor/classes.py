"""Splits and classes: what is missing, what is rare, what is written in two ways."""

from __future__ import annotations

import collections
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from avt_jax.data.doctor.facts import ClipFacts
from avt_jax.data.doctor.findings import Files, Finding, found
from avt_jax.data.records import SPLITS
from avt_jax.data.records.labels import class_indices, is_several

FEW_CLIPS = 10
"""Classes with fewer training clips are named."""
MOST_TIMES = 10
"""So many times the clips of the rarest class are too many."""

# Names that differ in one letter are a slip where one has few clips, or few beside the other.
_SHORTEST_TYPO = 4
_TYPO_CLIPS, _TYPO_SHARE = 5, 0.2
# So many that differ in one place are counted, not misspelt.
_MOST_ALIKE = 50
_RENAME = (
    "write one name for both (the folder's name, or the column label of the manifest), then "
    "extract again"
)

Counts = dict[str, collections.Counter[int]]
"""{split: clips per class index}."""


def count_classes(clips: Sequence[ClipFacts], label_set: str) -> Counts:
    """Clips per split and class.

    Args:
      clips: the clips.
      label_set: which of their labels.
    """
    counts: Counts = {split: collections.Counter() for split in SPLITS}
    for clip in clips:
        counts.setdefault(clip.split, collections.Counter()).update(
            class_indices(clip.labels[label_set])
        )
    return counts


def check_splits(num_clips: Mapping[str, int], files: Files) -> Iterator[Finding]:
    """Splits that are missing or empty.

    Args:
      num_clips: {split: clips}.
      files: the user's.
    """
    total = sum(num_clips.values())
    has_train, has_val, has_test = (bool(num_clips.get(split)) for split in SPLITS)
    if not has_train:
        yield found("error", "no_training_clips", "no clip is for training", files.split_again())
    elif not (has_val or has_test):
        yield found(
            "error",
            "nothing_held_out",
            f"all {total} clips are for training, none for validation or test"
            + ("" if files.has_splits else " (the manifest has no splits)")
            + ": nothing would tell how good the model is",
            files.split_again(),
        )
    elif not has_val:
        yield found(
            "warning",
            "no_validation_clips",
            "no clip is for validation, which a training looks at",
            f"give avt train --config.data.eval_split=test, or divide anew: {files.split_again()}",
        )
    elif not has_test:
        yield found(
            "hint",
            "no_test_clips",
            "no clip is for test: the best checkpoint is chosen on the validation clips, so their "
            "result is a little too good",
            files.split_again(),
        )


def check_classes(
    clips: Sequence[ClipFacts], label_sets: Mapping[str, Sequence[str]], files: Files
) -> Iterator[Finding]:
    """Classes that are missing from a split, rare ones, and how unequal they are.

    Args:
      clips: all clips.
      label_sets: class names per label set.
      files: the user's.
    """
    for label_set, names in label_sets.items():
        counts = count_classes(clips, label_set)
        prefix = "" if len(label_sets) == 1 else f"{label_set}: "
        yield from _missing(counts, names, prefix, files)
        several = [clip for clip in clips if is_several(clip.labels[label_set])]
        yield from _rare(counts["train"], names, prefix, is_multi_label=bool(several))
        yield from _without_class([clip for clip in several if not clip.labels[label_set]], prefix)


def _missing(counts: Counts, names: Sequence[str], prefix: str, files: Files) -> Iterator[Finding]:
    train, held = counts["train"], {s: c for s, c in counts.items() if s != "train" and c}
    if not train:
        return
    absent = [i for i in range(len(names)) if not train[i]]
    unlearned = [i for i in absent if any(count[i] for count in held.values())]
    nowhere = [i for i in absent if i not in set(unlearned)]
    if unlearned:
        yield found(
            "error",
            "class_not_trained",
            f"{prefix}{len(unlearned)} class(es) have clips to be tested on and none to train on",
            f"record more clips of them, and divide anew: {files.split_again()}",
            [names[i] for i in unlearned],
        )
    if nowhere:
        yield found(
            "warning",
            "class_without_clips",
            f"{prefix}{len(nowhere)} class(es) of the class list have no clip",
            "take them out of the class list, or see failed.csv of the shards for clips that could "
            "not be read",
            [names[i] for i in nowhere],
        )
    for split, count in held.items():
        untested = [i for i in range(len(names)) if train[i] and not count[i]]
        if untested:
            yield found(
                "warning",
                f"class_not_in_{split}",
                f"{prefix}{len(untested)} class(es) have no {split} clip: nothing will be known of "
                "them there",
                "record at least three clips (of three recordings) of each, and divide anew: "
                + files.split_again(),
                [f"{names[i]} ({train[i]} training clips)" for i in untested],
            )


def _without_class(clips: Sequence[ClipFacts], prefix: str) -> Iterator[Finding]:
    """Clips of a multi-label set that have nothing of it."""
    if clips:
        yield found(
            "hint",
            "clips_without_class",
            f"{prefix}{len(clips)} clip(s) have no class: they teach that nothing applies",
            "leave them in if that is so, otherwise write their classes into the manifest",
            [clip.source for clip in clips],
        )


def _rare(
    train: Mapping[int, int], names: Sequence[str], prefix: str, *, is_multi_label: bool
) -> Iterator[Finding]:
    there = sorted((count, index) for index, count in train.items() if count)
    few = [(count, index) for count, index in there if count < FEW_CLIPS]
    if few:
        yield found(
            "warning",
            "few_clips",
            f"{prefix}{len(few)} class(es) have fewer than {FEW_CLIPS} training clips",
            "record more of them, or join them with other classes in the manifest",
            [f"{names[index]} ({count})" for count, index in few],
        )
    # Average precision is of each class by itself.
    if there and there[-1][0] > MOST_TIMES * there[0][0] and not is_multi_label:
        (least, rarest), (most, commonest) = there[0], there[-1]
        yield found(
            "warning",
            "imbalance",
            f"{prefix}the largest class has {most / least:.0f} times the training clips of the "
            "smallest: a model that always says the largest looks good",
            "record more of the small ones, or draw all equally often (config.data.balance, "
            "docs/own_videos.md); judge by the mean accuracy of the classes, which avt evaluate "
            "gives",
            [f"{names[commonest]} ({most})", f"{names[rarest]} ({least})"],
        )


def check_names(
    label_sets: Mapping[str, Sequence[str]], counts: Mapping[str, Mapping[int, int]]
) -> Iterator[Finding]:
    """Class names that are most likely two ways to write one.

    Args:
      label_sets: class names per label set.
      counts: {label set: clips per class index}, of all splits.
    """
    for label_set, names in label_sets.items():
        sizes = {name: counts[label_set].get(i, 0) for i, name in enumerate(names)}
        prefix = "" if len(label_sets) == 1 else f"{label_set}: "
        same: dict[str, list[str]] = {}
        for name in names:
            same.setdefault(_plain(name), []).append(name)
        for written in same.values():
            if len(written) > 1:
                yield found(
                    "error",
                    "class_written_twice",
                    f"{prefix}these classes differ only in capitals, spaces or signs",
                    _RENAME,
                    [f"{name!r} ({sizes[name]})" for name in written],
                )
        for rarer, other in _typos(list(same), {key: sizes[w[0]] for key, w in same.items()}):
            one, two = same[rarer][0], same[other][0]
            if _differ_in_a_sign(one, two):
                continue
            yield found(
                "warning",
                "class_looks_like_another",
                f"{prefix}the class {one!r} ({sizes[one]} clips) looks like {two!r} "
                f"({sizes[two]} clips) misspelt",
                _RENAME,
                [one, two],
            )


def _plain(name: str) -> str:
    """A name without what is easily written otherwise."""
    return re.sub(r"[\s_.-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _typos(names: Sequence[str], sizes: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    """(rarer, other) of names that are one slip of the pen apart."""
    # Names one letter apart share one of their shortenings: no comparing of all pairs.
    sharing: dict[str, list[str]] = {}
    for name in names:
        if len(name) >= _SHORTEST_TYPO:
            for short in {name, *(name[:i] + name[i + 1 :] for i in range(len(name)))}:
                sharing.setdefault(short, []).append(name)
    pairs = {
        (one, two) if (sizes[one], one) < (sizes[two], two) else (two, one)
        for alike in sharing.values()
        if len(alike) <= _MOST_ALIKE
        for place, one in enumerate(alike)
        for two in alike[place + 1 :]
        if _is_slip(one, two)
    }
    for rarer, other in sorted(pairs):
        if sizes[rarer] <= _TYPO_CLIPS or sizes[rarer] < _TYPO_SHARE * sizes[other]:
            yield rarer, other


def _is_slip(one: str, two: str) -> bool:
    """One letter more, less, another, or two neighbours changed; other numbers are no slip."""
    start = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), None)
    start = min(len(one), len(two)) if start is None else start
    one, two = one[start:], two[start:]
    swapped = one[1::-1] == two[:2] and one[2:] == two[2:]
    if swapped or one[1:] == two[1:]:
        differing = one[:1] + two[:1]
    elif one[1:] == two or one == two[1:]:
        differing = max(one, two, key=len)[:1]
    else:
        return False
    return not any(character.isdigit() for character in differing)


def _differ_in_a_sign(one: str, two: str) -> bool:
    """True for names such as "letter a" and "letter b"."""
    pairs = zip(*(re.split(r"[\s_.-]+", name) for name in (one, two)), strict=False)
    differing = [pair for pair in pairs if pair[0] != pair[1]]
    return len(differing) == 1 and max(map(len, differing[0])) == 1
