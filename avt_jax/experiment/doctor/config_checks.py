"""Whether a config suits the clips that it is trained on."""

from __future__ import annotations

import dataclasses
import math
import shlex
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from avt_jax import tree
from avt_jax.conversion.initial import InitConfig
from avt_jax.data.doctor.check import worst_first
from avt_jax.data.doctor.facts import ClipFacts, Facts
from avt_jax.data.doctor.findings import Files, Finding, found
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import split_names
from avt_jax.data.records.generated import is_generated, open_generated
from avt_jax.experiment.assemble import Experiment
from avt_jax.experiment.config import Overrides, load_config
from avt_jax.experiment.parts import Parts, parse

# Lengths of clips are those of their files, to a frame or so.
_SAME_LENGTH = 0.95
# How far the normalisation may be off, in standard deviations, and by which factor.
_MEAN_OFF, _STD_OFF = 0.5, 1.33
# Stored in more than so many times the size, or frames, that the model is shown.
_LARGER, _MORE_FRAMES = 2.0, 4.0
# A crop is cut out of a frame a little larger.
_SPARE = 1.14
# Rules of thumb: parameters that each training clip can be asked to settle, from random weights
# and from weights that were trained on something else.
PARAMETERS_A_CLIP, PARAMETERS_A_CLIP_GIVEN = 5_000, 100_000
_SMALL = 3_000_000
_FROZEN = "--config.optimizer.frozen='(\"^(video|audio)(_encoder)?/\",)'"


def config_check(
    name_or_path: str, overrides: Overrides, shards: str
) -> Callable[[Facts], list[Finding]]:
    """Reads a config, and gives what looks for things in it that do not suit a shard folder.

    Args:
      name_or_path: as for `load_config`.
      overrides: the same.
      shards: the folder, taken in place of `config.data.path`.

    Returns:
      Facts of the folder -> findings, the worst first.

    Raises:
      UserError: as `load_config`.
    """
    parts = parse(load_config(name_or_path, overrides).to_dict())
    path = parts.data.path
    parts = dataclasses.replace(parts, data=dataclasses.replace(parts.data, path=shards))

    def check(facts: Facts) -> list[Finding]:
        classes = {name: len(names) for name, names in facts.info.label_sets.items()}
        params = Experiment(parts, classes=classes).skeleton.params
        findings = [*_generated(facts, path), *of_data(facts, parts)]
        return worst_first([*findings, *of_size(facts, parts, params)])

    return check


def of_data(facts: Facts, parts: Parts) -> Iterator[Finding]:
    """What of the block `data` does not suit the clips.

    Args:
      facts: what was seen of them.
      parts: the config.
    """
    data, modalities = parts.data, parts.model["modalities"]
    # A look at the start has seen splits that are read as one as one.
    trained = (data.train_split, *split_names(data.train_split))
    clips = [clip for clip in facts.clips if clip.split in trained]
    for split, field in ((data.train_split, "train_split"), (data.eval_split, "eval_split")):
        if not all(map(facts.info.splits.get, split_names(split))):
            there = ", ".join(facts.info.splits)
            yield found(
                "error",
                f"{field}_missing",
                f"the config reads the split {split!r}, the shards have {there}",
                f"give avt train --config.data.{field}= with one of those",
            )
    if not clips:
        return
    yield from _length(clips, data)
    if modalities != "video":
        yield from _normalisation(facts, data)
    if modalities != "audio":
        files = Files(shards=facts.path, info=facts.info)
        yield from _frames(clips, data, facts, files)


def _length(clips: list[ClipFacts], data: DataConfig) -> Iterator[Finding]:
    shorter = sum(clip.length_sec < _SAME_LENGTH * data.clip_sec for clip in clips)
    if 2 * shorter > len(clips):
        median_sec = statistics.median(clip.length_sec for clip in clips)
        yield found(
            "warning",
            "clips_shorter",
            f"{shorter} of {len(clips)} training clips are shorter than config.data.clip_sec = "
            f"{data.clip_sec:g} and are filled up with nothing",
            f"give avt train --config.data.clip_sec={max(0.1, math.floor(median_sec * 10) / 10):g}",
        )


