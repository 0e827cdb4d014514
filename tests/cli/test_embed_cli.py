"""`avt embed` and `avt search`: the whole way, and one sentence for what cannot be."""

import json

import numpy as np
import pytest
from clip_records import noise_record
from media_files import write_sound
from tiny_run import make_run, tiny_run_fixture, write_video  # noqa: F401

from avt_jax.cli import main as cli
from avt_jax.data.records.writer import RecordWriter
from avt_jax.inference.embeddings.reader import read_index


@pytest.fixture
def footage(tmp_path, monkeypatch):
    """The current folder, with two videos, a sound and a broken file in footage/."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "footage"
    folder.mkdir()
    write_video(folder / "a.mp4", video_sec=2, audio_sec=2)
    write_sound(folder / "b.wav", seconds=1.0)
    write_video(folder / "c.mp4", video_sec=1)
    (folder / "d\x1b[2J.mp4").write_text("no video\n" * 9)
    return tmp_path


def avt(*words):
    return cli.main(list(map(str, words)))


def last_line(capsys):
    return capsys.readouterr().err.splitlines()[-1]


def test_files_are_embedded_and_found(tiny_run, footage, capsys):
    assert avt("embed", "footage", "--checkpoint", tiny_run, "--out", "i.parquet") == 2
    out, err = capsys.readouterr()
    assert "i.parquet: 4 rows (video" in out and "projected" in out and "\x1b[2J" not in out + err
    assert err.splitlines()[-1].startswith("avt: 1 of 4 files could not be embedded")
    rows = read_index(footage / "i.parquet").rows
    assert rows.text["id"] == [f"footage/{n}" for n in ("a.mp4", "a.mp4", "b.wav", "c.mp4")]
    assert rows.start_sec.tolist() == [0, 1, 0, 0]
    # A file finds itself; its run is in the index.
    assert avt("search", "i.parquet", "footage/c.mp4", "--json", "--top", 2) == 0
    [query] = json.loads(capsys.readouterr().out)["queries"]
    assert query["query"] == "footage/c.mp4" and len(query["found"]) == 2
    best = query["found"][0]
    assert (best["id"], best["row"]) == ("footage/c.mp4", 3)
    assert best["cosine"] == pytest.approx(1, abs=1e-6)
    # By sound: rows without sound are not found.
    assert avt("search", "i.parquet", "footage/b.wav", "--by", "audio-audio") == 0
    shown = capsys.readouterr().out
    assert "footage/a.mp4" in shown and "c.mp4" not in shown
    assert avt("search", "i.parquet", "footage/b.wav", "--by", "audio-video", "--json") == 0
    [query] = json.loads(capsys.readouterr().out)["queries"]
    assert {found["row"] for found in query["found"]} == {0, 1, 3}
    assert avt("search", "i.parquet", "footage/b.wav", "--by", "video-video") == 2
    errors = capsys.readouterr().err
    assert "footage/b.wav has no video, by which it is to be searched" in errors


def test_shards_are_embedded_with_labels(tiny_run, footage, capsys):
    folder = footage / "shards"
    folder.mkdir()
    names = [f"class {i}" for i in range(3)]
    writer = RecordWriter(folder, label_sets={"label": names}, frame_rate_hz=8.0, short_side_px=24)
    for number in range(5):
        record = noise_record(number, num_frames=8, duration_sec=1.0)
        split = "train" if number < 3 else "val"
        writer.add(split, record | {"labels": {"label": number % 3}})
    writer.close()
    assert avt("embed", folder, "--checkpoint", tiny_run, "--out", "i.npz") == 0
    assert avt("embed", folder, "--checkpoint", tiny_run, "--out", "v.npz", "--split", "val") == 0
    capsys.readouterr()
    index = read_index(footage / "i.npz")
    assert index.rows.labels["label"] == [names[i % 3] for i in range(5)]
    assert index.rows.text["split"] == ["train"] * 3 + ["val"] * 2
    np.testing.assert_array_equal(
        read_index(footage / "v.npz").rows.vectors["fused"], index.rows.vectors["fused"][3:]
    )
    # An index as the query: no model is needed.
    assert avt("search", "i.npz", "v.npz", "--json", "--top", 1, "--by", "video-video") == 0
    found = json.loads(capsys.readouterr().out)["queries"]
    assert [one["found"][0]["row"] for one in found] == [3, 4]
    assert found[0]["found"][0]["labels"] == {"label": "class 0"}


def test_another_checkpoint_is_refused(tiny_run, footage, capsys, tmp_path):
    assert avt("embed", "footage/a.mp4", "--checkpoint", tiny_run, "--out", "i.npz") == 0
    other = make_run(tmp_path / "other", ["--config.model.modalities=video"])
    assert avt("search", "i.npz", "footage/a.mp4", "--checkpoint", other) == 2
    assert f"i.npz was made by another checkpoint (step 3 of {tiny_run})" in last_line(capsys)
    assert avt("embed", "footage/a.mp4", "--checkpoint", other, "--out", "o.npz") == 0
    assert avt("search", "i.npz", "o.npz", "--by", "video-video") == 2
    assert "than o.npz, and their vectors do not compare" in last_line(capsys)
    assert avt("search", "o.npz", "o.npz", "--by", "av-av") == 2
    assert "o.npz has no fused vectors" in last_line(capsys)
    assert avt("search", "o.npz", "o.npz") == 0  # by the one modality that there is


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["embed", "footage", "--out", "i.csv"], "an index ends in .parquet or .npz"),
        (["embed", "footage", "--out", "no/i.npz"], "does not exist; create it first"),
        (["embed", "footage", "--out", "i.npz", "--split", "val"], "is for a shard folder"),
        (["embed", "footage", "--out", "i.npz", "--hop-sec", "0"], "give a positive number"),
        (["embed", "nothing*", "--out", "i.npz"], "no video or sound file matches"),
        (["search", "i.npz", "footage", "--top", "0"], "give 1 or more"),
        (["search", "i.npz", "footage"], "i.npz does not exist"),
        (["search", "footage/a.mp4", "footage"], "is no index of 'avt embed'"),
    ],
)
def test_mistakes(tiny_run, footage, capsys, words, message):
    options = ["--checkpoint", tiny_run]
    assert avt(*words, *options) == 2
    errors = capsys.readouterr().err
    assert message in errors and len(errors.splitlines()) == 1
    assert {p.name for p in footage.iterdir()} == {"footage"}
