"""What a check has found, and the commands that mend it."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable
from typing import Literal

from avt_jax.data.records import RecordsInfo
from avt_jax.host.output.terminal import printable

Severity = Literal["error", "warning", "hint"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "hint")

_MOST_PLACES = 200
_SHOWN = 3
# The defaults of `avt extract`, which need not be repeated.
_FRAME_RATE_HZ, _SHORT_SIDE_PX, _JPEG_QUALITY = 8.0, 256, 90


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is likely to be wrong.

    Attributes:
      severity: "error": what is trained or reported will be wrong; "warning": probably so;
        "hint": it works, and could be better.
      check: name of the check, the same in every version.
      what: what was found, one sentence without its full stop.
      where: classes, clips or files, at most 200.
      remedy: what to do, often a command.
    """

    severity: Severity
    check: str
    what: str
    where: tuple[str, ...]
    remedy: str

    def places(self, shown: int = _SHOWN) -> str:
        """Some of the places in words.

        Args:
          shown: how many are named.
        """
        more = f" and {len(self.where) - shown} more" if len(self.where) > shown else ""
        return printable("; ".join(self.where[:shown]) + more)

    def short(self) -> str:
        """What was found, in one line."""
        where = f" ({self.places(1)})" if self.where else ""
        return f"{self.severity}: {printable(self.what)}{where}"

    def line(self) -> str:
        """What was found and what to do, in one line."""
        where = f" ({self.places()})" if self.where else ""
        return f"{self.severity}: {printable(self.what)}{where}; {printable(self.remedy)}"


def found(
    severity: Severity, check: str, what: str, remedy: str, where: Iterable[str] = ()
) -> Finding:
    """A finding with no more places than it may have."""
    return Finding(severity, check, what, tuple(where)[:_MOST_PLACES], remedy)


@dataclasses.dataclass(frozen=True)
class Files:
    """The user's files, for commands that can be pasted.

    Attributes:
      manifest: the CSV file.
      has_splits: it has a column `split` with something in it.
      shards: the shard folder or its URL; "" before there is one.
      info: of the shards.
      group_by: how their names look grouped, for `avt manifest --group-by`; "" = they do not.
    """

    manifest: str = "clips.csv"
    has_splits: bool = True
    shards: str = ""
    info: RecordsInfo | None = None
    group_by: str = ""

    def split_again(self) -> str:
        """The command that divides the clips anew, and the one that extracts them again."""
        root, end = os.path.splitext(self.manifest)
        out = free_name(f"{root}.split{end}")
        words = ["avt", "manifest", "--split", self.manifest]
        words += ["--replace-splits"] if self.has_splits else []
        words += ["--group-by", self.group_by] if self.group_by else []
        command = shlex.join([*words, "--out", out])
        return f"{command} && {self.extract(out)}" if self.info else command

    def extract(
        self, manifest: str = "", *, frame_rate_hz: float = 0, short_side_px: int = 0
    ) -> str:
        """The command that extracts a manifest as these shards were, but for what is given."""
        assert self.info is not None
        name = os.path.basename(self.shards.rstrip("/")) if "://" in self.shards else self.shards
        words = ["avt", "extract", "--manifest", manifest or self.manifest]
        words += ["--out", free_name(f"{name.rstrip('/')}.new")]
        options = {
            "--frame-rate": (frame_rate_hz or self.info.frame_rate_hz, _FRAME_RATE_HZ),
            "--short-side": (short_side_px or self.info.short_side_px, _SHORT_SIDE_PX),
            "--jpeg-quality": (self.info.jpeg_quality, _JPEG_QUALITY),
        }
        for option, (value, default) in options.items():
            words += [option, f"{value:g}"] if value != default else []
        return shlex.join(words)


def free_name(path: str) -> str:
    """The path, or with a number before its end where there is something already."""
    root, end = os.path.splitext(path)
    number, name = 2, path
    while os.path.lexists(name):
        number, name = number + 1, f"{root}-{number}{end}"
    return name
