"""`avt inspect`: what is in a shard folder, in numbers and as a picture."""

from __future__ import annotations

import argparse
import collections
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avt_jax.cli import common
from avt_jax.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from avt_jax.data.shard_tools.summary import Summary

_MAX_ROWS = 60


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = common.parser(
        "inspect", "Print counts, durations and sizes of a shard folder and draw a contact sheet."
    )
    add = parser.add_argument
    add("shards", help="folder that 'avt extract' made, or the URL of a copy")
    add("--out", default=None, help="picture to write (default: contact_sheet.png in the folder)")
    add("--split", default=None, help="split to draw (default: the first)")
    add("--num-clips", type=int, default=8, help="clips to draw, 0 for no picture (%(default)s)")
    add("--verify", action="store_true", help="compare the shards with their checksums first")
    add(
        "--probe",
        action="store_true",
        help="only measure how many threads or workers prepare training clips fastest here",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments without the command's name; None takes them from the command line.

    Returns:
      0.

    Raises:
      UserError: not a shard folder, or something in it is damaged.
    """
    args = build_parser().parse_args(argv)
    if not 0 <= args.num_clips <= 100:
        raise UserError(f"--num-clips {args.num_clips} must be 0 to 100.")
    import tqdm

    from avt_jax.data import records
    from avt_jax.data.records import remote
    from avt_jax.data.shard_tools import summary
    from avt_jax.host.output.tables import new_console

    folder = os.fspath(remote.local_folder(args.shards))
    console = new_console()
    if args.verify:
        count = records.verify_checksums(folder)
        console.print(f"{count} shards are as they were written")
    if args.probe:
        _try_workers(console, folder, args.split)
        return 0
    info = records.read_info(folder)
    split = args.split or next(iter(info.splits))
    # Opened before the long pass over the records: a misspelt split should not cost minutes.
    source = records.open_split(folder, split)
    total = sum(info.splits.values())
    with tqdm.tqdm(total=total, desc="reading", unit="clip", leave=False) as bar:
        result = summary.summarize(folder, on_clip=bar.update)
    _print_splits(console, result, args.shards)
    for name in info.label_sets:
        _print_classes(console, result, name)
    _print_notes(console, result)
    if args.num_clips:
        from avt_jax.data.shard_tools import contact_sheet

        # Of a copy in the cache the picture comes into the current folder, where it is found.
        place = "" if remote.is_remote(args.shards) else folder
        path = args.out or os.path.join(place, "contact_sheet.png")
        chosen = contact_sheet.choose_clips(source, args.num_clips)
        heading = f"{os.path.basename(os.path.normpath(args.shards))}: {split}, "
        heading += f"{len(chosen)} of {len(source)} clips"
        contact_sheet.save_contact_sheet(source, chosen, path, title=heading)
        console.print(f"contact sheet: {path}")
    return 0


def _try_workers(console: Console, shards: str, split: str | None) -> None:
    """Tries settings of the input pipeline, with the clips and frames of the default config."""
    from avt_jax.data import records
    from avt_jax.data.loading import tune_workers
    from avt_jax.data.loading.config import DataConfig

    split = split or next(iter(records.read_info(shards).splits))
    config = DataConfig(path=shards, train_split=split)
    source = records.open_split(shards, split)
    trials = list(
        tune_workers.try_settings(source, config, on_trial=lambda trial: console.print(str(trial)))
    )
    chosen = tune_workers.choose(trials)
    console.print(
        f"use --config.data.num_threads={chosen.num_threads} "
        f"--config.data.num_workers={chosen.num_workers}",
        soft_wrap=True,
    )


def _print_splits(console: Console, result: Summary, shards: str) -> None:
    from avt_jax.host.output.tables import PlainTable

    names = ("split", "clips", "videos", "minutes", "s/clip", "min", "max", "no audio", "MB")
    table = PlainTable(shards, *names)
    for name, split in result.splits.items():
        mean_sec = split.total_sec / max(1, split.num_clips)
        table.row(
            name,
            str(split.num_clips),
            str(split.num_sources),
            f"{split.total_sec / 60:.1f}",
            f"{mean_sec:.1f}",
            f"{split.shortest_sec:.1f}",
            f"{split.longest_sec:.1f}",
            str(split.num_without_audio),
            f"{split.num_bytes / 1e6:.1f}",
        )
    console.print(table)


def _print_classes(console: Console, result: Summary, label_set: str) -> None:
    from avt_jax.host.output.tables import PlainTable

    names = result.info.label_sets[label_set]
    per_split = [split.class_counts[label_set] for split in result.splits.values()]
    counts = [[count[i] for count in per_split] for i in range(len(names))]
    order = sorted(range(len(names)), key=lambda i: (-sum(counts[i]), i))
    title = f"{label_set}: {len(names)} classes"
    if len(names) > _MAX_ROWS:
        title += f", the {_MAX_ROWS} most frequent"
    else:
        order.sort()
    table = PlainTable(title, "index", "class", *result.splits, "all", left=(1,))
    for i in order[:_MAX_ROWS]:
        table.row(str(i), names[i], *map(str, counts[i]), str(sum(counts[i])))
    console.print(table)
    empty = [name for name, row in zip(names, counts, strict=True) if not sum(row)]
    if empty:
        shown = ", ".join(empty[:10])
        console.print(f"{len(empty)} classes without a clip: {shown}")


def _print_notes(console: Console, result: Summary) -> None:

    sizes: collections.Counter[tuple[int, int]] = collections.Counter()
    for split in result.splits.values():
        sizes += split.frame_sizes
    shown = ", ".join(f"{w}x{h} ({count})" for (w, h), count in sizes.most_common(5)) or "none"
    more = f" and {len(sizes) - 5} more sizes" if len(sizes) > 5 else ""
    console.print(f"frames: {result.info.frame_rate_hz:g} per second, {shown}{more}")
    blind = {name: split.num_without_video for name, split in result.splits.items()}
    if any(blind.values()):
        counts = ", ".join(f"{name} {count}" for name, count in blind.items() if count)
        console.print(f"sound alone, without a picture: {counts}")
    if result.fbank_mean is not None:
        console.print(
            f"log-mel: mean {result.fbank_mean:.4f}, standard deviation {result.fbank_std:.4f} "
            "(config fields data.audio_mean, data.audio_std)"
        )
    for name, split in result.splits.items():
        if split.flag_counts:
            counts = ", ".join(f"{code} {n}" for code, n in split.flag_counts.most_common())
            console.print(f"flags of {name}: {counts}")
    if result.shared_sources:
        shared = ", ".join(result.shared_sources)
        console.print(f"warning: videos that occur in more than one split: {shared}")
    if result.failures:
        reasons = ", ".join(f"{reason} {n}" for reason, n in result.failures.most_common())
        console.print(f"not extracted: {sum(result.failures.values())} clips ({reasons})")


if __name__ == "__main__":
    sys.exit(common.run(main))
