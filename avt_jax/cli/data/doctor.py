"""`avt doctor`: mistakes in a shard folder, found before anything is trained on it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from avt_jax.cli import common
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

if TYPE_CHECKING:
    from avt_jax.data.doctor.facts import Facts
    from avt_jax.data.doctor.findings import Finding

EPILOG = """\
  avt doctor shards
  avt doctor shards --config own --config.data.clip_sec=4

Every clip's name, classes and length are read; pictures and sound of at most --max-clips, evenly
spread. In the commands that it prints, clips.csv stands for your manifest.

Exit code 0: nothing, or warnings and hints only; 1: an error was found; 2: it could not look.
docs/data.md lists all checks.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments; config overrides are read apart from them."""
    cli = common.parser(
        "doctor",
        "Look for mistakes in a shard folder that would make a training or its result wrong.",
        EPILOG,
    )
    add = cli.add_argument
    add("shards", help="shard folder, or URL of one")
    add("--config", metavar="FILE[:ARG]", help="config file or recipe that is to be trained on it")
    add("--json", action="store_true", help="print the findings as JSON, with all places")
    add(
        "--max-clips",
        type=int,
        default=20_000,
        help="clips whose pictures and sound are looked at (%(default)s)",
    )
    return cli


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments without the command's name; None takes them from the command line.

    Returns:
      0, or 1 where an error was found.

    Raises:
      UserError: a mistake in the options, or no shard folder.
    """
    argv = sys.argv[1:] if argv is None else argv
    args, overrides = build_parser().parse_known_args(argv)
    if args.max_clips < 0:
        raise UserError(f"--max-clips {args.max_clips} must be 0 or more.")
    if overrides and not args.config:
        if not overrides[0].startswith("--config."):
            raise UserError(f"unexpected argument {overrides[0]!r}; 'avt doctor --help' has all.")
        raise UserError(f"{overrides[0]} changes a config; name one with --config.")
    from avt_jax.data.doctor.check import check_facts, worst_first
    from avt_jax.data.doctor.facts import read_facts

    check = None
    if args.config:
        from avt_jax.experiment.doctor.config_checks import config_check

        check = config_check(args.config, overrides, args.shards)
    facts = read_facts(args.shards, max_content=args.max_clips)
    findings = check_facts(facts)
    if check:
        findings = worst_first([*findings, *check(facts)])
    if args.json:
        show(json.dumps(_as_json(args.shards, facts, findings), indent=2))
    else:
        _print(args.shards, facts, findings)
    return int(any(finding.severity == "error" for finding in findings))


def _as_json(shards: str, facts: Facts, findings: Sequence[Finding]) -> dict[str, object]:
    return {
        "shards": shards,
        "clips": sum(facts.info.splits.values()),
        "looked_at_closely": facts.num_content,
        "findings": [dataclasses.asdict(finding) for finding in findings],
    }


def _print(shards: str, facts: Facts, findings: Sequence[Finding]) -> None:
    from rich.text import Text

    from avt_jax.data.doctor.findings import SEVERITIES
    from avt_jax.host.output.tables import PlainTable, new_console, plain

    console = new_console()
    total, closely = sum(facts.info.splits.values()), facts.num_content
    looked = (
        "of all" if closely == len(facts.clips) else f"of {closely}, evenly spread (--max-clips),"
    )
    console.print(
        f"{shards}: {total} clips; {looked} pictures and sound were looked at", soft_wrap=True
    )
    if not findings:
        console.print("nothing found")
        return
    table = PlainTable("", "", "severity", "what", "where", left=(1, 2, 3))
    for number, finding in enumerate(findings, 1):
        style = {"error": "red", "warning": "yellow"}.get(finding.severity, "")
        cells = (finding.what, finding.places())
        table.add_row(str(number), Text(finding.severity, style), *map(plain, cells))
    console.print(table)
    console.print("what to do (clips.csv stands for your manifest):")
    remedies: dict[str, list[str]] = {}
    for number, finding in enumerate(findings, 1):
        remedies.setdefault(finding.remedy, []).append(str(number))
    for remedy, numbers in remedies.items():
        console.print(f"{', '.join(numbers):>3}  {remedy}", soft_wrap=True)
    counts = [sum(f.severity == severity for f in findings) for severity in SEVERITIES]
    words = [f"{n} {severity}(s)" for n, severity in zip(counts, SEVERITIES, strict=True) if n]
    console.print(f"\n{', '.join(words)}")


if __name__ == "__main__":
    sys.exit(common.run(main))
