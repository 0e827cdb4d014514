"""From a data set's official annotation files to an evaluated model, by the command line alone.

The files have a few rows in the published columns; the videos are rendered, under the names that
the usual downloads give them. The extraction and the training are the commands that `avt manifest`
prints, but with the data set's MBT recipe: the data are the same, and it compiles several times
faster. tests/integration/test_recipes.py runs the others, AVT's.
"""

import json
import shlex
import shutil

import fsspec
import jax
import pytest
from published import epic_row, write_csv, write_epic, write_kinetics, write_vggsound
from tiny_run import write_video

from avt_jax.cli import evaluate, train
from avt_jax.cli.data import extract, manifest
from avt_jax.data import records
from avt_jax.training.checkpoint import load_run


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """A program for one device is compiled sooner; tests/integration/test_devices.py has eight."""
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda: devices)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video of 2 s with a tone, whose copies stand for all others."""
    path = tmp_path_factory.mktemp("rendered") / "clip.mp4"
    return write_video(path, video_sec=2.0, audio_sec=2.0, size_px=48)


def place(clip, folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, folder / name)


def write_kinetics_sounds(folder, clip):
    labels = ("playing drums", "tap dancing", "zumba")
    train = [(labels[n % 3], f"-{n}_-xxxxxxx", n, n + 10, "train") for n in range(6)]
    val = [(labels[n % 2], f"_{n}-_yyyyyyy", 7, 17, "val") for n in range(2)]
    for label, video, start, end, split in train + val:
        place(clip, folder, f"videos/{split}/{label}/{video}_{start:06d}_{end:06d}.mp4")
    write_kinetics(folder / "train.csv", train)
    write_kinetics(folder / "val.csv", val)
    return ["kinetics-sounds", "--csv", "train.csv", "--csv", "val.csv"]


def write_vgg(folder, clip):
    labels = ("dog barking", "playing violin, fiddle", "hail")
    rows = [(f"--{n}_vvvvvvv", n, labels[n % 3], "train") for n in range(6)]
    rows += [(f"{n}_test-test", 30, labels[n], "test") for n in range(2)]
    rows += [("gone_______", 5, "hail", "train")]
    names = [f"{video}_{start:06d}.mp4" for video, start, _, _ in rows[:-1]]
    # The whole source video, of which the row is the first part.
    names[0] = f"{rows[0][0]}.mp4"
    place(clip, folder, *(f"videos/{name}" for name in names))
    write_vggsound(folder / "vggsound.csv", rows)
    return ["vggsound", "--csv", "vggsound.csv"]


def write_epic_kitchens(folder, clip):
    verbs, nouns = [("take", 0), ("wash", 2)], [("plate", 2), ("light", 114), ("salad", 260)]
    train = [
        epic_row("P01_101", n, 0.2 * n, 0.2 * n + 0.95, verbs[n % 2], nouns[n % 3])
        for n in range(6)
    ]
    val = [epic_row("P02_12", n, 0.5 * n, 0.5 * n + 0.8, verbs[n], nouns[n]) for n in range(2)]
    write_epic(folder / "EPIC_100_train.csv", train)
    write_epic(folder / "EPIC_100_validation.csv", val)
    lists = []
    for name, count in (("verb", 97), ("noun", 300)):
        rows = [(n, f"{name}-{n}", f"['{name}-{n}']", "all") for n in range(count)]
        file = folder / f"EPIC_100_{name}_classes.csv"
        write_csv(file, rows, ("id", "key", "instances", "category"))
        lists += ["--classes", f"{name}={file.name}"]
    place(clip, folder, "videos/P01/videos/P01_101.MP4", "videos/P02/P02_12.MP4")
    files = ["EPIC_100_train.csv", "EPIC_100_validation.csv"]
    return ["epic", "--csv", files[0], "--csv", files[1], *lists]


CASES = {
    "kinetics_sounds": (write_kinetics_sounds, {"train": 4, "val": 2}, {"label": 32}),
    "vggsound": (write_vgg, {"train": 6, "test": 2}, {"label": 3}),
    "epic_kitchens_100": (write_epic_kitchens, {"train": 6, "val": 2}, {"verb": 97, "noun": 300}),
}


def next_commands(output):
    """The commands that `avt manifest` printed, as lists of words behind `avt`."""
    lines = output.partition("next:\n")[2].splitlines()
    return {words[1]: words[2:] for words in map(shlex.split, lines)}


@pytest.mark.parametrize("recipe", CASES)
def test_from_the_annotation_to_an_evaluated_model(recipe, clip, tmp_path, monkeypatch, capsys):
    write, num_clips, num_classes = CASES[recipe]
    monkeypatch.chdir(tmp_path)
    assert manifest.main([*write(tmp_path, clip), "--videos", "videos"]) == 0
    commands = next_commands(capsys.readouterr().out)
    assert extract.main([*commands["extract"], "--workers", "1"]) == 0
    info = records.read_info("shards")
    assert {name: len(names) for name, names in info.label_sets.items()} == num_classes
    opened = {split: records.open_split("shards", split) for split in num_clips}
    assert {split: len(source) for split, source in opened.items()} == num_clips
    if recipe == "epic_kitchens_100":
        found = [(int(r["labels"]["verb"]), int(r["labels"]["noun"])) for r in opened["train"]]
        assert found == [(0, 2), (2, 114), (0, 260), (2, 2), (0, 114), (2, 260)]
        assert info.label_sets["noun"][260] == "noun-260"

    assert commands["train"][:2] == ["--config", recipe]
    words = ["--config", f"mbt_{recipe}:smoke", *commands["train"][2:], "--config.train.steps=2"]
    assert train.main(words) == 0
    lines = (tmp_path / f"runs/{recipe}/metrics.jsonl").read_text().splitlines()
    logged = [entry for entry in map(json.loads, lines) if entry["split"] == "train"]
    assert [entry["step"] for entry in logged] == [1, 2]
    assert {"loss", "classification", "lr"} <= logged[0].keys()
    assert "contrastive" not in logged[0], "MBT has no contrastive term"
    assert load_run(f"runs/{recipe}").step == 2
    split = list(num_clips)[-1]
    # The copy that a cluster would read; shards behind other URLs take the same way.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = f"memory://{recipe}/shards"
    fsspec.filesystem("memory").put(str(tmp_path / "shards"), f"/{recipe}/", recursive=True)
    words = ["--checkpoint", f"runs/{recipe}", "--data", url, "--split", split]
    assert evaluate.main(words) == 0
    results = json.loads((tmp_path / f"runs/{recipe}/evaluation-{split}/results.json").read_text())
    assert results["evaluated-on"]["step"] == 2 and results["evaluated-on"]["data"] == url
    assert ("action" in results) == (recipe == "epic_kitchens_100")
    for label_set, count in num_classes.items():
        assert results[label_set]["count"] == 2
        assert 0 <= results[label_set]["top1"] <= results[label_set]["top5"] <= 1
        assert len(results[label_set]["classes"]) == count
