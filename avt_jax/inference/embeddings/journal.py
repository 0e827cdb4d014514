"""What `avt embed` has done so far, beside the index that it is to become."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from avt_jax.inference.embeddings.vectors import FLAGS, NAMES, NUMBERS, TEXT, About, Rows
from avt_jax.inference.result_formats import (
    Entry,
    MadeOtherwiseError,
    NotOursError,
    first_line_of,
)
from avt_jax.inference.results import entries, key


def place_of(index: Path) -> Path:
    """The journal of an index."""
    return index.with_name(f"{index.name}.part")


class Journal:
    """A line of JSON for each file or clip, vectors in base64; a `Format` of `inference.results`.

    Args:
      about: what makes the index.
      options: {option of the command: value} that rows depend on.
    """

    def __init__(self, about: About, options: Mapping[str, Any]):
        self._made = dataclasses.asdict(about) | {"options": dict(options)}
        self.head = json.dumps({"avt_embed": 1} | self._made) + "\n"

    def read(self, lines: Iterator[str]) -> Iterator[Entry]:
        """Yields the whole entries; see `Format.read`."""
        first = first_line_of(lines, self.head)
        if not first:
            return
        self._check(first)
        yield Entry(None, False, first)
        for number, line in enumerate(lines, 2):
            if not line.endswith("\n"):
                return
            try:
                found = json.loads(line)
                yield Entry(str(found["path"]), "error" in found, line)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise NotOursError(f"line {number} is damaged") from error

    def _check(self, line: str) -> None:
        try:
            found = json.loads(line)
            if found.pop("avt_embed") != 1:
                raise NotOursError("another version wrote it")
            found["label_sets"] = tuple(found["label_sets"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise NotOursError("its first line says nothing of it") from error
        others = [name for name, value in self._made.items() if found.get(name) != value]
        if others == ["options"]:
            options = self._made["options"]
            said = [f"{name} {value}" for name, value in found["options"].items()]
            raise MadeOtherwiseError(", ".join(said) if options else "other options")
        if others:
            raise MadeOtherwiseError(f"step {found.get('step')} of {found.get('run')}")

    def prediction(self, found: tuple[str, Rows]) -> str:
        """The text of a file's or clip's rows, given with what it is called."""
        path, rows = found
        columns: dict[str, Any] = {"text": {name: list(rows.text[name]) for name in TEXT}}
        columns |= {name: getattr(rows, name).tolist() for name in (*NUMBERS, *FLAGS)}
        columns["labels"] = {name: list(classes) for name, classes in rows.labels.items()}
        columns["vectors"] = {
            name: base64.b64encode(np.ascontiguousarray(vector_nd, "<f4").tobytes()).decode()
            for name, vector_nd in rows.vectors.items()
        }
        return json.dumps({"path": path} | columns) + "\n"

    def error(self, path: str, message: str) -> str:
        """The text of a file that has no rows."""
        return json.dumps({"path": path, "error": message}) + "\n"

    def rows(self, place: Path, wanted: Collection[str]) -> Iterator[Rows]:
        """The rows of the files and clips with these keys, in the order in which they were made.

        Raises:
          NotOursError: the journal is damaged.
        """
        wanted = set(wanted)
        for entry in entries(place, self):
            if entry.path is None or entry.failed or key(entry.path) not in wanted:
                continue
            try:
                yield _rows(json.loads(entry.raw))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise NotOursError(f"the entry of {entry.path} is damaged") from error


def _rows(found: Mapping[str, Any]) -> Rows:
    start, end = (np.array(found[name], np.float64) for name in NUMBERS)
    video, audio = (np.array(found[name], bool) for name in FLAGS)
    vectors = {
        name: np.frombuffer(base64.b64decode(found["vectors"][name]), "<f4").reshape(len(start), -1)
        for name in NAMES
        if name in found["vectors"]
    }
    return Rows(found["text"], start, end, video, audio, found["labels"], vectors)
