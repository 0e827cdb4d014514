"""Each check finds what it is for, names it, and is quiet without it."""

import numpy as np
import pytest
from doctor_shards import clip, good, name, write
from small_shards import flip, train_shards

from avt_jax.audio.melspec import LOG_FLOOR
from avt_jax.data import records
from avt_jax.data.doctor import facts as facts_module
from avt_jax.data.doctor.check import check_facts, check_manifest
from avt_jax.data.doctor.classes import check_names
from avt_jax.data.doctor.facts import glance, read_facts
from avt_jax.data.manifests.manifest import read_manifest
from avt_jax.errors import UserError


def found_in(folder, **options):
    return {finding.check: finding for finding in check_facts(read_facts(folder, **options))}


@pytest.fixture
def check(tmp_path):
    """Writes clips and returns what is found in them, by check."""
    return lambda made, *classes, **options: found_in(
        write(tmp_path / "shards", made, *classes), **options
    )


def test_nothing_is_found_where_nothing_is_wrong(check):
    assert check(good()) == {}


def test_a_file_in_two_splits(check):
    made = good()
    shared = made["train"][0]["source"]
    made["test"].append(clip(500, source=shared))
    found = check(made)
    assert set(found) == {"source_in_two_splits"}
    finding = found["source_in_two_splits"]
    assert finding.severity == "error" and finding.where == (f"{shared} (train, test)",)
    assert finding.remedy.startswith("avt manifest --split clips.csv --replace-splits --out ")
    assert "avt extract --manifest clips.split.csv" in finding.remedy
    assert finding.remedy.endswith("--short-side 16"), "as the shards were extracted"


def test_names_of_one_recording(check):
    made = good()
    for split, places in {"train": "ab", "val": "c"}.items():
        for place in places:
            for n in range(4):
                record = clip(600 + 10 * n + ord(place), n % 2, source=f"v/talk{n}_{place}.mp4")
                made["train" if n else split].append(record)
    found = check(made)
    assert set(found) == {"names_of_one_recording"}
    finding = found["names_of_one_recording"]
    assert finding.severity == "warning"
    assert finding.where == ("v/talk0_a.mp4 (train) and v/talk0_c.mp4 (val)",)
    assert " --group-by '" in finding.remedy


def test_copies(check):
    made = good()
    made["val"].append(clip(700, 0, seed=2))  # of a training clip with the same label
    made["train"] += [clip(701, 1, seed=800), clip(702, 0, seed=800)]  # two labels
    one, two = clip(703), clip(704)
    made["train"].append(one)
    made["test"].append(two | {"frames": one["frames"]})  # another sound
    three, four = clip(705, 1), clip(706, 1)
    made["train"].append(three)
    made["test"].append(four | {"fbank": three["fbank"]})
    found = check(made)
    assert set(found) == {"copies_in_two_splits", "copies", "same_pictures", "same_sound"}
    across = found["copies_in_two_splits"]
    assert across.severity == "error" and len(across.where) == 1
    assert across.where == (f"{name(2)} (train) and {name(700)} (val)",)
    assert "1 of them with another label" in found["copies"].what
    assert found["same_pictures"].where == (f"{name(703)} (train) and {name(704)} (test)",)
    assert found["same_sound"].where == (f"{name(705)} (train) and {name(706)} (test)",)


def test_silence_and_still_pictures_are_no_copies(check):
    made = good()
    for number, split in enumerate(made):
        made[split].append(clip(900 + number, 0, sound=LOG_FLOOR, still=True, seed=1))
    assert check(made) == {}


def test_missing_splits(tmp_path):
    made = good()
    for number, (there, check, severity) in enumerate(
        [
            (("val", "test"), "no_training_clips", "error"),
            (("train",), "nothing_held_out", "error"),
            (("train", "test"), "no_validation_clips", "warning"),
            (("train", "val"), "no_test_clips", "hint"),
        ]
    ):
        folder = write(tmp_path / f"{number}", {split: made[split] for split in there})
        found = found_in(folder)
        assert set(found) == {check} and found[check].severity == severity


