"""All checks that need no config, for shards and for a manifest before it is extracted."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

from avt_jax.data.doctor.classes import check_classes, check_names, check_splits
from avt_jax.data.doctor.facts import ClipFacts, Facts
from avt_jax.data.doctor.findings import SEVERITIES, Files, Finding, found
from avt_jax.data.doctor.leaks import check_copies, check_leaks, group_names
from avt_jax.data.doctor.senses import check_senses
from avt_jax.data.manifests.manifest import Manifest
from avt_jax.data.records.labels import class_indices
from avt_jax.host import collecting


def check_facts(facts: Facts, *, splits: Sequence[str] | None = None) -> list[Finding]:
    """What is likely to be wrong with a shard folder, the worst first.

    Args:
      facts: what was seen of it.
      splits: those that were looked at; None = all, and one that is missing is found.
    """
    files = Files(shards=facts.path, info=facts.info)
    findings = [
        *_damage(facts),
        *_of_clips(
            facts.clips,
            facts.info.label_sets,
            files,
            facts.info.splits if splits is None else None,
            is_complete=facts.is_complete and not facts.lost,
        ),
        *check_copies(facts.clips),
        *check_senses(facts.clips, facts.info.label_sets),
    ]
    return worst_first(findings)


@collecting.put_off()
def check_manifest(manifest: Manifest) -> list[Finding]:
    """What is likely to be wrong with a manifest, the worst first.

    Args:
      manifest: read and without mistakes.
    """
    clips = [
        ClipFacts(split, source, labels, 0.0, 0, None)
        for split, source, labels in zip(
            manifest.clips.splits, manifest.clips.sources, manifest.clips.labels, strict=True
        )
    ]
    files = Files(os.fspath(manifest.path), has_splits=manifest.has_splits)
    counts = collections.Counter(clip.split for clip in clips)
    return worst_first([*_of_clips(clips, manifest.label_sets, files, counts, is_complete=True)])


def worst_first(findings: Sequence[Finding]) -> list[Finding]:
    """Sorted by severity; those of one severity stay in their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def _of_clips(
    clips: Sequence[ClipFacts],
    label_sets: Mapping[str, Sequence[str]],
    files: Files,
    splits: Mapping[str, int] | None,
    *,
    is_complete: bool,
) -> Iterator[Finding]:
    grouping = group_names(clips, label_sets)
    files = dataclasses.replace(files, group_by=grouping.pattern if grouping else "")
    if splits is not None:
        yield from check_splits(splits, files)
    yield from check_leaks(clips, grouping, files)
    counts = {
        name: collections.Counter(i for clip in clips for i in class_indices(clip.labels[name]))
        for name in label_sets
    }
    yield from check_names(label_sets, counts)
    # Of a part of the clips nothing can be said to be missing.
    if is_complete:
        yield from check_classes(clips, label_sets, files)


def _damage(facts: Facts) -> Iterator[Finding]:
    for split, reason in facts.lost.items():
        yield found(
            "error",
            "lost_split",
            f"the split {split} cannot be opened: {reason.rstrip('.')}",
            f"see what is wrong with avt shards verify {facts.path}",
        )
    number = sum(facts.num_damaged.values())
    if number:
        counts = [f"{split}: {count}" for split, count in facts.num_damaged.items()]
        yield found(
            "error",
            "damaged_records",
            f"{number} record(s) are damaged, the first is {facts.first_damaged.rstrip('.')}",
            f"avt shards verify {facts.path} names them, avt shards reshard {facts.path} OUT "
            "--drop-damaged leaves them out",
            counts,
        )
