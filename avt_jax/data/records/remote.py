"""Shard folders behind a URL: copied once into a local cache, checked, and read from there.

ArrayRecord's reader takes random records out of local files; given most URLs it shows an empty
file. So a folder such as gs://bucket/shards is downloaded with fsspec: its descriptions first, and
of its shards those of the splits that are read. The folder in the cache is named after the URL and
the content of the descriptions: shards that were extracted anew get a new one.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
import threading
import urllib.parse
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import tqdm

from avt_jax.data.records.schema import CHECKSUM_FILE, DATASET_NAME, SPLITS
from avt_jax.errors import UserError, first_line
from avt_jax.host.checksum import sha256_of
from avt_jax.host.lock import locked
from avt_jax.host.new_files import remove_partial, replacing, replacing_path
from avt_jax.host.output.terminal import show
from avt_jax.host.progress import progress_bar

MAX_SHARD_BYTES = 64 * 2**30
"""Larger files are refused."""

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://.")
_LINE = re.compile(r"([0-9a-f]{64})  ([\w.-]+)")
_SHARD = re.compile(rf"{DATASET_NAME}-({'|'.join(SPLITS)})\.array_record-[0-9]{{5}}-of-[0-9]{{5}}")
_NEEDED = ("dataset_info.json", "features.json", "metadata.json", CHECKSUM_FILE)
_OPTIONAL = ("failed.csv",)
_MAX_DESCRIPTION_BYTES = 64 * 2**20
_NUM_DOWNLOADS = 4
_PACKAGES = {
    "gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "s3a": "s3fs", "http": "aiohttp",
    "https": "aiohttp", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs",
}  # fmt: skip


def is_remote(path: str | os.PathLike[str]) -> bool:
    """True for a text that begins with a scheme and ://, such as gs://bucket/shards."""
    return isinstance(path, str) and bool(_URL.match(path))


def cache_folder() -> Path:
    """Where copies lie: $XDG_CACHE_HOME/avt_jax/shards, or ~/.cache/avt_jax/shards."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "avt_jax" / "shards"


def local_folder(path: str | os.PathLike[str], splits: Collection[str] | None = None) -> Path:
    """The folder to read: `path` itself, or the local copy of a shard folder behind a URL.

    What is missing in the copy is downloaded and compared with the folder's SHA256SUMS, with
    progress on stderr. Several processes may ask for the same folder: one downloads, others wait.

    Args:
      path: folder, or URL of one that fsspec can read. file:// is not copied.
      splits: splits whose shards are needed; () for the descriptions only, None for everything.

    Returns:
      A local folder.

    Raises:
      UserError: a package for the scheme is missing, the folder is not there or not a shard folder,
        a shard is not what its checksum says, or there is no space.
    """
    if not is_remote(path):
        return Path(path)
    url = os.fspath(path).rstrip("/")
    if url.lower().startswith("file://"):
        parts = urllib.parse.urlsplit(url)
        if parts.netloc:
            raise UserError(f"{url} names no folder of this machine; write file:///folder.")
        return Path(urllib.parse.unquote(parts.path))
    if re.search(r"[?#]|::", url):
        raise UserError(f"{_shown(url)} holds ?, # or ::; give the plain URL of a shard folder.")
    files, root = _open_file_system(url)
    texts = _read_descriptions(url, files, root)
    digests = _wanted(url, texts[CHECKSUM_FILE], splits)
    folder = cache_folder() / _folder_name(url, texts)
    try:
        with _locked(folder, url):
            for name, content in texts.items():
                if not (folder / name).is_file():
                    with replacing(folder / name, "wb") as file:
                        file.write(content)
            _download(url, files, root, folder, digests)
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}.") from error
    return folder


def _shown(url: str) -> str:
    """The URL without user and password."""
    return re.sub(r"//[^/@]*@", "//", url)


def _folder_name(url: str, texts: Mapping[str, bytes]) -> str:
    """A readable part and a hash of the URL and everything that is not a shard."""
    key = hashlib.sha256(url.encode())
    for name in sorted(texts):
        key.update(name.encode() + b"\0" + hashlib.sha256(texts[name]).digest())
    readable = re.sub(r"[^a-zA-Z0-9_-]+", "-", url.rpartition("/")[2])[:40]
    return f"{readable}-{key.hexdigest()[:24]}"


def _open_file_system(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the folder's path in it)."""
    import fsspec.core

    scheme = url.partition(":")[0].lower()
    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(scheme)
        advice = f"pip install {package}" if package else first_line(error)
        raise UserError(f"reading {scheme}:// takes another package: {advice}.") from error
    except Exception as error:  # each of fsspec's file systems has errors of its own
        raise UserError(f"cannot open {_shown(url)}: {first_line(error)}.") from error


