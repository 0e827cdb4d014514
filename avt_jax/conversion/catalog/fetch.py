"""Weights by name: downloaded once, converted, and kept in the cache folder."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

from avt_jax.conversion.catalog.download import download
from avt_jax.conversion.catalog.entries import ENTRIES, Entry, entry_of
from avt_jax.conversion.files.reading import Say
from avt_jax.conversion.released import convert_released
from avt_jax.conversion.store import is_converted, read_converted
from avt_jax.errors import UserError
from avt_jax.host.cache import cache_folder
from avt_jax.host.checksum import sha256_of
from avt_jax.host.lock import NO_LOCKS, locked


def place_of(name: str) -> Path:
    """The folder of converted weights; it need not be there."""
    return cache_folder() / "weights" / name


def is_name(word: str) -> bool:
    """Whether a value of `config.init` is a name of the catalog, and not a folder of that name."""
    return word in ENTRIES and not Path(word).exists()


def fetch(name: str, *, file: Path | None = None, say: Say) -> Path:
    """Makes the converted weights of a name be there.

    Of several processes one does the work; the others wait for it.

    Args:
      name: of the catalog.
      file: the published file where it was downloaded by hand; None = download it.
      say: is told what is done.

    Returns:
      The folder of converted weights.

    Raises:
      UserError: no such name, the download failed or is another file, or it cannot be converted.
    """
    entry = entry_of(name)
    place = place_of(name)
    with _alone(place, say):
        if _is_whole(place, say):
            say(f"{name} is in {place}")
            return place
        if file is None:
            source = _downloaded(name, entry, place, say)
        else:
            source = file
            _check_given(file, entry)
        origin = {"name": name, "url": entry.url or entry.page, "licence": entry.licence}
        try:
            convert_released(
                entry.kind, source, place, changes=entry.changes, origin=origin, say=say
            )
        except UserError as error:
            if file is not None:
                raise
            raise UserError(
                f"{error} The download is kept; delete {source.parent} to download it again."
            ) from error
        shutil.rmtree(_waiting(place), ignore_errors=True)
    say(f"{name} is in {place} ({entry.licence}; {entry.page})")
    return place


def _check_given(file: Path, entry: Entry) -> None:
    if entry.sha256 and file.is_file() and not (found := sha256_of(file)).startswith(entry.sha256):
        raise UserError(
            f"--file {file} has SHA-256 {found} and not {entry.sha256}: it is damaged or not the "
            "published one, download it again."
        )


def _waiting(place: Path) -> Path:
    """Where a download is kept until it is converted."""
    return place.with_name(f".{place.name}.download")


@contextlib.contextmanager
def _alone(place: Path, say: Say) -> Iterator[None]:
    """Keeps other processes from the same name."""
    with contextlib.ExitStack() as stack:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            lock = place.with_name(f".{place.name}.lock")
            waiting = f"another process fetches {place.name}: waiting for it"
            stack.enter_context(locked(lock, on_wait=lambda: say(waiting)))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise UserError(
                    f"cannot write {place.parent} ({error.strerror or error}); set AVT_CACHE to "
                    "another folder."
                ) from error
        yield


def _is_whole(place: Path, say: Say) -> bool:
    if not place.exists():
        return False
    try:
        read_converted(place)
    except UserError as error:
        say(f"{error} They are fetched again")
        shutil.rmtree(place, ignore_errors=True)
        return False
    return is_converted(place)


def _downloaded(name: str, entry: Entry, place: Path, say: Say) -> Path:
    """The published file, whole; it is kept until it is converted."""
    command = f"avt weights fetch {name} --file FILE"
    if not entry.url:
        raise UserError(
            f"{name} can only be downloaded by hand: get it from {entry.page}, then give "
            f"'{command}'."
        )
    if entry.needs_torch and importlib.util.find_spec("torch") is None:
        raise UserError(
            f"{name} is published as a PyTorch file, and PyTorch is not installed; "
            "run: pip install 'avt_jax[convert]'."
        )
    file = Path(urllib.parse.urlsplit(entry.url).path).name
    target = _waiting(place) / file
    if target.is_file():
        return target  # whole and verified, and not converted then
    say(f"downloading {entry.url} (about {entry.about_mb} MB)")
    by_hand = f"connect, or get the file from {entry.page} by hand and give '{command}'"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        download(entry.url, target, sha256=entry.sha256, by_hand=by_hand, say=say)
    finally:
        with contextlib.suppress(OSError):
            target.parent.rmdir()  # where nothing came
    return target