def test_classes(check):
    made = good()
    made["train"] += [clip(500, 2), clip(501, 2)] + [clip(510 + n, 0) for n in range(12)]
    made["test"] += [clip(502, 3), clip(503, 3)]
    found = check(made, ("cat", "dog", "eel", "fox", "gnu"))
    severities = {name: finding.severity for name, finding in found.items()}
    assert severities == {
        "class_not_trained": "error",
        "class_without_clips": "warning",
        "class_not_in_val": "warning",
        "class_not_in_test": "warning",
        "few_clips": "warning",
        "imbalance": "warning",
    }
    assert found["class_not_trained"].where == ("fox",)
    assert found["class_without_clips"].where == ("gnu",)
    assert found["class_not_in_val"].where == ("eel (2 training clips)",)
    assert found["few_clips"].where == ("eel (2)",)
    assert "12 times" in found["imbalance"].what
    assert found["imbalance"].where == ("cat (24)", "eel (2)")


@pytest.mark.parametrize(
    ("names", "counts", "expected"),
    [
        (("dog_barking", "dog_barkng"), (20, 1), {"class_looks_like_another"}),
        (("dog_barkng", "dog_barking"), (1, 20), {"class_looks_like_another"}),
        (("horse", "hosre"), (20, 2), {"class_looks_like_another"}),
        (("horses", "horse"), (20, 2), {"class_looks_like_another"}),
        (("horse", "house"), (20, 3), {"class_looks_like_another"}),
        (("horse", "house"), (100, 90), set()),
        (("cat", "bat"), (20, 1), set()),
        (("class 1", "class 2", "class 12"), (20, 1, 1), set()),
        (("letter a", "letter b"), (20, 1), set()),
        (("playing flute", "playing lute"), (50, 40), set()),
        (("Dog", "dog"), (9, 9), {"class_written_twice"}),
        (("dog barking", "dog_barking", "cat"), (9, 9, 9), {"class_written_twice"}),
        (("caf\u00e9", "cafe\u0301"), (9, 9), {"class_written_twice"}),
        (("cat", "dog", "rain"), (9, 9, 1), set()),
    ],
)
def test_names_of_classes(names, counts, expected):
    found = list(check_names({"label": names}, {"label": dict(enumerate(counts))}))
    assert {finding.check for finding in found} == expected and len(found) == len(expected)
    if "class_looks_like_another" in expected:
        [finding] = found
        rare = names[int(np.argmin(counts))]
        assert finding.what.startswith(f"the class {rare!r} ({min(counts)} clips)")


