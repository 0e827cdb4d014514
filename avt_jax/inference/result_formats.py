"""How the results of many media files are written: JSON Lines or CSV.

Either says what made it: the first line of JSON Lines, each row of CSV.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from avt_jax.host.output.cells import CellWriter, cell_text
from avt_jax.inference.prediction import JOINT, FilePrediction, has_joint

_MARK, _FORMAT = "avt_predict", 1


@dataclasses.dataclass(frozen=True)
class Made:
    """What makes results; those of one file are all made alike.

    Attributes:
      run: folder of the run.
      step: of its checkpoint.
      top: classes of each label set.
      window_sec: length of a window.
      hop_sec: from one window to the next.
    """

    run: str
    step: int
    top: int
    window_sec: float
    hop_sec: float

    def difference(self, other: Made) -> str:
        """What is not alike, as options of the command; "" for the same."""
        words = {
            "run": (f"--checkpoint {other.run}", os.path.abspath(other.run)),
            "step": (f"step {other.step}", other.step),
            "top": (f"--top {other.top}", other.top),
            "window_sec": (f"windows of {other.window_sec:g} s", other.window_sec),
            "hop_sec": (f"--hop-sec {other.hop_sec:g}", other.hop_sec),
        }
        own = vars(self) | {"run": os.path.abspath(self.run)}
        return ", ".join(said for name, (said, value) in words.items() if own[name] != value)


@dataclasses.dataclass(frozen=True)
class Entry:
    """What is stored of a media file: its path, whether it failed, and the text itself.

    Of the text before the first one the path is None.
    """

    path: str | None
    failed: bool
    raw: str


class NotOursError(Exception):
    """The file was not written by `avt predict`, or is damaged; says how one can tell."""


class MadeOtherwiseError(Exception):
    """The file is of another run or of other options; says which."""


class Format(Protocol):
    """How results are written."""

    head: str

    def read(self, lines: Iterator[str]) -> Iterator[Entry]:
        """Yields the whole entries; ends before one that was cut off.

        Raises:
          NotOursError: this is no file of results.
          MadeOtherwiseError: it is, but of another run or of other options.
        """

    def prediction(self, found: Any) -> str:
        """The text of a result."""

    def error(self, path: str, message: str) -> str:
        """The text of a file that has none."""


def _check_made(made: Made, stored: Mapping[str, Any]) -> None:
    """Refuses what was made otherwise. ValueError, TypeError, KeyError: it does not say how."""
    kinds = (str, int, int, float, float)
    values = (kind(stored[name]) for kind, name in zip(kinds, _MADE, strict=True))
    if difference := made.difference(Made(*values)):
        raise MadeOtherwiseError(difference)


class _JsonLines:
    """A line of JSON for each media file; the windows are in it."""

    def __init__(
        self,
        made: Made,
        label_sets: Mapping[str, Sequence[str]],
        multi_label: Collection[str] = (),
    ):
        self._made = made
        about = dataclasses.asdict(made) | {"classes": {k: len(v) for k, v in label_sets.items()}}
        about |= {"multi_label": list(multi_label)} if multi_label else {}
        self.head = json.dumps({_MARK: _FORMAT} | about) + "\n"

    def read(self, lines: Iterator[str]) -> Iterator[Entry]:
        first = first_line_of(lines, self.head)
        if not first:
            return
        self._check_head(first)
        yield Entry(None, False, first)
        for number, line in enumerate(lines, 2):
            if not line.endswith("\n"):
                return
            try:
                entry = json.loads(line)
                yield Entry(str(entry["path"]), "error" in entry, line)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise NotOursError(f"line {number} is damaged") from error

    def _check_head(self, line: str) -> None:
        try:
            head = json.loads(line)
            if head[_MARK] != _FORMAT:
                raise NotOursError("another version wrote it")
            _check_made(self._made, head)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise NotOursError("its first line says nothing of it") from error

    def prediction(self, found: FilePrediction) -> str:
        return json.dumps(found.to_dict(self._made.top), allow_nan=False) + "\n"

    def error(self, path: str, message: str) -> str:
        return json.dumps({"path": path, "error": message}) + "\n"


class _Csv:
    """A row for each media file: the most probable classes of the whole file."""

    def __init__(
        self,
        made: Made,
        label_sets: Mapping[str, Sequence[str]],
        multi_label: Collection[str] = (),
    ):
        self._made = made
        self._ranks: list[tuple[str, int]] = []
        for name, classes in label_sets.items():
            self._ranks += [(name, rank) for rank in range(min(made.top, len(classes)))]
        if has_joint(label_sets, multi_label):
            # As many as the best classes of each set can be combined to.
            shown = math.prod(min(made.top, len(classes)) for classes in label_sets.values())
            self._ranks += [(JOINT, rank) for rank in range(min(made.top, shown))]
        self._columns = ["path", *_MADE, "duration_sec", "has_video", "has_audio", "windows"]
        for name, rank in self._ranks:
            column = f"{name}_{rank + 1}"
            self._columns += [column, f"{column}_index", f"{column}_probability"]
        self._columns.append("error")
        self.head = _row(self._columns)

    def read(self, lines: Iterator[str]) -> Iterator[Entry]:
        first = first_line_of(lines, self.head)
        header = next(csv.reader([first]), [])
        if first and header[: 1 + len(_MADE)] != self._columns[: 1 + len(_MADE)]:
            raise NotOursError("it has other columns")
        is_first = True
        for number, (cells, text) in enumerate(_whole_rows(lines), 2):
            named = dict(zip(header, cells, strict=False))
            try:
                if len(cells) != len(header):
                    raise ValueError("cells are missing")
                _check_made(self._made, named | {"run": cell_text(named["run"])})
            except (ValueError, TypeError, KeyError) as error:
                raise NotOursError(f"row {number} is damaged") from error
            if is_first:
                if header != self._columns:
                    raise NotOursError("it has other columns")
                yield Entry(None, False, first)
                is_first = False
            yield Entry(cell_text(named["path"]), bool(named["error"]), text)
        # Without a row there is nothing to lose: it begins anew.

    def prediction(self, found: FilePrediction) -> str:
        document = found.to_dict(self._made.top)
        cells: list[Any] = [found.path, *vars(self._made).values(), round(found.duration_sec, 3)]
        cells += [str(flag).lower() for flag in (found.has_video, found.has_audio)]
        cells.append(len(found.windows))
        for name, rank in self._ranks:
            entry = document["top"][name][rank]
            index = entry["index"]
            shown = index if isinstance(index, int) else " ".join(map(str, index))
            cells += [entry["class"], shown, f"{entry['probability']:.6g}"]
        return _row([*cells, ""])

    def error(self, path: str, message: str) -> str:
        cells = [path, *vars(self._made).values()]
        cells += [""] * (len(self._columns) - len(cells) - 1)
        return _row([*cells, message])


_MADE = tuple(field.name for field in dataclasses.fields(Made))
FORMATS: dict[str, type[_JsonLines] | type[_Csv]] = {".jsonl": _JsonLines, ".csv": _Csv}


def first_line_of(lines: Iterator[str], head: str) -> str:
    """The first line; "" where there is nothing yet, or no more than a part of `head`.

    Raises:
      NotOursError: it is another one.
    """
    first = next(lines, "")
    if first.endswith("\n"):
        return first
    if not head.startswith(first):
        raise NotOursError("its first line is another one")
    return ""


def _row(cells: Sequence[Any]) -> str:
    out = io.StringIO()
    # With these line ends, which RFC 4180 asks for, either of the two is quoted within a cell.
    CellWriter(out).row(cells)
    return out.getvalue()


def _whole_rows(lines: Iterator[str]) -> Iterator[tuple[list[str], str]]:
    """(cells, text) of each row; a last one without its end is left out."""
    taken: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    reader = csv.reader(noted(), strict=True)
    while True:
        taken.clear()
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if next(lines, None) is None:
                return  # cut off within quotes
            raise NotOursError(f"it is damaged ({error})") from error
        text = "".join(taken)
        if cells is None or not text.endswith("\n"):
            return
        yield cells, text
