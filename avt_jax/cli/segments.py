"""`avt segments`: finds when something sounds in media files."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli.common import parser, run
from avt_jax.errors import UserError, nearest
from avt_jax.host.output.terminal import printable, show

if TYPE_CHECKING:
    from avt_jax.audio.activity import ActivityConfig
    from avt_jax.inference.activities import FileActivities

# (onset_sec, offset_sec) of a file's activities; those of each file by its real path.
Spans = list[tuple[float, float]]
Truth = dict[str, Spans]

EPILOG = """\
Prints onset and offset of every activity: a stretch of sound over the background, which is what
the masking strategy "activity" hides as a whole. A picture of each file (spectrogram, envelope,
gradient, what was found) goes to segments/.

  avt segments video.mp4
  avt segments --json --set min_gap_sec=0.2 *.wav > activities.json
  avt segments --truth events.csv videos/test_0000*.mp4

A file without sound, or that cannot be decoded, is named on stderr and the others are still looked
at; the exit code is then 2.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt segments`."""
    cli = parser("segments", "Find when something sounds in media files.", EPILOG)
    cli.add_argument("files", nargs="+", metavar="FILE", help="video or audio file")
    cli.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the config block 'activity', in s or dB; repeat for more",
    )
    cli.add_argument(
        "--truth",
        type=Path,
        metavar="CSV",
        help="true spans (path, onset_sec, offset_sec; paths relative to it): print scores",
    )
    cli.add_argument("--json", action="store_true", help="print one JSON document")
    cli.add_argument("--csv", type=Path, metavar="CSV", help="write the spans to this file")
    cli.add_argument(
        "--out",
        type=Path,
        default=Path("segments"),
        metavar="DIR",
        help="folder for the pictures (default ./%(default)s)",
    )
    cli.add_argument("--no-picture", action="store_true", help="draw nothing")
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code: 2 when a file could not be looked at.

    Raises:
      UserError: a bad option or table of true spans.
    """
    args = build_parser().parse_args(argv)
    # Imported here so that --help does not pay for importing JAX.
    from avt_jax.evaluation.segments import SegmentScore, score, summarize

    config = _config(args.set)
    truth = _read_truth(args.truth) if args.truth else None
    if not args.no_picture:
        _make_folder(args.out)
    document: dict[str, Any] = {"config": dataclasses.asdict(config), "files": [], "failed": []}
    scores: list[SegmentScore] = []
    taken: set[str] = set()
    for file in args.files:
        try:
            true = _true_spans(truth, file, args.truth)
            found = _find(file, config)
            picture = None if args.no_picture else _draw(found, config, args, taken, true)
        except UserError as error:
            show(printable(f"avt: error: {error}"), file=sys.stderr)
            document["failed"].append({"path": file, "error": str(error)})
            continue
        entry = _entry(found) | {"picture": picture and str(picture)}
        if true is not None:
            scores.append(score(found.spans, true, duration_sec=found.duration_sec))
            entry["score"] = _plain(summarize(scores[-1:]))
        document["files"].append(entry)
        if not args.json:
            _show(entry)
    if scores:
        document["score"] = _plain(summarize(scores))
    if args.csv:
        _write_csv(args.csv, document["files"])
    if args.json:
        show(json.dumps(document, indent=1, allow_nan=False))
    elif scores:
        _show_score(document["score"], len(scores))
    return 2 if document["failed"] else 0


def _config(words: list[str]) -> ActivityConfig:
    """ActivityConfig from "field=value" words."""
    from avt_jax.audio.activity import ActivityConfig

    names = [field.name for field in dataclasses.fields(ActivityConfig)]
    values = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in names:
            raise UserError(
                f"--set {word}: there is no field {name!r}{nearest(name, names)}; "
                f"give one of {', '.join(names)}."
            )
        try:
            values[name] = float(value)
        except ValueError:
            raise UserError(f"--set {word}: {value!r} is no number; give s or dB.") from None
    return ActivityConfig(**values)


def _read_truth(path: Path) -> Truth:
    from avt_jax.evaluation.segments import read_truth

    return {os.path.realpath(path.parent / name): s for name, s in read_truth(path).items()}


def _true_spans(truth: Truth | None, file: str, path: Path | None) -> Spans | None:
    if truth is None:
        return None
    key = os.path.realpath(file)
    if key not in truth:
        raise UserError(f"{path} has no line for {file}; give files that it names.")
    return truth[key]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}; give another folder.") from error


def _find(file: str, config: ActivityConfig) -> FileActivities:
    from tqdm import tqdm

    from avt_jax.inference.activities import find_activities

    with tqdm(desc=Path(file).name, unit="window", disable=None, leave=False) as bar:

        def on_window(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return find_activities(file, config, on_window=on_window)


def _draw(
    found: FileActivities,
    config: ActivityConfig,
    args: argparse.Namespace,
    taken: set[str],
    true: Spans | None,
) -> Path:
    from avt_jax.inference.activity_picture import draw_activities

    # Two files of the same name in different folders get a picture each.
    stem, number = Path(found.path).stem, 1
    name = stem
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    picture = args.out / f"{name}.png"
    draw_activities(found, config, picture, true=true)
    return picture


def _entry(found: FileActivities) -> dict[str, Any]:
    activities = [{"onset_sec": onset, "offset_sec": offset} for onset, offset in found.spans]
    return {"path": found.path, "duration_sec": found.duration_sec, "activities": activities}


def _plain(summary: dict[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: what could not be divided becomes null."""
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in summary.items()
    }


def _show(entry: dict[str, Any]) -> None:
    from avt_jax.host.output.tables import PlainTable, new_console

    activities = entry["activities"]
    active_sec = sum(a["offset_sec"] - a["onset_sec"] for a in activities)
    number = f"{len(activities)} activit{'y' if len(activities) == 1 else 'ies'}"
    title = f"{entry['path']}   {entry['duration_sec']:.2f} s, {number}, {active_sec:.2f} s in all"
    console = new_console()
    table = PlainTable("", "onset, s", "offset, s", "length, s", left=())
    for activity in activities:
        onset_sec, offset_sec = activity["onset_sec"], activity["offset_sec"]
        table.row(*(f"{sec:.3f}" for sec in (onset_sec, offset_sec, offset_sec - onset_sec)))
    console.print(title, soft_wrap=True)
    if activities:
        console.print(table)
    if entry["picture"]:
        console.print(f"picture: {entry['picture']}", soft_wrap=True)
    console.print()


def _show_score(score: dict[str, float | None], number: int) -> None:
    def shown(name: str, digits: int) -> str:
        return "-" if score[name] is None else f"{score[name]:.{digits}f}"

    show(
        f"{number} file{'s' if number > 1 else ''}: frame F1 {shown('frame_f1', 3)}, segment F1 "
        f"(100 ms) {shown('segment_f1', 3)}; {score['num_true']} true, {score['num_detected']} "
        f"found, {score['num_matched']} matched"
    )
    for name in ("onset", "offset"):
        middle, most = (shown(f"{name}_error_ms_{part}", 0) for part in ("median", "p90"))
        show(f"{name} error: median {middle} ms, 90th percentile {most} ms")


def _write_csv(path: Path, files: list[dict[str, Any]]) -> None:
    from avt_jax.host.new_files import replacing
    from avt_jax.host.output.cells import CellWriter

    with replacing(path, advice="give another --csv") as file:
        writer = CellWriter(file, line_end="\n")
        writer.row(["path", "onset_sec", "offset_sec"])
        for entry in files:
            for activity in entry["activities"]:
                spans = (f"{activity[name]:.4f}" for name in ("onset_sec", "offset_sec"))
                writer.row([entry["path"], *spans])


if __name__ == "__main__":
    sys.exit(run(main))
