"""A run's shards are found from any folder, and after both have moved."""

import json
import os

import pytest

from avt_jax.errors import UserError
from avt_jax.training import shards_place


def shards(folder):
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{}")
    return folder


def run_of(folder, given, found):
    """A run folder that was trained on shards."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {"label_sets": {}, "records": {}, "shards": shards_place.place(given, found, folder)}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


def find(given, run):
    return shards_place.find(given, run, origin="ORIGIN", option="--data SHARDS")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """project/shards and project/runs/a, trained on "shards" from within project."""
    shards(tmp_path / "project" / "shards")
    monkeypatch.chdir(tmp_path / "project")
    run_of(tmp_path / "project" / "runs" / "a", "shards", "shards")
    return tmp_path / "project"


def test_as_it_was_given(project):
    assert find("shards", project / "runs" / "a") == "shards"


def test_from_another_folder(project, monkeypatch):
    monkeypatch.chdir(project.parent)
    assert find("shards", project / "runs" / "a") == str(project / "shards")


def test_another_folder_of_the_name_comes_first_if_it_has_shards(project, monkeypatch):
    other = project.parent / "other"
    (other / "shards").mkdir(parents=True)
    monkeypatch.chdir(other)
    assert find("shards", project / "runs" / "a") == str(project / "shards")
    (other / "shards" / "dataset_info.json").write_text("{}")
    assert find("shards", project / "runs" / "a") == "shards"


@pytest.mark.parametrize("given", ["shards", "ABSOLUTE"])
def test_after_both_have_moved_together(project, monkeypatch, given):
    given = given if given == "shards" else str(project / "shards")
    run_of(project / "runs" / "a", given, given)
    monkeypatch.chdir(project.parent)
    moved = project.rename(project.parent / "elsewhere")
    assert find(given, moved / "runs" / "a") == str(moved / "shards")
    # Relative to the run's real place, whatever links lead to it.
    (project.parent / "link").symlink_to(moved / "runs" / "a")
    assert find(given, project.parent / "link") == str(moved / "shards")


def test_a_link_to_the_shards_moves_as_a_link(project, monkeypatch):
    (project / "shards").rename(project.parent / "disk")
    (project / "shards").symlink_to(project.parent / "disk")
    run_of(project / "runs" / "a", "shards", "shards")
    monkeypatch.chdir("/")
    moved = project.rename(project.parent / "elsewhere")
    assert find("shards", moved / "runs" / "a") == str(moved / "shards")


def test_another_path_than_the_run_s_stands_for_itself(project, monkeypatch):
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match="no shard folder at shards2; give"):
        find("shards2", project / "runs" / "a")


def test_nowhere_is_one_sentence_with_all_places(project, monkeypatch):
    (project / "shards").rename(project.parent / "lost")
    with pytest.raises(UserError) as error:
        find("shards", project / "runs" / "a")
    assert str(error.value) == (
        "ORIGIN is shards, and there is no shard folder at shards; give the one that 'avt extract' "
        "made with --data SHARDS."
    )
    monkeypatch.chdir("/")
    moved = project.rename(project.parent / "elsewhere")
    with pytest.raises(UserError) as error:
        find("shards", moved / "runs" / "a")
    assert f"at shards or at {project}/shards or at {moved}/shards; give" in str(error.value)


def test_a_folder_without_shards_is_left_to_the_reader(project):
    (project / "shards" / "dataset_info.json").unlink()
    assert find("shards", project / "runs" / "a") == "shards"


@pytest.mark.parametrize("given", ["generated:4:label=2", "gs://bucket/shards"])
def test_what_is_no_folder_stays_as_it_is(tmp_path, given):
    assert shards_place.place(given, given, tmp_path) == {}
    assert find(given, tmp_path) == given


@pytest.mark.parametrize(
    "kept",
    [
        None,
        3,
        [],
        {"given": "shards"},
        {"given": "shards", "absolute": "PLACE", "from_run": 3},
        {"given": "shards", "absolute": "PLACE\x1b[2J", "from_run": "x"},
    ],
)
def test_a_run_that_says_nothing_of_use(project, monkeypatch, kept):
    text = json.dumps({"label_sets": {}, "records": {}, "shards": kept})
    text = text.replace("PLACE", os.fspath(project / "shards"))
    (project / "runs" / "a" / "run.json").write_text(text)
    monkeypatch.chdir("/")
    with pytest.raises(UserError, match="no shard folder at shards; give"):
        find("shards", project / "runs" / "a")
