"""`avt extract`: decodes the clips of a manifest into shards."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avt_jax.cli import common
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

if TYPE_CHECKING:
    from avt_jax.data.extraction.extract import ExtractSummary
    from avt_jax.data.manifests.manifest import Manifest

_MOST_WARNINGS = 5


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = common.parser(
        "extract",
        "Decode the clips of a manifest into shards of JPEG frames and log-mel filter banks.",
        "Clips that cannot be decoded are listed with the reason in failed.csv in the output "
        "folder.\nA run that was interrupted is continued by the same command.\n"
        "Examples:\n  avt extract --manifest clips.csv --out shards --frame-rate 8\n"
        "  avt extract --manifest clips.csv --out shards --runner beam -- --runner=FlinkRunner",
    )
    add = parser.add_argument
    add(
        "--manifest",
        required=True,
        help="CSV with path, start_sec, end_sec, label, split, as avt or a spreadsheet writes it",
    )
    add("--out", required=True, help="folder to create")
    add("--frame-rate", type=float, default=8.0, help="frames kept per second (%(default)s)")
    add("--short-side", type=int, default=256, help="shorter side of a frame in px (%(default)s)")
    add("--jpeg-quality", type=int, default=90, help="1 to 100 (%(default)s)")
    add("--max-clip-sec", type=float, default=600.0, help="longer clips fail (%(default)s)")
    add("--workers", type=int, default=None, help="decoding processes (default: one per core)")
    add("--clips-per-shard", type=int, default=128, help="clips in one file (%(default)s)")
    add(
        "--clip-timeout",
        type=float,
        default=300.0,
        help="a clip that takes longer to decode fails, in s (%(default)s)",
    )
    add(
        "--runner",
        choices=("pool", "beam"),
        default="pool",
        help="processes on this machine, or Apache Beam (%(default)s)",
    )
    add("beam_options", nargs="*", metavar="-- BEAM_OPTION", help="with --runner beam")
    add(
        "--classes",
        action="append",
        default=[],
        metavar="SET=FILE",
        help="class list of a label set, one name per line; position = class index; '# ' begins a "
        "comment (default: the sorted labels of the manifest); may be given once per label set",
    )
    add(
        "--multi-label",
        action="append",
        default=[],
        metavar="SET",
        help="clips may have any number of classes of this label set: a|b in a cell, several rows "
        "for one clip, or a column of 0 and 1 for each class; a column called labels or "
        "labels_SET says the same (docs/multi_label.md)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments without the command's name; None takes them from the command line.

    Returns:
      0.

    Raises:
      UserError: a mistake in the manifest or the options, or nothing could be decoded.
    """
    args = build_parser().parse_args(argv)
    from avt_jax.data.extraction.clip_record import ExtractConfig
    from avt_jax.data.extraction.extract import extract
    from avt_jax.data.manifests.manifest import read_classes, read_manifest

    config = ExtractConfig(
        frame_rate_hz=args.frame_rate,
        short_side_px=args.short_side,
        jpeg_quality=args.jpeg_quality,
        max_clip_sec=args.max_clip_sec,
    )
    runner = None
    if args.runner == "beam":
        from avt_jax.data.extraction import beam

        runner = beam.make_runner(args.beam_options, num_workers=args.workers)
    elif args.beam_options:
        raise UserError(
            f"{' '.join(args.beam_options)} is no option; what stands behind -- goes to Beam, with "
            "--runner beam."
        )
    classes = {name: read_classes(path) for name, path in _class_files(args.classes)}
    clips = read_manifest(args.manifest, classes, multi_label=args.multi_label)
    _warn(clips)
    summary = extract(
        clips,
        args.out,
        config=config,
        num_workers=args.workers,
        clips_per_shard=args.clips_per_shard,
        clip_timeout_sec=args.clip_timeout,
        runner=runner,
    )
    _print_summary(summary, args.out)
    return 0


def _warn(manifest: Manifest) -> None:
    """What the manifest alone shows to be wrong, before hours are spent on its videos."""
    from avt_jax.data.doctor.check import check_manifest

    lines = [f"warning: {sentence}" for sentence in manifest.warnings]
    found = check_manifest(manifest)
    lines += [finding.line() for finding in found if finding.severity != "hint"]
    for line in lines[:_MOST_WARNINGS]:
        show(line, file=sys.stderr)
    if len(lines) > _MOST_WARNINGS:
        rest = len(lines) - _MOST_WARNINGS
        show(f"{rest} more; 'avt doctor' shows them once it is extracted", file=sys.stderr)


def _class_files(arguments: Sequence[str]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for argument in arguments:
        name, separator, path = argument.partition("=")
        if not (name and separator and path):
            raise UserError(f"--classes {argument!r} must look like label=classes.txt.")
        if name in dict(pairs):
            raise UserError(f"--classes names the label set {name!r} twice; keep it once.")
        pairs.append((name, path))
    return pairs


def _print_summary(summary: ExtractSummary, out: str) -> None:
    from avt_jax.host.output.tables import PlainTable, new_console

    columns = {"clips": summary.num_clips, "without audio": summary.num_without_audio}
    if any(summary.num_without_video.values()):
        columns["without picture"] = summary.num_without_video
    table = PlainTable(f"extracted into {out}", "split", *columns, "minutes")
    for split in summary.num_clips:
        counts = (str(column[split]) for column in columns.values())
        table.row(split, *counts, f"{summary.clip_sec[split] / 60:.1f}")
    console = new_console()
    console.print(table)
    total, num_failed = sum(summary.num_clips.values()), sum(summary.num_failed.values())
    num_new = total + num_failed - summary.num_before
    text = f"{total} clips, {summary.num_bytes / 1e6:.1f} MB, {num_failed} failed"
    if not num_new:
        text += ", all done by an earlier run"
    else:
        rate_hz = num_new / summary.elapsed_sec
        text += f", {summary.elapsed_sec:.1f} s ({rate_hz:.1f} clips/s)"
        if summary.num_before:
            text += f"; {summary.num_before} by an earlier run"
    console.print(text)
    for split in summary.num_failed:
        if split not in summary.num_clips:
            console.print(f"warning: no clip of split {split} could be decoded")
    if num_failed:
        console.print(f"what failed and why: {out.rstrip('/')}/failed.csv", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(common.run(main))
