"""`avt manifest`: a manifest for a known data set, or for a folder of class folders."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avt_jax.cli import common
from avt_jax.errors import UserError, nearest

if TYPE_CHECKING:
    from avt_jax.data.manifests.catalog.entries import DataSet
    from avt_jax.data.manifests.group_splits import Divided

_OF_FOLDERS = ("test_fraction", "group_by")
_OF_DATA_SETS = ("csv", "videos", "classes", "trimmed")
_DEFAULT_FRACTION = 0.1


def _epilog() -> str:
    from avt_jax.data.manifests.catalog.entries import DATA_SETS

    lines = []
    for entry in DATA_SETS.values():
        names = " or ".join((entry.name, *entry.aliases))
        lines += [f"  {entry.title} ({names})", f"    avt manifest {entry.name} {entry.example}"]
    return (
        "A folder of class folders, for my_videos/dog/1.mp4 and my_videos/cat/2.mp4, or of\n"
        "splits, for my_videos/train/dog/1.mp4 and my_videos/val/dog/2.mp4:\n"
        "    avt manifest my_videos --out clips.csv\n"
        "    avt manifest my_videos --group-by '(.+)_clip[0-9]+'    (dog/holiday_clip3.mp4)\n\n"
        "A manifest of your own, whose clips are divided; its other columns stay:\n"
        "    avt manifest --split mine.csv --out clips.csv\n\n"
        "Data sets, from the annotation files as their authors publish them:\n"
        + "\n".join(lines)
        + "\n\nFiles may lie in any sub-folder of VIDEOS and be called ID_START_END.mp4, "
        "ID_START.mp4\n(cut to the clip), or ID.mp4 (the whole source video; start and end go into "
        "the manifest).\nBeside clips.csv: clips.classes-SET.txt (the class indices), "
        "clips.report.csv (counts per\nclass), clips.problems.csv (every missing, duplicate or "
        "unmatched item). docs/datasets.md has more.\nA folder that is called like a data set is "
        "written ./vggsound."
    )


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = common.parser(
        "manifest",
        "Write a manifest (clips.csv) for a known data set, or for a folder that holds one folder "
        "of videos per class; or divide one that exists into train, val and test.",
        _epilog(),
    )
    add = parser.add_argument
    add(
        "source",
        nargs="?",
        metavar="DATA_SET|FOLDER",
        help="a data set, or a folder of class folders",
    )
    add("--split", metavar="CSV", help="in place of these: a manifest whose clips are divided")
    add("--out", default="clips.csv", help="manifest to write (%(default)s)")
    add(
        "--val-fraction",
        type=float,
        help=f"share for validation: of each class of a folder ({_DEFAULT_FRACTION}), or of the "
        "training videos of a data set that has no validation split (0)",
    )
    add(
        "--follow-links",
        action="store_true",
        default=None,
        help="enter links to folders, wherever they lead; links to files are always followed",
    )
    add("--seed", type=int, default=0, help="another seed, another division (%(default)s)")
    folder = parser.add_argument_group("a folder of class folders, and --split")
    add = folder.add_argument
    add("--test-fraction", type=float, help=f"share for testing ({_DEFAULT_FRACTION})")
    add(
        "--group-by",
        metavar="REGEX",
        help="searched for in each path below FOLDER, or as CSV has it; files in which it finds "
        "the same (the bracketed parts) share a split: clips of one source video",
    )
    add(
        "--replace-splits",
        action="store_true",
        default=None,
        help="with --split: make new splits where CSV has some",
    )
    _add_data_set(parser)
    return parser


def _add_data_set(parser: argparse.ArgumentParser) -> None:
    data_set = parser.add_argument_group("a data set")
    add = data_set.add_argument
    add(
        "--csv",
        action="append",
        metavar="[SPLIT=]FILE",
        help="official annotation file, may be given several times; SPLIT (train, val, test) "
        "replaces what the file or its name says",
    )
    add("--videos", metavar="VIDEOS", help="folder of the downloaded videos")
    add(
        "--classes",
        action="append",
        metavar="SET=FILE",
        help="class list of a label set: one name per line, or a CSV with the columns id and key "
        "(or index and display_name); rows of other classes are left out",
    )
    add(
        "--trimmed",
        action="store_true",
        default=None,
        help="files called ID.mp4 were already cut to the clip",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments without the command's name; None takes them from the command line.

    Returns:
      0.

    Raises:
      UserError: a mistake in the options or in a file, nothing was found, or a file exists that
        would be written.
    """
    args = build_parser().parse_args(argv)
    if args.split is not None:
        _split(args)
        return 0
    if args.source is None:
        raise UserError("give a data set, a folder of class folders, or --split clips.csv.")
    from avt_jax.data.manifests.catalog.entries import find_data_set

    entry = find_data_set(args.source)
    _check_options(args, entry)
    if entry is None:
        _folder(args)
    else:
        _data_set(args, entry)
    return 0


