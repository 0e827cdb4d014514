"""Shard folders behind a URL, in fsspec's memory file system."""

import pickle
import sys
import threading

import fsspec
import pytest
from clip_records import grey_record

from avt_jax.cli.data import inspect, shards
from avt_jax.data import records
from avt_jax.data.loading import pipeline
from avt_jax.data.loading.config import DataConfig
from avt_jax.data.records import remote
from avt_jax.data.records.writer import RecordWriter
from avt_jax.errors import UserError

URL = "memory://bucket/shards"
TRAIN = "avt_clips-train.array_record-00000-of-00001"
VAL = "avt_clips-val.array_record-00000-of-00001"


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "shards"
    folder.mkdir()
    writer = RecordWriter(
        folder, label_sets={"label": ("a", "b", "c")}, frame_rate_hz=8.0, short_side_px=24
    )
    for index in range(4):
        writer.add("train" if index < 3 else "val", grey_record(index))
    writer.close()
    return folder


@pytest.fixture
def bucket(original, tmp_path, monkeypatch):
    """The folder as memory://bucket/shards, an empty cache, and the names that are downloaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    files = fsspec.filesystem("memory")
    files.store.clear()
    for path in original.iterdir():
        files.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    fetched = []
    get_file = type(files).get_file

    def counted(self, source, target, **options):
        fetched.append(source.rpartition("/")[2])
        return get_file(self, source, target, **options)

    monkeypatch.setattr(type(files), "get_file", counted)
    files.fetched = fetched
    yield files
    files.store.clear()


def rewrite(files, name, content):
    files.pipe_file(f"/bucket/shards/{name}", content)


def copies(tmp_path):
    """Files in the cache whose name says that they are shards or parts of them."""
    return sorted(path.name for path in tmp_path.rglob("*avt_clips*"))


def test_what_is_a_url():
    for url in ("gs://b/x", "s3://b", "memory://a", "https://host/a", "file:///a"):
        assert remote.is_remote(url)
    for path in ("shards", "/a/b", "generated:24:label=3", "gs:/b", "a/gs://b", "C:\\x", ""):
        assert not remote.is_remote(path)


def test_only_the_shards_of_the_split_are_copied_and_only_once(bucket, original, tmp_path):
    assert records.read_info(URL) == records.read_info(original)
    assert bucket.fetched == []
    source = records.open_split(URL + "/", "val")
    assert bucket.fetched == [VAL]
    assert [r["id"] for r in source] == ["clip-3"]
    again = pickle.loads(pickle.dumps(source))
    assert again[0]["frames"] == records.open_split(original, "val")[0]["frames"]
    assert records.verify_checksums(URL) == 2
    assert sorted(bucket.fetched) == [TRAIN, VAL] == copies(tmp_path)


def test_examples_and_commands_are_those_of_the_folder(bucket, original, tmp_path, capsys):
    config = {"num_frames": 4, "clip_sec": 1.0, "frame_size_px": 16, "num_threads": 0}
    a, b = (
        list(
            pipeline.eval_batches(
                records.open_split(path, "train"), DataConfig(path, **config), batch_size=2
            )
        )
        for path in (URL, str(original))
    )
    assert len(a) == len(b) == 2
    assert all((x["video"] == y["video"]).all() for x, y in zip(a, b, strict=True))
    assert shards.main(["verify", URL, "--workers", "0"]) == 0
    assert "nothing is damaged" in capsys.readouterr().out
    assert shards.main(["stats", URL, "--workers", "0"]) == 0
    assert shards.main(["reshard", URL, "local"]) == 0
    assert records.read_info("local") == records.read_info(original)
    assert inspect.main([URL, "--verify", "--num-clips", "1"]) == 0
    assert (tmp_path / "contact_sheet.png").is_file()
    assert URL in capsys.readouterr().out


def test_shards_made_anew_are_copied_anew(bucket, original):
    before = records.open_split(URL, "val")
    again = original.parent / "again"
    if not again.exists():
        shards.main(["reshard", str(original), str(again)])
    info = (original / "metadata.json").read_text().replace('"a"', '"z"')
    rewrite(bucket, "metadata.json", info.encode())
    assert records.read_info(URL).label_sets["label"][0] == "z"
    assert before.info.label_sets["label"][0] == "a"
    assert remote.local_folder(URL, ()) != before._folder


def test_what_was_changed_on_its_way_is_refused(bucket, tmp_path):
    content = bytearray(bucket.cat_file(f"/bucket/shards/{VAL}"))
    content[len(content) // 2] ^= 1
    rewrite(bucket, VAL, bytes(content))
    with pytest.raises(UserError, match=f"{VAL} is not what SHA256SUMS says"):
        records.open_split(URL, "val")
    assert copies(tmp_path) == []
    assert len(records.open_split(URL, "train")) == 3


def test_a_missing_shard(bucket, tmp_path):
    bucket.rm_file(f"/bucket/shards/{VAL}")
    with pytest.raises(UserError, match="cannot (read|download) memory://"):
        records.open_split(URL, "val")
    assert copies(tmp_path) == []


@pytest.mark.parametrize(
    "name",
    ["../../evil", "/etc/passwd", "..", f"a/{TRAIN}", ".bashrc", "dataset_info.json", TRAIN + "x"],
)
def test_names_that_would_leave_the_folder(bucket, tmp_path, name):
    sums = bucket.cat_file("/bucket/shards/SHA256SUMS") + f"{'0' * 64}  {name}\n".encode()
    rewrite(bucket, "SHA256SUMS", sums)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="SHA256SUMS of memory://bucket/shards is damaged"):
        records.open_split(URL, "train")
    assert sorted(tmp_path.rglob("*")) == before and bucket.fetched == []


def test_label_sets_that_would_leave_the_folder(bucket, tmp_path):
    rewrite(bucket, "metadata.json", b'{"label_sets": {"../../x": ["a"]}}')
    folder = remote.local_folder(URL, ())
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".csv", ""}
    assert not list(tmp_path.rglob("*labels*"))


def test_sizes_are_limited(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "MAX_SHARD_BYTES", 100)
    with pytest.raises(UserError, match="a shard is larger than 100 bytes"):
        records.open_split(URL, "train")
    assert copies(tmp_path) == []
    monkeypatch.setattr(remote, "_MAX_DESCRIPTION_BYTES", 10)
    with pytest.raises(UserError, match="dataset_info.json is larger than"):
        records.read_info(URL)


def test_no_space(bucket, monkeypatch):
    usage = type("Usage", (), {"free": 5})
    monkeypatch.setattr(remote.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(UserError, match="set XDG_CACHE_HOME to a folder on a larger disk"):
        records.open_split(URL, "train")
    assert bucket.fetched == []


def test_two_at_once_download_once(bucket, capfd):
    lengths = []

    def read():
        lengths.append(len(records.open_split(URL, "train")))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert lengths == [3, 3, 3] and bucket.fetched == [TRAIN]


def test_a_part_left_by_a_killed_process_is_replaced(bucket):
    folder = remote.local_folder(URL, ())
    (folder / ".avt-0a1b2c3d.partial").write_bytes(b"half")
    assert len(records.open_split(URL, "train")) == 3
    assert not list(folder.glob(".*"))


def test_file_urls_are_read_where_they_are(original, bucket):
    assert remote.local_folder(f"file://{original}") == original
    assert len(records.open_split(f"file://{original}", "train")) == 3
    with pytest.raises(UserError, match="names no folder of this machine"):
        remote.local_folder("file://shards")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("memory://bucket/none", "no shard folder at memory://bucket/none: no dataset_info.json"),
        ("nosuch://a/b", "cannot open nosuch://a/b"),
        ("memory://bucket/shards?x=1", "give the plain URL"),
        ("gs://bucket/shards", "reading gs:// takes another package: pip install gcsfs."),
        ("s3://bucket/shards", "pip install s3fs."),
        ("https://me:secret@host/shards", "pip install aiohttp."),
    ],
)
def test_mistakes(bucket, monkeypatch, url, expected):
    for package in ("gcsfs", "s3fs", "aiohttp"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
    registry = sys.modules["fsspec.registry"]
    monkeypatch.setattr(registry, "_registry", {"memory": type(bucket)})
    with pytest.raises(UserError) as error:
        records.read_info(url)
    assert expected in str(error.value) and "secret" not in str(error.value)


def test_the_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert remote.cache_folder() == tmp_path / "avt_jax" / "shards"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert remote.cache_folder() == tmp_path / "home/.cache/avt_jax/shards"
