"""One file over https, whole or not at all: resumed after an interruption, and verified."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from avt_jax.conversion.files.reading import MOST_BYTES, Say
from avt_jax.errors import UserError, first_line
from avt_jax.host.checksum import sha256_of
from avt_jax.host.new_files import write_json
from avt_jax.host.progress import progress_bar

TIMEOUT_SEC = 30.0
_BLOCK = 2**20
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass
class Stated:
    """What the publisher's servers say of a file.

    Attributes:
      sha256: in hexadecimal; "" = nothing.
      md5: the same.
    """

    sha256: str = ""
    md5: str = ""

    def take(self, headers: Message) -> None:
        """Notes what is in the headers of an answer, or of one that leads elsewhere."""
        # Hugging Face says it before it leads to where the file lies.
        linked = str(headers.get("X-Linked-Etag", "")).strip('"')
        if re.fullmatch(r"[0-9a-f]{64}", linked):
            self.sha256 = linked
        for value in headers.get_all("x-goog-hash", []):
            if found := re.search(r"md5=([A-Za-z0-9+/]{22}==)", value):
                self.md5 = base64.b64decode(found[1]).hex()


@dataclass
class Partial:
    """A file that is not whole yet, and how it is told whether it goes on.

    Attributes:
      path: of the file.
      url: it comes from.
      stated: what is known of the whole file.
      etag: of the version that it is a part of; "" = nobody knows.
    """

    path: Path
    url: str
    stated: Stated
    etag: str = ""

    @property
    def _about(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def known_bytes(self) -> int:
        """How much of it is there; 0 where nobody can say of what."""
        try:
            about = json.loads(self._about.read_text(encoding="utf-8"))
            etag, sha256, md5 = (str(about[name]) for name in ("etag", "sha256", "md5"))
            if about["url"] != self.url or not etag:
                return 0
            count = self.path.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        self.etag = etag
        self.stated.sha256 = self.stated.sha256 or sha256
        self.stated.md5 = self.stated.md5 or md5
        return count

    def begin(self, etag: str) -> None:
        """Starts anew, with another version perhaps."""
        self.path.unlink(missing_ok=True)
        self.etag = etag
        write_json(self._about, {"url": self.url, "etag": etag} | vars(self.stated))

    def remove(self) -> None:
        """Leaves nothing."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        """Gives the whole file its name."""
        self.path.replace(target)
        self._about.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to https alone, and notes what is said on the way."""

    def __init__(self, stated: Stated):
        self._stated = stated

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        url: str,
    ) -> urllib.request.Request | None:
        self._stated.take(headers)
        _check_url(url)
        return super().redirect_request(req, fp, code, msg, headers, url)


def download(url: str, target: Path, *, sha256: str, by_hand: str, say: Say) -> None:
    """Downloads a file, or goes on with it, and verifies it.

    Args:
      url: of the file.
      target: appears when it is whole and right; what is there of it before is beside it.
      sha256: what is known of its SHA-256, from the first digit on; "" = nothing.
      by_hand: what else can be done, for messages.
      say: is told what it was compared with.

    Raises:
      UserError: it cannot be reached, the download stopped, or another file came.
    """
    partial = Partial(target.with_name(target.name + ".part"), url, Stated())
    host = urllib.parse.urlsplit(url).hostname
    try:
        _receive(partial, target.name)
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{host} answers {error.code} {error.reason} for {url}; {by_hand}."
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise _stopped(partial, host, error, by_hand) from error
    _verify(partial, sha256, say)
    partial.finish(target)


def _stopped(partial: Partial, host: str | None, error: Exception, by_hand: str) -> UserError:
    """What to say, and what to leave, where a download has not come to its end."""
    cause = getattr(error, "reason", None)
    reason = first_line(cause if isinstance(cause, Exception) else error)
    came = partial.path.stat().st_size if partial.path.exists() else 0
    if partial.known_bytes():
        return UserError(
            f"the download of {partial.url} stopped after {came / 2**20:.1f} MiB ({reason}); the "
            "same command goes on from there."
        )
    partial.remove()
    if came:
        return UserError(
            f"the download of {partial.url} stopped after {came / 2**20:.1f} MiB ({reason}), and "
            "its server cannot go on from there; the same command starts anew."
        )
    return UserError(f"{host} cannot be reached ({reason}); {by_hand}.")