def _check_options(args: argparse.Namespace, entry: DataSet | None) -> None:
    from avt_jax.data.manifests.catalog.entries import DATA_SETS, get_data_set

    if args.replace_splits:
        raise UserError(f"--replace-splits is for --split, not for {args.source}.")
    if entry is None and Path(args.source).is_file():
        raise UserError(
            f"{args.source} is a file, not a folder of class folders; to divide the clips of a "
            f"manifest: avt manifest --split {shlex.quote(args.source)} --out NEW.csv."
        )
    is_lost = entry is None and not Path(args.source).exists()
    if is_lost and nearest(args.source, DATA_SETS):
        get_data_set(args.source)  # says which one was probably meant
    for name in _OF_FOLDERS if entry else _OF_DATA_SETS:
        if getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            if entry is None:
                if is_lost:
                    get_data_set(args.source)
                raise UserError(f"{option} is for data sets; {args.source} is a folder.")
            raise UserError(f"{option} is for folders of class folders, not for {entry.title}.")
    if entry and not (args.csv and args.videos):
        raise UserError(
            f"{entry.title} needs --csv and --videos: avt manifest {entry.name} {entry.example} "
            f"(for a folder of that name write ./{args.source})."
        )


def _folder(args: argparse.Namespace) -> None:
    from avt_jax.data.manifests import from_folder

    divided = from_folder.manifest_from_folder(
        args.source, args.out, follow_links=bool(args.follow_links), **_how_to_divide(args)
    )
    _print_divided(args, divided, [args.source])


def _split(args: argparse.Namespace) -> None:
    from avt_jax.data.manifests.resplit import split_manifest

    if args.source is not None:
        raise UserError(f"--split {args.split} and {args.source} are given; give one of them.")
    for name in (*_OF_DATA_SETS, "follow_links"):
        if getattr(args, name) is not None:
            raise UserError(f"--{name.replace('_', '-')} is not for --split.")
    divided = split_manifest(
        args.split, args.out, replace=bool(args.replace_splits), **_how_to_divide(args)
    )
    replace = ["--replace-splits"] if args.replace_splits else []
    _print_divided(args, divided, ["--split", args.split, *replace])


def _how_to_divide(args: argparse.Namespace) -> dict[str, Any]:
    from avt_jax.data.manifests.group_splits import SplitFractions

    given = (args.val_fraction, args.test_fraction)
    val, test = (_DEFAULT_FRACTION if share is None else share for share in given)
    fractions = None if given == (None, None) else SplitFractions(val=val, test=test)
    return {"fractions": fractions, "seed": args.seed, "group_by": args.group_by}


def _print_divided(args: argparse.Namespace, divided: Divided, source: Sequence[str]) -> None:
    from avt_jax.cli.data.manifest_tables import print_divided

    options = [f"--seed={args.seed}"] if args.seed else []
    for name in ("val_fraction", "test_fraction"):
        if getattr(args, name) is not None:
            options.append(f"--{name.replace('_', '-')}={getattr(args, name)}")
    print_divided(divided, args.out, ["avt", "manifest", *source, *options])


def _data_set(args: argparse.Namespace, entry: DataSet) -> None:
    from avt_jax.cli.data.manifest_tables import print_data_set
    from avt_jax.data.manifests.catalog.build import Options, manifest_from_annotations

    options = Options(
        class_files=_class_files(args.classes or []),
        val_fraction=args.val_fraction or 0.0,
        seed=args.seed,
        trimmed=bool(args.trimmed),
        follow_links=bool(args.follow_links),
    )
    annotations = [_annotation(argument) for argument in args.csv]
    written = manifest_from_annotations(
        entry, annotations, Path(args.videos), Path(args.out), options
    )
    print_data_set(entry, written)


def _annotation(argument: str) -> tuple[str, Path]:
    """(split or "", file) of a --csv argument."""
    from avt_jax.data.records import SPLITS

    split, separator, path = argument.partition("=")
    if separator and split in SPLITS:
        return split, Path(path)
    return "", Path(argument)


def _class_files(arguments: Sequence[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for argument in arguments:
        name, _, path = argument.partition("=")
        if not (name and path):
            raise UserError(f"--classes {argument!r} must look like label=classes.txt.")
        if name in files:
            raise UserError(f"--classes names the label set {name!r} twice; keep it once.")
        files[name] = Path(path)
    return files


if __name__ == "__main__":
    sys.exit(common.run(main))