def test_silent_and_still_classes(check):
    made = {"train": [], "val": [], "test": []}
    for number in range(48):
        label = number % 2
        sound = ("" if number % 8 else LOG_FLOOR) if label == 0 and number % 4 else None
        record = clip(number, label, sound=sound, still=label == 1 and number < 40)
        made[("train", "train", "train", "val", "val", "test")[number // 8]].append(record)
    found = check(made)
    assert set(found) == {"still_classes"}, "half of cat's clips are silent, and not most"
    assert found["still_classes"].where == ("dog (20 of 24)",)


def test_no_sound_at_all(check):
    made = {s: [clip(n, n % 2, sound="") for n in r] for s, r in
            {"train": range(24), "val": range(24, 28), "test": range(28, 32)}.items()}  # fmt: skip
    found = check(made)
    assert set(found) == {"all_silent"}
    assert found["all_silent"].remedy == "train with --config.model.modalities=video"


def test_damage_is_counted_and_the_rest_is_looked_at(tmp_path):
    made = good()
    made["val"].append(clip(500, source=made["train"][20]["source"]))
    folder = write(tmp_path / "shards", made)
    flip(train_shards(folder)[0], 3000)
    facts = read_facts(folder)
    assert sum(facts.num_damaged.values()) == 1 and len(facts.clips) == 32
    checks = {finding.check: finding for finding in check_facts(facts)}
    assert set(checks) == {"damaged_records", "source_in_two_splits"}
    assert f"avt shards verify {folder}" in checks["damaged_records"].remedy
    train_shards(folder)[1].unlink()
    lost = found_in(folder)
    assert lost["lost_split"].severity == "error" and "is missing" in lost["lost_split"].what
    assert "few_clips" not in lost, "of what cannot be read nothing is said to be missing"
    with pytest.raises(UserError, match="no shard folder"):
        read_facts(tmp_path / "none")


def test_content_of_a_part(tmp_path):
    made = good()
    made["val"].append(clip(700, 0, seed=2))
    folder = write(tmp_path / "shards", made)
    facts = read_facts(folder, max_content=7)
    by_split = {s: [c.content is not None for c in facts.clips if c.split == s] for s in made}
    assert {s: sum(seen) for s, seen in by_split.items()} == {"train": 5, "val": 1, "test": 1}
    assert set(np.diff(np.flatnonzero(by_split["train"]))) <= {4, 5}, "evenly spread"
    assert read_facts(folder, max_content=0).num_content == 0
    assert "copies_in_two_splits" in found_in(folder)


def test_the_log_mel_of_clips_with_sound(tmp_path):
    made = good()
    made["train"].append(clip(500, 0, sound=""))
    facts = read_facts(write(tmp_path / "shards", made))
    values = np.concatenate([c["fbank"].astype(np.float64) for s in made for c in made[s]])
    [mean], [std] = facts.log_mel.mean_and_std()
    np.testing.assert_allclose((mean, std), (values.mean(), values.std()), rtol=1e-9)


def test_a_glance_takes_clips_evenly_and_no_longer_than_it_may(tmp_path, monkeypatch):
    folder = write(tmp_path / "shards", good())
    info = records.read_info(folder)
    opened = {split: records.open_split(folder, split) for split in ("train", "val")}
    assert len(glance(str(folder), info, opened, limit_sec=60.0).clips) == 28
    ticks = iter(range(10_000))
    monkeypatch.setattr(facts_module.time, "monotonic", lambda: next(ticks))
    facts = glance(str(folder), info, opened, limit_sec=12.0)
    taken = [clip.split for clip in facts.clips]
    assert taken == ["train"] * 6 + ["val"] * 4 and not facts.is_complete
    assert not any(finding.check == "few_clips" for finding in check_facts(facts, splits=["train"]))
    for count in range(1, 60):
        order = list(facts_module._spread(count))
        assert sorted(order) == list(range(count))
        first = np.sort(order[: max(1, count // 4)])
        gaps = np.diff([-1, *first, count])
        assert gaps.max() <= 16, "no part of a split is left out"


def test_manifest(tmp_path):
    rows = [f"v/{stem}_take{n}.mp4,{label},{split}" for label, stem, n, split in (
        ("dog", "rex", 1, "train"), ("dog", "rex", 2, "val"), ("dog", "tom", 1, "train"),
        ("dog", "tom", 2, "test"), ("dog", "joe", 1, "train"), ("dgo", "ann", 1, "train"),
    )]  # fmt: skip
    path = tmp_path / "my clips.csv"
    path.write_text("\n".join(["path,label,split", *rows]) + "\n")
    found = {finding.check: finding for finding in check_manifest(read_manifest(path))}
    assert {"names_of_one_recording", "few_clips", "class_not_in_val"} <= set(found)
    remedy = found["names_of_one_recording"].remedy
    assert remedy.startswith(f"avt manifest --split '{path}' --replace-splits --group-by ")
    assert "extract" not in remedy
    path.write_text("path,label\na.mp4,x\nb.mp4,y\n")
    found = {finding.check: finding for finding in check_manifest(read_manifest(path))}
    assert "(the manifest has no splits)" in found["nothing_held_out"].what
    assert "--replace-splits" not in found["nothing_held_out"].remedy


def test_what_names_hold_does_not_control_the_terminal(check):
    made = good()
    source = "\x1b[31mred\n.mp4"
    made["train"].append(clip(500, source=source))
    made["test"].append(clip(501, source=source))
    line = check(made)["source_in_two_splits"].line()
    assert r"\x1b[31mred\n.mp4 (train, test)" in line and line.isprintable()