def _receive(partial: Partial, name: str) -> None:
    """Fetches what is missing of a file."""
    _check_url(partial.url)
    there = partial.known_bytes()
    headers = {"User-Agent": "avt_jax", "Accept-Encoding": "identity"}
    if there:
        # Another version is sent from its start.
        headers |= {"Range": f"bytes={there}-", "If-Range": partial.etag}
    opener = urllib.request.build_opener(_Redirects(partial.stated))
    request = urllib.request.Request(partial.url, headers=headers)
    try:
        answer = opener.open(request, timeout=TIMEOUT_SEC)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not there:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{there}":
            return  # nothing is missing
        partial.remove()
        _receive(partial, name)
        return
    with answer:
        _store(answer, partial, there, name)


def _store(answer: Any, partial: Partial, there: int, name: str) -> None:
    """Writes what is sent behind the `there` bytes of before, or in their place."""
    partial.stated.take(answer.headers)
    if answer.headers.get_content_type() == "text/html":
        raise UserError(
            f"{partial.url} leads to a web page and not to a file, so its publisher has moved it; "
            "download it by hand and give it with --file."
        )
    if answer.status != http.HTTPStatus.PARTIAL_CONTENT or _start(answer) != there:
        there = 0
        partial.begin(_strong(answer.headers.get("ETag", "")))
    length = answer.headers.get("Content-Length")
    total = there + int(length) if length and length.isdigit() else None
    _check_size(partial.url, total or 0)
    with progress_bar(total, name, "B", initial=there, leave=False) as bar:
        for block in _blocks(answer, partial.url, there):
            _append(partial.path, block)
            bar.update(len(block))
    missing = (total or 0) - partial.path.stat().st_size
    if missing > 0:
        raise ConnectionError(f"{missing} bytes are missing")


def _append(path: Path, block: bytes) -> None:
    try:
        with open(path, "ab") as file:
            file.write(block)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); make room, or set AVT_CACHE to "
            "another folder: the same command goes on."
        ) from error


def _blocks(answer: Any, url: str, there: int) -> Iterator[bytes]:
    while block := answer.read(_BLOCK):
        there += len(block)
        _check_size(url, there)
        yield block


def _start(answer: Any) -> int:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _strong(etag: str) -> str:
    """The tag where it stands for the very same bytes; without one a part cannot go on."""
    return etag if re.fullmatch(r'"[^"]+"', etag) else ""


def _check_url(url: str) -> None:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _HERE):
        raise UserError(f"{url} is no https address, and weights are fetched by https alone.")


def _check_size(url: str, count: int) -> None:
    if count > MOST_BYTES:
        raise UserError(
            f"{url} sends more than {MOST_BYTES / 2**30:g} GiB, more than any of these models has; "
            "it is another file."
        )


def _verify(partial: Partial, sha256: str, say: Say) -> None:
    found, stated = sha256_of(partial.path), partial.stated
    if sha256 or stated.sha256:
        if not (found.startswith(sha256) and stated.sha256 in ("", found)):
            _refuse(partial, f"SHA-256 {found}", sha256 or stated.sha256)
        by = "as published" if sha256 else "as its publisher's server states"
        say(f"SHA-256 {found}, {by}")
    elif stated.md5:
        with open(partial.path, "rb") as file:
            md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if md5 != stated.md5:
            _refuse(partial, f"MD5 {md5}", stated.md5)
        say(f"SHA-256 {found}; MD5 {md5}, as its publisher's server states")
    else:
        say(f"SHA-256 {found}; its publisher states no checksum to compare with")


def _refuse(partial: Partial, found: str, wanted: str) -> None:
    partial.remove()
    raise UserError(
        f"what came from {partial.url} has {found} and not {wanted}: it was damaged on the way or "
        "is another file, and was removed; give the same command again."
    )
