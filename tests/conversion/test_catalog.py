"""Weights by name, from a server on this machine: whole and right, or one sentence and nothing."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import re
import socket
import threading
import time

import numpy as np
import official
import pytest
from safetensors.numpy import save

from avt_jax.cli import main as avt
from avt_jax.conversion import KINDS
from avt_jax.conversion.catalog import download, entries, fetch
from avt_jax.conversion.catalog.entries import ENTRIES, Entry
from avt_jax.conversion.store import read_converted
from avt_jax.errors import UserError

CONTENT = save(official.under(official.golden("ast_tiny_a"), "sd/"))
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()


class Server(http.server.ThreadingHTTPServer):
    """Sends one file, with whatever goes wrong.

    Attributes:
      content: what it sends.
      etag: of it; "" = none.
      headers: further ones.
      cut: bytes after which the connection ends; None = never.
      wait_sec: before it answers.
      first: headers of an answer that leads to the file; None = there is no such answer.
      status: another than 200.
      requests: the Range of each request.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag, self.headers, self.cut = CONTENT, '"v1"', {}, None
        self.wait_sec, self.first, self.status, self.requests = 0.0, None, 200, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file/model.safetensors"


class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        if server.first is not None and self.path.startswith("/file"):
            self.answer(302, {"Location": "/there/model.safetensors"} | server.first, b"")
            return
        server.requests.append(self.headers.get("Range"))
        time.sleep(server.wait_sec)
        if server.status != 200:
            self.answer(server.status, {}, b"<html>")
            return
        there = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        headers = dict(server.headers)
        if server.etag:
            headers["ETag"] = server.etag
        start, size = int(there[1]) if there else 0, len(server.content)
        if not there or self.headers.get("If-Range") != server.etag:
            self.answer(200, headers, server.content)
        elif start >= size:
            self.answer(416, headers | {"Content-Range": f"bytes */{size}"}, b"")
        else:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self.answer(206, headers, server.content[start:])

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in ({"Content-Type": "application/octet-stream"} | headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])


@pytest.fixture
def server():
    with Server() as one:
        threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True).start()
        yield one
        one.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("AVT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_BLOCK", 10_000)
    return tmp_path / "cache" / "weights"


@pytest.fixture
def entry(server, monkeypatch):
    """Puts the server's file into the catalog as "a-name"; returns how to change the entry."""

    def put(**changes):
        fields = dict(
            kind="ast",
            what="a stand-in",
            url=server.url,
            page="https://example.org/page",
            licence="MIT",
            about_mb=1,
            changes={"stride": 10, "num_heads": 4},
        )
        monkeypatch.setitem(ENTRIES, "a-name", Entry(**(fields | changes)))

    put()
    return put


def fetched(**options):
    said = []
    return fetch.fetch("a-name", say=said.append, **options), said


