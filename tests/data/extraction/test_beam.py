"""The same shards from Beam's DirectRunner, with several processes, as from the process pool."""

import sys

import pytest
from media_files import write_manifest

from avt_jax.cli.common import run
from avt_jax.cli.data import extract as extract_cli
from avt_jax.data.extraction import beam, work_folder
from avt_jax.data.shard_tools.verify import verify_folder
from avt_jax.errors import UserError


@pytest.fixture(scope="module")
def manifest(videos, tmp_path_factory):
    """Eight clips, one of which cannot be read, in two splits."""
    rows = [
        (videos / name, start, "", label, split)
        for name, label, split in (("a.mp4", "x", "train"), ("b.mp4", "y", "val"))
        for start in (0, 0.2, 0.4)
    ]
    rows += [(videos / "text.mp4", "", "", "x", "train"), (videos / "silent.mp4", "", "", "x", "")]
    return write_manifest(tmp_path_factory.mktemp("beam") / "clips.csv", rows)


def arguments(manifest, out, *more):
    words = ["--manifest", manifest, "--out", out, "--frame-rate", 10, "--short-side", 48]
    return [str(word) for word in [*words, "--clips-per-shard", 2, *more]]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def pooled(manifest, tmp_path_factory):
    """What the process pool writes."""
    out = tmp_path_factory.mktemp("pooled") / "out"
    assert extract_cli.main(arguments(manifest, out, "--workers", 1)) == 0
    return out


def test_beam_writes_the_same_bytes_and_goes_on(manifest, pooled, tmp_path, capfd, monkeypatch):
    pytest.importorskip("apache_beam", reason="needs the extra 'beam'; launch/test_beam.sh has it")
    out = tmp_path / "out"

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(work_folder, "finish", interrupt)
        assert run(extract_cli.main, arguments(manifest, out, "--runner", "beam")) == 130
    folder = work_folder.work_path(out)
    results = sorted(folder.glob("*.part-*.json"))
    assert len(results) == 5 and not out.exists()
    kept = results[1].stat().st_mtime_ns
    for result in (results[0], *results[2:]):
        result.unlink()
    capfd.readouterr()
    finish = work_folder.finish

    def check_and_finish(folder, *args, **kwargs):
        assert (folder / results[1].name).stat().st_mtime_ns == kept
        finish(folder, *args, **kwargs)

    monkeypatch.setattr(work_folder, "finish", check_and_finish)
    assert extract_cli.main(arguments(manifest, out, "--runner", "beam", "--workers", 2)) == 0
    captured = capfd.readouterr()
    assert "going on: 1 of 5 shards are done" in captured.err and "8/8" in captured.err
    assert "7 clips" in captured.out and "1 failed" in captured.out
    assert contents(out) == contents(pooled)
    assert verify_folder(out, num_workers=0).problems == ()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_beam_says_is_passed_on(manifest, tmp_path, capfd):
    pytest.importorskip("apache_beam", reason="needs the extra 'beam'; launch/test_beam.sh has it")
    words = arguments(manifest, tmp_path / "out", "--runner", "beam", "--")
    for option in ("--runner=NoSuchRunner", "--direct_num_workers=many"):
        assert run(extract_cli.main, [*words, option]) == 2
        assert f"Beam does not accept {option}" in capfd.readouterr().err
        assert list(tmp_path.iterdir()) == []


def test_without_beam_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    with pytest.raises(UserError, match=r'pip install "avt_jax\[beam\]"'):
        beam.make_runner()
