"""Clips of one recording in two splits: what is tested on would have been trained on."""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from avt_jax.data.doctor.facts import ClipFacts, Content
from avt_jax.data.doctor.findings import Files, Finding, found
from avt_jax.data.manifests.name_groups import Grouping, find_grouping
from avt_jax.data.records import SPLITS
from avt_jax.data.records.labels import class_indices

# Of very many alike the first ones tell enough.
_COMPARED = 50
# Of more files than these the names of some are looked at: runs of neighbours in the alphabet,
# where the parts of one recording stand together.
_MOST_NAMES, _RUNS = 50_000, 50
_LEAVE_OUT = (
    "leave one of each out of the manifest, or give both the same split, and extract again; "
    "--json names more of them"
)


def group_names(
    clips: Sequence[ClipFacts], label_sets: Mapping[str, Sequence[str]]
) -> Grouping | None:
    """How the names of the clips' files look grouped.

    Args:
      clips: the clips.
      label_sets: class names per label set, of which the first counts.
    """
    label_set, classes = next(iter(label_sets.items()))
    sources = list(dict.fromkeys(clip.source for clip in clips))
    looked_at = set(_some_names(sources))
    classes_of: dict[str, set[str]] = {}
    for clip in clips:
        if clip.source in looked_at:
            own = classes_of.setdefault(clip.source, set())
            own.update(classes[index] for index in class_indices(clip.labels[label_set]))
    grouping = find_grouping(classes_of)
    if grouping and len(looked_at) < len(sources):
        # What is proposed must fit the others, too.
        search = re.compile(grouping.pattern).search
        return grouping if all(map(search, sources)) else None
    return grouping


def _some_names(names: Sequence[str]) -> Sequence[str]:
    if len(names) <= _MOST_NAMES:
        return names
    ordered, length = sorted(names), _MOST_NAMES // _RUNS
    firsts = [round(run * (len(names) - length) / (_RUNS - 1)) for run in range(_RUNS)]
    return [name for first in firsts for name in ordered[first : first + length]]


def check_leaks(
    clips: Sequence[ClipFacts], grouping: Grouping | None, files: Files
) -> Iterator[Finding]:
    """Files in two splits, and files whose names say that they were cut from one recording.

    Args:
      clips: the clips.
      grouping: of their names.
      files: the user's.
    """
    # Few different sets, however many files: each is kept once.
    alone = {split: frozenset((split,)) for split in {clip.split for clip in clips}}
    splits_of: dict[str, frozenset[str]] = {}
    for clip in clips:
        own = alone[clip.split]
        known = splits_of.setdefault(clip.source, own)
        if not own <= known:
            splits_of[clip.source] = known | own
    shared = [source for source, splits in splits_of.items() if len(splits) > 1]
    if shared:
        yield found(
            "error",
            "source_in_two_splits",
            f"{len(shared)} file(s) have clips in more than one split: what is tested on was "
            "trained on",
            files.split_again(),
            [f"{source} ({_listed(splits_of[source])})" for source in shared],
        )
    crossing = []
    for names in grouping.groups if grouping else ():
        apart = _apart(names, splits_of)
        if apart:
            crossing.append(apart)
    if crossing:
        yield found(
            "warning",
            "names_of_one_recording",
            f"{_at_least(splits_of)}{len(crossing)} group(s) of files whose names begin alike lie "
            "in more than one split: if they were cut from one recording, the result will be too "
            "good",
            files.split_again(),
            crossing,
        )


def _at_least(sources: Collection[str]) -> str:
    return "at least " if len(sources) > _MOST_NAMES else ""


def _listed(splits: Collection[str]) -> str:
    return ", ".join(split for split in SPLITS if split in splits)


def _apart(names: Sequence[str], splits_of: Mapping[str, Collection[str]]) -> str:
    """Two files of a group that lie in different splits, in words; "" where there are none."""
    first = names[0]
    other = next((name for name in names if splits_of[name] != splits_of[first]), "")
    if not other:
        return ""
    return " and ".join(f"{name} ({_listed(splits_of[name])})" for name in (first, other))


def check_copies(clips: Sequence[ClipFacts]) -> Iterator[Finding]:
    """Clips with the very same pictures and sound, or the same of one of them.

    Args:
      clips: the clips; those without content are passed over.
    """
    seen = [clip for clip in clips if clip.content is not None]
    copies = _alike(seen, lambda content: (content.picture, content.sound))
    yield from _whole_copies(copies)
    # Of whole copies one is compared with the rest.
    repeated = {id(clip) for group in copies for clip in group[1:]}
    single = [clip for clip in seen if id(clip) not in repeated]
    pictures = _alike(single, lambda content: (content.picture,))
    sounds = _alike(single, lambda content: (content.sound,))
    for what, groups in (("pictures", pictures), ("sound", sounds)):
        pairs = [pair for group in groups if (pair := _pair(group))]
        if pairs:
            yield found(
                "warning",
                f"same_{what}",
                f"{len(pairs)} time(s) clips in different splits have the very same {what}",
                _LEAVE_OUT,
                pairs,
            )


def _alike(
    clips: Sequence[ClipFacts], key: Callable[[Content], tuple[bytes | None, ...]]
) -> list[list[ClipFacts]]:
    """Groups of clips of one key; those with nothing to see and to hear are not alike."""
    groups = collections.defaultdict(list)
    for clip in clips:
        if clip.content is not None and any(key(clip.content)):
            groups[key(clip.content)].append(clip)
    return [group for group in groups.values() if len(group) > 1]


def _whole_copies(groups: Sequence[Sequence[ClipFacts]]) -> Iterator[Finding]:
    across = [pair for group in groups if (pair := _pair(group))]
    if across:
        yield found(
            "error",
            "copies_in_two_splits",
            f"{len(across)} clip(s) are in more than one split, with the same pictures and sound",
            _LEAVE_OUT,
            across,
        )
    within = [group for group in groups if not _pair(group)]
    if within:
        number = sum(len(group) - 1 for group in within)
        torn = [group for group in within if any(c.labels != group[0].labels for c in group)]
        told = f", {len(torn)} of them with another label" if torn else ""
        yield found(
            "warning",
            "copies",
            f"{number} clip(s) are copies of another in the same split{told}",
            "leave them out of the manifest and extract again; --json names more of them",
            [" and ".join(clip.source for clip in group[:2]) for group in (torn or within)],
        )


def _pair(group: Sequence[ClipFacts]) -> str:
    """Two of them in different splits and of different files, in words; "" without."""
    for one, two in itertools.combinations(group[:_COMPARED], 2):
        if one.split != two.split and one.source != two.source:
            return f"{one.source} ({one.split}) and {two.source} ({two.split})"
    return ""