def _read_descriptions(url: str, files: Any, root: str) -> dict[str, bytes]:
    """Everything small in the folder, by file name."""
    texts = {name: _read_small(url, files, f"{root}/{name}") for name in _NEEDED}
    try:
        sets = list(json.loads(texts["metadata.json"])["label_sets"])
    except (ValueError, KeyError, TypeError):
        sets = []  # whoever reads the copy says what is wrong with it
    names = [f"labels-{name}.labels.txt" for name in sets if re.fullmatch(r"[a-z0-9_]{1,64}", name)]
    for name in (*names, *_OPTIONAL):
        with contextlib.suppress(FileNotFoundError):
            texts[name] = _read_small(url, files, f"{root}/{name}", optional=True)
    return texts


def _read_small(url: str, files: Any, path: str, *, optional: bool = False) -> bytes:
    try:
        with files.open(path, "rb") as file:
            content = file.read(_MAX_DESCRIPTION_BYTES + 1)
    except FileNotFoundError as error:
        if optional:
            raise
        raise UserError(
            f"no shard folder at {_shown(url)}: no {path.rpartition('/')[2]} can be read there; "
            "give the copy of a folder that 'avt extract --out' made."
        ) from error
    except Exception as error:  # as above
        raise UserError(f"cannot read {_shown(url)}: {first_line(error)}.") from error
    if len(content) > _MAX_DESCRIPTION_BYTES:
        raise UserError(f"{_shown(path)} is larger than 64 MiB, which no extraction makes.")
    return content


def _wanted(url: str, sums: bytes, splits: Collection[str] | None) -> dict[str, str]:
    """SHA-256 of every shard of the splits, by file name."""
    digests = {}
    for line in sums.decode("utf-8", "replace").splitlines():
        match = _LINE.fullmatch(line)
        shard = _SHARD.fullmatch(match[2]) if match else None
        # Nothing but a shard's own name may become a path here.
        if not (match and shard):
            raise UserError(
                f"{CHECKSUM_FILE} of {_shown(url)} is damaged: {line[:80]!r}; "
                "copy the folder there again."
            )
        if splits is None or shard[1] in splits:
            digests[match[2]] = match[1]
    return digests


@contextlib.contextmanager
def _locked(folder: Path, url: str) -> Iterator[None]:
    """Keeps other processes on this machine from writing the same folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def say() -> None:
        show(f"waiting for another process that downloads {_shown(url)}", file=sys.stderr)

    with locked(folder.with_name(f"{folder.name}.lock"), on_wait=say):
        remove_partial(folder)
        yield


def _download(url: str, files: Any, root: str, folder: Path, digests: Mapping[str, str]) -> None:
    """Fetches the shards that are not there yet, a few at a time."""
    missing = [name for name in digests if not (folder / name).is_file()]
    if not missing:
        return
    try:
        sizes = [size or 0 for size in files.sizes([f"{root}/{name}" for name in missing])]
    except Exception as error:  # as above
        raise UserError(f"cannot read {_shown(url)}: {first_line(error)}.") from error
    free = shutil.disk_usage(folder).free
    if sum(sizes) > free:
        raise UserError(
            f"{_shown(url)} takes {sum(sizes) / 1e9:.1f} GB, but {folder} has {free / 1e9:.1f} GB "
            "left; set XDG_CACHE_HOME to a folder on a larger disk."
        )
    stop = threading.Event()
    with (
        progress_bar(sum(sizes), f"downloading to {folder}", "B") as bar,
        concurrent.futures.ThreadPoolExecutor(_NUM_DOWNLOADS) as pool,
    ):
        tasks = [
            pool.submit(
                _fetch, f"{root}/{name}", files, folder / name, digests[name], _Shared(bar, stop)
            )
            for name in missing
        ]
        try:
            for task in concurrent.futures.as_completed(tasks):
                task.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@dataclasses.dataclass(frozen=True)
class _Shared:
    """What all downloads share."""

    bar: tqdm.tqdm
    stop: threading.Event

    def moved(self, num_bytes: int, total_bytes: int) -> None:
        """Told of every piece that has arrived.

        Raises:
          UserError: the file is too large, or another download has failed.
        """
        self.bar.update(num_bytes)
        if total_bytes > MAX_SHARD_BYTES:
            raise UserError(f"a shard is larger than {MAX_SHARD_BYTES} bytes; reshard it.")
        if self.stop.is_set():
            raise UserError("the download was stopped.")


def _fetch(source: str, files: Any, target: Path, digest: str, shared: _Shared) -> None:
    """Downloads one shard; it gets its name when it is what its checksum says."""
    from fsspec.callbacks import Callback

    told_bytes = 0

    def tell(_: int | None, num_bytes: int, **options: Any) -> None:
        nonlocal told_bytes
        piece, told_bytes = num_bytes - told_bytes, num_bytes
        shared.moved(piece, num_bytes)

    with replacing_path(target) as partial:
        try:
            files.get_file(source, str(partial), callback=Callback(hooks={"tell": tell}))
        except UserError:
            raise
        except Exception as error:  # as above
            raise UserError(f"cannot download {_shown(source)}: {first_line(error)}.") from error
        if sha256_of(partial) != digest:
            raise UserError(
                f"{_shown(source)} is not what {CHECKSUM_FILE} says; copy it there again."
            )
