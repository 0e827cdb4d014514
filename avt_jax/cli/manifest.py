"""`avt manifest`: a manifest for a folder of class folders."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from avt_jax.cli import common


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = common.parser(
        "manifest",
        "Write a manifest for a folder that holds one folder of videos per class.",
        "Example, for my_videos/dog/1.mp4 and my_videos/cat/2.mp4: "
        "avt manifest my_videos --out clips.csv",
    )
    add = parser.add_argument
    add("folder", help="its sub-folders are the classes")
    add("--out", default="clips.csv", help="manifest to write (%(default)s)")
    add("--val-fraction", type=float, default=0.1, help="share for validation (%(default)s)")
    add("--test-fraction", type=float, default=0.1, help="share for testing (%(default)s)")
    add("--seed", type=int, default=0, help="another seed, another division (%(default)s)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments without the command's name; None takes them from the command line.

    Returns:
      0.

    Raises:
      UserError: no classes in the folder, the manifest exists, or the shares make no sense.
    """
    args = build_parser().parse_args(argv)
    from avt_jax.data import folder_manifest

    counts = folder_manifest.manifest_from_folder(
        args.folder,
        args.out,
        fractions=folder_manifest.SplitFractions(val=args.val_fraction, test=args.test_fraction),
        seed=args.seed,
    )
    _print_counts(counts, args.out)
    return 0


def _print_counts(counts: dict[str, dict[str, int]], out: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"wrote {escape(out)}", box=SIMPLE_HEAD, title_justify="left", show_footer=True
    )
    splits = list(next(iter(counts.values())))
    table.add_column("class", footer="all")
    for split in splits:
        total = sum(row[split] for row in counts.values())
        table.add_column(split, justify="right", footer=str(total))
    for name, row in counts.items():
        table.add_row(escape(name), *(str(row[split]) for split in splits))
    console = Console()
    console.print(table)
    small = [name for name, row in counts.items() if not all(row.values())]
    if small:
        console.print(
            f"{len(small)} class(es) are missing from a split; 3 videos per class are the least "
            "that can fill all of them.",
            highlight=False,
        )


if __name__ == "__main__":
    sys.exit(common.run(main))
