"""`avt synthesize`: renders the AV-Events or the AV-Sync data set."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from avt_jax.cli import common
from avt_jax.data.av_events import render
from avt_jax.data.av_sync import render as render_sync
from avt_jax.errors import UserError
from avt_jax.host.output.terminal import show

EPILOG = """\
  avt synthesize --out videos
  avt synthesize --data av-sync --out sync --frame-rate-hz 16

In AV-Events picture and sound are drawn independently. In AV-Sync they belong together: a class is
a thing (ball, hammer, lamp, mouth) and whether it is heard when it acts, late, early, or at other
times; labelled_1.csv and labelled_10.csv have labels of few training clips, seen.csv what acts
when. docs/data.md says more.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    parser = common.parser(
        "synthesize",
        "Render generated videos: AV-Events, 4 motions x 4 kinds of sound, or AV-Sync.",
        EPILOG,
    )
    parser.add_argument(
        "--data",
        choices=("av-events", "av-sync"),
        default="av-events",
        help="which data set (default %(default)s)",
    )
    parser.add_argument(
        "--out", required=True, help="folder to create: videos/, clips.csv, events.csv"
    )
    parser.add_argument(
        "--num-train", type=int, default=1600, help="clips in the train split (default %(default)s)"
    )
    parser.add_argument(
        "--num-val", type=int, default=160, help="clips in the val split (default %(default)s)"
    )
    parser.add_argument(
        "--num-test", type=int, default=320, help="clips in the test split (default %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="same seed, same data (default %(default)s)"
    )
    parser.add_argument(
        "--clip-sec", type=float, default=4.0, help="length of a clip in s (default %(default)s)"
    )
    parser.add_argument(
        "--frame-rate-hz", type=int, default=25, help="frames per second (default %(default)s)"
    )
    parser.add_argument(
        "--size-px", type=int, default=128, help="width and height (default %(default)s)"
    )
    parser.add_argument(
        "--snr-db",
        type=float,
        metavar="DB",
        help="power of the sounds over the background's (default: drawn for each clip, 18 to 36)",
    )
    parser.add_argument(
        "--distractors",
        type=float,
        metavar="SHARE",
        help="of AV-Sync: share of clips with a silent thing, and with one not seen (default 0.5)",
    )
    parser.add_argument(
        "--num-workers", type=int, default=2, help="processes, 0 for none (default %(default)s)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: arguments without the command's name; None takes them from the command line.

    Returns:
      0.

    Raises:
      UserError: a value is out of range or the folder is not empty.
    """
    args = build_parser().parse_args(argv)
    started = time.perf_counter()
    settings: dict[str, Any] = dict(
        num_train=args.num_train,
        num_val=args.num_val,
        num_test=args.num_test,
        seed=args.seed,
        clip_sec=args.clip_sec,
        frame_rate_hz=args.frame_rate_hz,
        size_px=args.size_px,
        snr_db=args.snr_db,
    )
    if args.data == "av-sync":
        share = 0.5 if args.distractors is None else args.distractors
        specs = render_sync.specify_clips(**settings, distractors=share)
        manifest = render_sync.render_dataset(args.out, specs, num_workers=args.num_workers)
    elif args.distractors is not None:
        raise UserError("--distractors is for --data av-sync; leave it out.")
    else:
        manifest = render.render_dataset(args.out, **settings, num_workers=args.num_workers)
    num_clips = args.num_train + args.num_val + args.num_test
    seconds = time.perf_counter() - started
    show(
        f"rendered {num_clips} clips in {seconds:.1f} s ({num_clips / seconds:.1f} clips/s); "
        f"manifest: {manifest}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(common.run(main))
