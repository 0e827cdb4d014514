"""What encoders pre-trained on AV-Events are worth on real clips: Tux Paint's stamps.

    avt synthesize --out videos --frame-rate-hz 16
    avt extract --manifest videos/clips.csv --out events --frame-rate 8 --short-side 72
    python experiments/transfer_stamps.py --events events --stamps shards --out runs/stamps

`--stamps`: shards as docs/own_videos.md makes them. Recipe `own`, whole and on cached tokens, each
from encoders with random weights and from those of a quickstart training; a third of the recipe's
length. Three seeds, of the pre-training too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import arms
from arms import Arm, Words

SEEDS = (0, 1, 2)
GROUP = "(.+)__"
EPOCHS = 22
# A fifth, as in the recipe.
HELD_EPOCHS = 4.4


def main() -> None:
    """Trains and compares all arms."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--events", type=Path, required=True, help="shards of AV-Events")
    cli.add_argument("--stamps", type=Path, required=True, help="shards of the stamps")
    cli.add_argument("--out", type=Path, required=True)
    cli.add_argument("--only", nargs="*", help="names of arms")
    args = cli.parse_args()
    every = [one for one in all_arms(args) if not args.only or one.name in args.only]
    arms.run_arms(every, SEEDS, args.out)
    against = {"own-events": "own-random", "tokens-events": "tokens-random"}
    against = {k: v for k, v in against.items() if {k, v} <= {one.name for one in every}}
    rows = arms.found(every, SEEDS, args.out, against=against, group=GROUP)
    arms.write(
        rows,
        args.out,
        "random encoders",
        "Pre-training on AV-Events, tried on the stamps",
        f"test clips of 39 pictures; {len(SEEDS)} seeds; bars: 95 % interval over pictures",
    )


def all_arms(args: argparse.Namespace) -> list[Arm]:
    """The arms, in the table's order."""
    stamps = f"--config.data.path={args.stamps}"
    length = [f"--config.train.epochs={EPOCHS}", f"--config.optimizer.warmup_epochs={EPOCHS / 20}"]

    def pretrain(folder: Path, seed: int) -> tuple[str, Words]:
        words = ["train", "--config", "quickstart", "--workdir", str(folder / "events")]
        return "pretrain", [*words, f"--config.data.path={args.events}", f"--config.seed={seed}"]

    def evaluate(folder: Path) -> tuple[str, Words]:
        words = ["evaluate", "--checkpoint", str(folder / "run"), "--group-by", GROUP]
        return "evaluate", [*words, "--no-baseline"]

    def own(folder: Path, seed: int, *more: str) -> list[tuple[str, Words]]:
        words = ["train", "--config", "own:tiny", "--workdir", str(folder / "run"), stamps]
        return [
            ("train", [*words, *length, f"--config.seed={seed}", *more]),
            evaluate(folder),
        ]

    def own_events(folder: Path, seed: int) -> list[tuple[str, Words]]:
        given = [f"--config.init.{name}={folder / 'events'}" for name in ("video", "audio")]
        held = f"--config.optimizer.held_epochs={HELD_EPOCHS}"
        return [pretrain(folder, seed), *own(folder, seed, held, *given)]

    def on_tokens(folder: Path, seed: int, encoders: Words) -> list[tuple[str, Words]]:
        tokens, seeded = str(folder / "tokens"), f"--config.seed={seed}"
        train = ["train", "--config", "own:tokens", "--workdir", str(folder / "run")]
        return [
            ("tokens", ["tokens", str(args.stamps), *encoders, "--out", tokens, "--views", "4"]),
            ("train", [*train, f"--config.data.path={tokens}", *length, seeded]),
            evaluate(folder),
        ]

    def tokens_events(folder: Path, seed: int) -> list[tuple[str, Words]]:
        encoders = ["--config", "own:tiny"]
        for name in ("video", "audio"):
            encoders += [f"--init.{name}", str(folder / "events")]
        return [pretrain(folder, seed), *on_tokens(folder, seed, encoders)]

    def tokens_random(folder: Path, seed: int) -> list[tuple[str, Words]]:
        words = ["train", "--config", "own:tiny", "--workdir", str(folder / "untrained"), stamps]
        still = ["--config.train.steps=1", "--config.optimizer.lr=0", "--config.optimizer.min_lr=0"]
        untrained = [*words, *still, "--config.optimizer.warmup_steps=0", f"--config.seed={seed}"]
        encoders = ["--checkpoint", str(folder / "untrained")]
        return [("untrained", untrained), *on_tokens(folder, seed, encoders)]

    return [
        Arm("own-random", "own, random encoders", own),
        Arm("own-events", "own, from AV-Events, staged", own_events),
        Arm("tokens-random", "cached tokens, random encoders", tokens_random),
        Arm("tokens-events", "cached tokens, from AV-Events", tokens_events),
    ]


if __name__ == "__main__":
    main()