def left(cache):
    """What is in the cache but for locks."""
    return sorted(
        path.relative_to(cache).as_posix()
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


WHOLE = ["a-name/conversion.json", "a-name/weights.safetensors"]
PART = [".a-name.download/model.safetensors.part", ".a-name.download/model.safetensors.part.json"]


def refused(words, **options):
    with pytest.raises(UserError, match=words) as caught:
        fetched(**options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_weights_are_downloaded_once_verified_and_converted(server, entry, cache):
    entry(sha256=SHA256)
    place, said = fetched()
    assert place == cache / "a-name" and left(cache) == WHOLE
    assert f"SHA-256 {SHA256}, as published" in said
    assert said[-1] == f"a-name is in {place} (MIT; https://example.org/page)"
    found = read_converted(place)
    assert found.config["num_heads"] == 4 and found.grid == (12, 19)
    assert found.source == {
        "file": "model.safetensors",
        "sha256": SHA256,
        "name": "a-name",
        "url": server.url,
        "licence": "MIT",
    }
    assert fetched()[1] == [f"a-name is in {place}"] and server.requests == [None]
    # A damaged one is fetched anew.
    (place / "weights.safetensors").write_bytes(b"no")
    _, said = fetched()
    assert "is damaged" in said[0] and left(cache) == WHOLE
    read_converted(place)


def test_what_is_published_of_a_checksum_is_compared(server, entry, cache):
    entry(sha256=SHA256[:8])
    assert f"SHA-256 {SHA256}, as published" in fetched()[1]
    for path in (cache / "a-name").iterdir():
        path.unlink()
    (cache / "a-name").rmdir()
    for digits in ("0" * 8, "0" * 64):
        entry(sha256=digits)
        refused(f"has SHA-256 {SHA256} and not {digits}: .* and was removed")
        assert left(cache) == [] and not (cache / "a-name").exists()


def test_checksums_that_come_with_the_download(server, entry, cache):
    # As Hugging Face does: with the answer that leads elsewhere.
    server.first = {"X-Linked-Etag": f'"{"1" * 64}"'}
    refused(f"has SHA-256 {SHA256} and not {'1' * 64}")
    assert left(cache) == []
    server.first = {}
    # As Google's storage does.
    server.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={'A' * 22}=="}
    refused(r"has MD5 [0-9a-f]{32} and not 0{32}")
    server.headers = {"x-goog-hash": f"crc32c=AAAAAA==,md5={MD5}"}
    assert any("as its publisher's server states" in line for line in fetched()[1])


def test_without_any_checksum_that_is_said(entry):
    assert f"SHA-256 {SHA256}; its publisher states no checksum to compare with" in fetched()[1]


def test_a_download_that_stopped_goes_on(server, entry, cache):
    entry(sha256=SHA256)
    server.cut = 25_000
    refused(r"stopped after 0\.0 MiB \(\d+ bytes are missing\); the same command goes on")
    assert left(cache) == PART and not (cache / "a-name").exists()
    refused("goes on from there")
    server.cut = None
    fetched()
    assert server.requests == [None, "bytes=25000-", "bytes=50000-"] and left(cache) == WHOLE


def test_checksums_that_came_with_the_first_part_are_kept(server, entry, cache):
    server.headers = {"x-goog-hash": f"md5={'A' * 22}=="}
    server.cut = 25_000
    refused("goes on from there")
    server.headers, server.cut = {}, None
    refused("has MD5")


def test_a_whole_part_is_no_more_than_verified(server, entry, cache):
    server.cut = len(CONTENT) - 1
    refused("1 bytes are missing")
    (cache / PART[0]).write_bytes(CONTENT)
    server.cut = None
    fetched()
    assert server.requests[1:] == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("etag", ['"v2"', "", 'W/"v1"'])
def test_a_part_of_another_version_is_left(server, entry, cache, etag):
    entry(sha256=SHA256)
    server.cut = 25_000
    refused("goes on from there")
    server.etag, server.cut = etag, None
    fetched()
    assert left(cache) == WHOLE


def test_a_server_that_cannot_go_on(server, entry, cache):
    server.etag, server.cut = "", 25_000
    refused("cannot go on from there; the same command starts anew")
    assert left(cache) == []


def test_parts_that_say_nothing_are_left(server, entry, cache):
    (cache / ".a-name.download").mkdir(parents=True)
    for about in ("{", "[]", '{"etag": "x"}', json.dumps({"url": "other", "etag": '"v1"'})):
        (cache / PART[0]).write_bytes(b"junk")
        (cache / PART[1]).write_text(about)
        server.status = 404
        refused("answers 404")
    server.status = 200
    fetched()
    assert left(cache) == WHOLE


def test_offline(entry, cache):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        entry(url=f"http://127.0.0.1:{taken.getsockname()[1]}/model.safetensors")
        refused(
            r"127\.0\.0\.1 cannot be reached \(.*refused\); connect, or get the file from "
            "https://example.org/page by hand and give 'avt weights fetch a-name --file FILE'"
        )
    entry(url="https://no-such-host.invalid/model.safetensors")
    refused(r"no-such-host\.invalid cannot be reached")
    assert left(cache) == []


def test_a_server_that_does_not_answer(server, entry, cache, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_SEC", 0.2)
    server.wait_sec = 1.0
    refused(r"cannot be reached \(.*timed out\)")
    assert left(cache) == []


def test_answers_that_are_no_weights(server, entry, cache, monkeypatch):
    server.status = 404
    refused(r"answers 404 Not Found for http://127.*by hand")
    server.status = 200
    server.headers = {"Content-Type": "text/html"}
    refused("leads to a web page and not to a file")
    server.headers = {}
    monkeypatch.setattr(download, "MOST_BYTES", 10_000)
    refused("more than any of these models has")
    monkeypatch.undo()


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_https_alone(entry, server, url):
    entry(url=url)
    refused("weights are fetched by https alone")
    entry()
    server.first = {"Location": url}
    with pytest.raises(UserError):
        fetched()


def test_what_cannot_be_converted_is_kept(server, entry, cache):
    server.content = save({"a": np.ones(2, np.float32)})
    refused("these are no ast weights: .* The download is kept; delete .* to download it again")
    assert left(cache) == [".a-name.download/model.safetensors"]
    refused("these are no ast weights")
    assert server.requests == [None]


def test_a_file_that_was_downloaded_by_hand(entry, cache, tmp_path, capsys):
    entry(url="", sha256=SHA256[:8])
    refused("can only be downloaded by hand: get it from https://example.org/page")
    (tmp_path / "other").write_bytes(CONTENT[:-1] + b"x")
    refused("--file .*other has SHA-256 .* and not", file=tmp_path / "other")
    (tmp_path / "mine").write_bytes(CONTENT)
    assert avt.main(["weights", "fetch", "a-name", "--file", str(tmp_path / "mine")]) == 0
    assert capsys.readouterr().out == f"{cache / 'a-name'}\n"
    assert left(cache) == WHOLE and (tmp_path / "mine").exists()


def test_two_at_a_time_download_once(server, entry, cache):
    server.wait_sec = 0.3
    done = []
    threads = [threading.Thread(target=lambda: done.append(fetched())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == [None] and left(cache) == WHOLE
    said = [line for _, lines in done for line in lines]
    assert said.count("another process fetches a-name: waiting for it") == 2


def test_pytorch_is_asked_for_before_the_download(server, entry, monkeypatch):
    entry(url=server.url.replace("model.safetensors", "x.pth?dl=1"))
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None)
    refused(r"PyTorch is not installed; run: pip install 'avt_jax\[convert\]'")
    assert server.requests == []


def test_a_cache_that_cannot_be_written(entry, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AVT_CACHE", str(tmp_path / "file"))
    refused("set AVT_CACHE to another folder")


def test_the_catalog(capsys):
    assert {entry.kind for entry in ENTRIES.values()} == set(KINDS)
    for name, entry in ENTRIES.items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert entry.url.startswith("https://") or not entry.url
        assert entry.page.startswith("https://") and entry.licence and entry.about_mb
        assert re.fullmatch(r"([0-9a-f]{8}|[0-9a-f]{64})?", entry.sha256)
        # What OpenMMLab states stands in the name of the file.
        assert len(entry.sha256) == 64 or entry.sha256 in entry.url
        if entry.kind == "ast":
            assert entry.changes == {"stride": int(name.rpartition("-")[2])}
    assert avt.main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ENTRIES)
    assert "8 digits of SHA-256" in shown and "none" in shown and "by hand" in shown
    assert avt.main(["weights", "fetch", "uniformer-s-k40"]) == 2
    assert "did you mean 'uniformer-s-k400'?" in capsys.readouterr().err
    assert entries.entry_of("uniformer-s-k400").checksum == "8 digits of SHA-256"