def _normalisation(facts: Facts, data: DataConfig) -> Iterator[Finding]:
    means, stds = facts.log_mel.mean_and_std()
    if means is None or stds is None:
        return
    [mean], [std] = means, stds
    off = abs(mean - data.audio_mean) / data.audio_std
    factor = max(std, 1e-6) / data.audio_std
    if off > _MEAN_OFF or max(factor, 1 / factor) > _STD_OFF:
        yield found(
            "warning",
            "audio_statistics",
            f"config.data.audio_mean and audio_std are {data.audio_mean:.2f} and "
            f"{data.audio_std:.2f}, the sound has {mean:.2f} and {std:.2f}",
            "give avt train what avt shards stats measures: "
            f"--config.data.audio_mean={mean:.5f} --config.data.audio_std={max(std, 1e-6):.5f}",
        )


def _frames(
    clips: list[ClipFacts], data: DataConfig, facts: Facts, files: Files
) -> Iterator[Finding]:
    sides = [clip.content.short_side_px for clip in clips if clip.content is not None]
    sides = [side for side in sides if side]
    side = statistics.median_low(sides) if sides else facts.info.short_side_px
    wanted = math.ceil(_SPARE * data.frame_size_px)
    if side > _LARGER * data.frame_size_px:
        yield found(
            "hint",
            "frames_larger",
            f"frames are stored with {side} px and shown with {data.frame_size_px}: "
            f"{(side / wanted) ** 2:.0f} times the disk and the decoding that are needed",
            files.extract(short_side_px=wanted),
        )
    if side < data.frame_size_px:
        yield found(
            "hint",
            "frames_smaller",
            f"frames are stored with {side} px and enlarged to {data.frame_size_px}",
            f"give avt train a smaller --config.data.frame_size_px, or: "
            f"{files.extract(short_side_px=wanted)} (small videos are not enlarged)",
        )
    rate_hz = facts.info.frame_rate_hz
    stored = rate_hz * data.clip_sec
    if data.num_frames > stored + 1e-6:
        yield found(
            "warning",
            "too_few_frames",
            f"the model is shown {data.num_frames} frames of {data.clip_sec:g} s, stored are "
            f"{stored:g} ({rate_hz:g} a second): frames are shown twice",
            f"{files.extract(frame_rate_hz=math.ceil(data.num_frames / data.clip_sec))}, or give "
            f"avt train a smaller --config.data.num_frames",
        )
    elif stored > _MORE_FRAMES * data.num_frames:
        yield found(
            "hint",
            "too_many_frames",
            f"{stored:g} frames of {data.clip_sec:g} s are stored, and {data.num_frames} shown",
            f"give avt train more --config.data.num_frames, or "
            f"{files.extract(frame_rate_hz=math.ceil(data.num_frames / data.clip_sec))}",
        )


def of_size(facts: Facts, parts: Parts, params: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the clips are too few for the model, by a rule of thumb.

    Args:
      facts: what was seen of them.
      parts: the config.
      params: of the model, by path; shapes are enough.
    """
    num_clips = facts.info.num_clips(parts.data.train_split)
    frozen = parts.optimizer.frozen_paths(params)
    trained = tree.parameter_count({k: v for k, v in params.items() if k not in frozen})
    given = parts.init != InitConfig()
    most = PARAMETERS_A_CLIP_GIVEN if given else PARAMETERS_A_CLIP
    if not num_clips or trained <= most * num_clips:
        return
    advice = ["record more clips"]
    if trained > _SMALL:
        advice.append("take a smaller model (avt train --config own:tiny)")
    if not given:
        advice.append("start from released weights (docs/weights.md)")
    elif not frozen:
        advice.append(f"do not train the encoders ({_FROZEN})")
    yield found(
        "warning",
        "few_clips_for_model",
        f"{num_clips} training clips are few for {trained / 1e6:.1f} M trained parameters; a rule "
        f"of thumb asks for {math.ceil(trained / most)}{'' if given else ' from random weights'}",
        ", or ".join(advice),
    )


def _generated(facts: Facts, path: str) -> Iterator[Finding]:
    """A config that trains on noise although there are shards."""
    if not is_generated(path):
        return

    def sizes(label_sets: Mapping[str, tuple[str, ...]]) -> str:
        return ", ".join(f"{name} {len(names)}" for name, names in label_sets.items())

    made, own = open_generated(path, "train")[0].label_sets, facts.info.label_sets
    yield found(
        "warning",
        "generated_clips",
        f"the config trains on generated noise with the classes {sizes(made)}; the shards have "
        f"{sizes(own)}",
        f"give avt train --config.data.path={shlex.quote(facts.path)}",
    )
