"""`avt weights`: published weights by name, and the adapters of a run merged into its weights."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

from avt_jax.cli.common import add_step, parser, run
from avt_jax.host.output.terminal import show

EPILOG = """\
  avt weights list
  avt weights fetch uniformer-s-k400
  avt train --config own:small --workdir runs/mine --config.data.path=shards \\
      --config.init.video=uniformer-s-k400 --config.init.audio=ast-audioset-16
  avt weights merge runs/mine --out runs/whole

A name in config.init is fetched when the training starts. Weights are downloaded from where their
authors publish them, compared with the checksum that is published ("on arrival": the server states
it with the download), converted, and kept in the cache folder (AVT_CACHE, else avt_jax in
XDG_CACHE_HOME or ~/.cache). Mind their licences.

"merge" takes a run trained with adapters (config.model.lora_rank) and writes one without that
predicts the same; docs/finetuning.md says more.
"""


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of `avt weights`."""
    cli = parser("weights", "List and fetch published weights; merge adapters.", EPILOG)
    actions = cli.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add_action(name: str, text: str) -> argparse.ArgumentParser:
        action: argparse.ArgumentParser = actions.add_parser(
            name,
            help=text[0].lower() + text[1:].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        return action

    add_action("list", "Print the catalog.")
    action = add_action("fetch", "Download, verify and convert weights, unless they are there.")
    action.add_argument("name", help="as 'avt weights list' prints it")
    action.add_argument("--file", type=Path, help="the published file, downloaded by hand")
    action = add_action(
        "merge", "Write a run without adapters that predicts what one with them does."
    )
    action.add_argument("run", type=Path, metavar="RUN_DIR", help="run with adapters")
    action.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder")
    add_step(action)
    return cli


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit code.

    Raises:
      UserError: no such name or run, or weights that cannot be fetched, converted or merged.
    """
    args = build_parser().parse_args(argv)
    if args.action == "list":
        _list()
        return 0
    if args.action == "merge":
        from avt_jax.experiment.derived.merged import merge_run

        place, number = merge_run(args.run, args.out, args.step)
        show(f"{place}: {args.run} with its {number} adapters merged into its weights")
        return 0
    from avt_jax.conversion.catalog.fetch import fetch

    place = fetch(args.name, file=args.file, say=functools.partial(show, file=sys.stderr))
    show(place)
    return 0


def _list() -> None:
    from avt_jax.conversion.catalog.entries import ENTRIES
    from avt_jax.host.cache import cache_folder
    from avt_jax.host.output.tables import PlainTable, new_console

    columns = ("name", "what", "about MB", "checksum", "licence", "here")
    table = PlainTable("", *columns, left=(0, 1, 3, 4, 5))
    for name, entry in ENTRIES.items():
        here = "yes" if (cache_folder() / "weights" / name).is_dir() else ""
        if not entry.url:
            here = here or "by hand"
        table.row(name, entry.what, str(entry.about_mb), entry.checksum, entry.licence, here)
    new_console().print(table)


if __name__ == "__main__":
    sys.exit(run(main))
