"""Names that look grouped are grouped; numbered ones are not."""

import re

import pytest
from published import touch

from avt_jax.data.manifests.from_folder import manifest_from_folder
from avt_jax.data.manifests.name_groups import find_grouping

CLASSES = ("cat", "dog", "rain")


def grouping(*names, **options):
    return find_grouping({name: {name.split("/")[0]} for name in names}, **options)


def of_classes(*names):
    return [f"{label}/{name}" for label in CLASSES for name in names]


STEMS = ("rex", "holiday", "kitchen", "x 1")
GROUPED = {
    "letters": of_classes(*(f"clip_{n:03d}_{letter}.mp4" for n in range(9) for letter in "ab")),
    "languages": of_classes(*(f"word{n}__{code}.mp4" for n in range(5) for code in ("fr", "bg"))),
    "takes": of_classes(*(f"{stem}_take{n}.mp4" for stem in STEMS for n in range(3))),
    "parts": of_classes(*(f"{stem}-Part 0{n}.MOV" for stem in STEMS for n in range(1, 3))),
    "numbers": of_classes(*(f"{stem}-{n}.mp4" for stem in STEMS for n in range(4))),
    "spans": of_classes(
        *(f"Xy_{stem}_{s:06d}_{s + 10:06d}.mp4" for stem in "abcde" for s in (0, 40))
    ),
    "UCF101": of_classes(
        *(f"v_Dog_g{g:02d}_c{n:02d}.avi" for g in range(1, 8) for n in range(1, 13))
    ),
}
NUMBERED = {
    "numbers": of_classes(*(f"{n}.mp4" for n in range(30))),
    "clips": of_classes(*(f"clip_{n:03d}.mp4" for n in range(30))),
    "classes": [f"{label}/{label}_{n:03d}.mp4" for label in CLASSES for n in range(30)],
    "cameras": of_classes(*(f"{p}_{n}.MOV" for p in ("IMG", "VID") for n in range(4000, 4020))),
    "own word": of_classes(*(f"bark{n}.mp4" for n in range(30))),
    "VGGSound": [f"{c}/k{c}{7919 * n % 9973}-x_Q_{n:06d}.mp4" for c in CLASSES for n in range(30)],
    "folders that count alike": [f"{s}/bark_{n:03d}.mp4" for s in CLASSES for n in range(30)],
    "one recording a class": of_classes(*(f"rex_take{n}.mp4" for n in range(9))),
}


@pytest.mark.parametrize("kind", GROUPED)
def test_grouped_names(kind):
    names = GROUPED[kind]
    found = grouping(*names)
    # The stems were put together here: without its end a name is that of its recording.
    ends = {
        "letters": "_[ab]", "languages": "__..", "takes": "_take.", "parts": "-Part 0.",
        "numbers": "-.", "spans": r"_\d+_\d+", "UCF101": r"_c\d+",
    }  # fmt: skip
    truth = {name: re.sub(ends[kind] + r"\.\w+$", "", name) for name in names}
    expected = {}
    for name in names:
        expected.setdefault(truth[name], set()).add(name)
    assert {frozenset(group) for group in found.groups} == set(map(frozenset, expected.values()))
    assert found.num_files == len(names)
    # What is printed is what was judged.
    by_pattern = {}
    for name in names:
        by_pattern.setdefault(re.search(found.pattern, name)[1], set()).add(name)
    assert sorted(map(sorted, by_pattern.values())) == sorted(map(sorted, expected.values()))
    assert len({truth[name] for name in found.example}) == 1 and len(set(found.example)) == 2


@pytest.mark.parametrize("kind", NUMBERED)
def test_numbered_names_are_not_grouped(kind):
    assert grouping(*NUMBERED[kind]) is None


def test_a_few_copies_among_numbered_files():
    names = [*NUMBERED["clips"], "dog/clip_003 (1).mp4", "cat/clip_004 - Copy.mp4"]
    found = grouping(*names)
    assert set(found.groups) == {
        ("dog/clip_003.mp4", "dog/clip_003 (1).mp4"),
        ("cat/clip_004.mp4", "cat/clip_004 - Copy.mp4"),
    }
    assert all(re.search(found.pattern, name) for name in names)


def test_a_recording_may_be_in_several_folders():
    names = [f"{code}/phrase_{n}__{code}.mp4" for n in range(9) for code in ("fr", "bg")]
    assert set(grouping(*names).groups) == {
        (f"fr/phrase_{n}__fr.mp4", f"bg/phrase_{n}__bg.mp4") for n in range(9)
    }
    names = [f"{split}/{stem}.mp4" for split in ("train", "test") for stem in ("Kx7aPq", "Ab9")]
    found = find_grouping({name: {"dog"} for name in (*names, "train/c.mp4", "train/d.mp4")})
    assert found.groups == (("train/Kx7aPq.mp4", "test/Kx7aPq.mp4"),), "Ab9 is too short to tell"


def test_folders_below_those_of_the_classes(tmp_path):
    names = of_classes(*(f"tape{t}/{n:03d}.mp4" for t in range(4) for n in range(3)))
    names.append("dog/single.mp4")
    assert grouping(*names) is None
    found = grouping(*names, folders=True)
    assert len(found.groups) == 12 and all(re.search(found.pattern, name) for name in names)
    folder = touch(tmp_path / "mine", *names)
    divided = manifest_from_folder(folder, tmp_path / "a.csv")
    assert divided.grouping.groups == found.groups and divided.num_groups is None
    divided = manifest_from_folder(folder, tmp_path / "b.csv", group_by=divided.grouping.pattern)
    assert divided.num_groups == {"train": 7, "val": 3, "test": 3} and divided.grouping is None


def test_absurd_names_take_no_time():
    names = ["_" * 4000, "a_1" * 160 + "!", *(f"{'-1' * 200}{n}" for n in range(50))]
    assert find_grouping({name: {"x"} for name in names}) is None
