"""Ways of fine-tuning compared where the answer is known: to 4 new classes, 8 clips of each.

    avt synthesize --out videos --frame-rate-hz 16 --num-val 320 --num-test 1280
    python experiments/finetune_events.py --videos videos --out runs/finetuning

AV-Events has 16 classes = 4 motions x 4 kinds of sound. The 4 new classes are 2 motions with 2
sounds, all seen and heard in the other 12, but never together: picture and sound are both needed
to tell them apart. Pre-trained with the recipe quickstart on the other 12; then 200 steps on 8
clips of each new class, other ones for each of the three seeds. The learning rate of each way is
the best of three on validation clips, of four where the largest is, with clips of a fourth seed.
About 320 test clips.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path

import arms
from arms import Arm, Words

SEEDS, TUNING_SEED = (0, 1, 2), 3
CLIPS_PER_CLASS, STEPS = 8, 200
RATES, LARGER_RATE = (3e-4, 1e-3, 3e-3), 1e-2
MOTIONS, SOUNDS = ("bounce", "circle"), ("chirp", "noise")
NEW = frozenset(f"{motion}+{sound}" for motion in MOTIONS for sound in SOUNDS)
# The same loss and decay for all: the recipe for cached tokens has its own.
ALIKE = (
    "--config.losses.weights.contrastive=0",
    "--config.losses.label_smoothing=0",
    "--config.optimizer.weight_decay=0.05",
    f"--config.train.steps={STEPS}",
    f"--config.train.eval_every_steps={STEPS}",
    "--config.train.log_every_steps=50",
    f"--config.optimizer.warmup_steps={STEPS // 10}",
)


def main() -> None:
    """Makes the data, pre-trains, chooses rates, trains and compares."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--videos", type=Path, required=True, help="what `avt synthesize` made")
    cli.add_argument("--out", type=Path, required=True)
    args = cli.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make_data(args.videos, args.out)
    make_pretrained(args.out)
    rates = {name: best_rate(args.out, name) for name in KINDS}
    print("learning rates:", rates, flush=True)
    every = [arm(args.out, name, rates[name]) for name in KINDS]
    arms.run_arms(every, SEEDS, args.out / "arms")
    against = {name: "scratch" for name in KINDS if name != "scratch"}
    rows = arms.found(every, SEEDS, args.out / "arms", against=against)
    arms.write(
        rows,
        args.out,
        "from scratch",
        "From 12 classes to 4 others with 8 clips each",
        f"AV-Events; {len(SEEDS)} seeds; bars: 95 % interval over test clips",
    )


def make_data(videos: Path, out: Path) -> None:
    """Shards of the 12 classes, and of the 4 with few training clips for each seed."""
    with (videos / "clips.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if unknown := NEW - {row["label"] for row in rows}:
        raise SystemExit(f"{videos} has no class {min(unknown)}")
    _extract(videos, out / "old", [row for row in rows if row["label"] not in NEW])
    new = [row for row in rows if row["label"] in NEW]
    for seed in (*SEEDS, TUNING_SEED):
        few = [row for row in new if row["split"] != "train"]
        for label in sorted(NEW):
            same = [row for row in new if row["split"] == "train" and row["label"] == label]
            few += random.Random(f"{seed} {label}").sample(same, CLIPS_PER_CLASS)
        _extract(videos, out / f"new{seed}", few)


def _extract(videos: Path, shards: Path, rows: list[dict[str, str]]) -> None:
    if shards.exists():
        return
    manifest = videos / f"{shards.name}.csv"
    with manifest.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    words = ["extract", "--manifest", str(manifest), "--out", str(shards)]
    log = shards.parent / "data.log"
    arms.measured([*words, "--frame-rate", "8", "--short-side", "72"], log)


def make_pretrained(out: Path) -> None:
    """The run that all but one start from."""
    if not (out / "pretrained.json").exists():
        words = ["train", "--config", "quickstart", "--workdir", str(out / "pretrained")]
        words += [f"--config.data.path={out / 'old'}", "--config.train.steps=400"]
        cost = arms.measured(words, out / "pretrained.log")
        (out / "pretrained.json").write_text(json.dumps(cost) + "\n")


def train_words(out: Path, name: str, rate: float, folder: Path, seed: int) -> dict[str, Words]:
    """{name: words} of what one way of training consists of."""
    shards, pretrained = str(out / f"new{seed}"), str(out / "pretrained")
    train = ["train", "--workdir", str(folder / "run"), f"--config.seed={seed}", *ALIKE]
    train += [f"--config.optimizer.lr={rate}"]
    if name == "tokens":
        tokens = str(folder / "tokens")
        words = ["tokens", shards, "--checkpoint", pretrained, "--out", tokens, "--views", "8"]
        train += ["--config", "own:tokens", f"--config.data.path={tokens}"]
        train += [f"--config.init.model={pretrained}"]
        return {"tokens": words, "train": train}
    train += ["--config", "quickstart", f"--config.data.path={shards}", *KINDS[name][1]]
    if name != "scratch":
        train += [f"--config.init.model={pretrained}"]
    return {"train": train}


ENCODERS = "('^video_encoder/','^audio_encoder/')"
STILL = "--config.model.video_encoder.freeze_bn=True"
KINDS: dict[str, tuple[str, Words]] = {
    "scratch": ("from scratch", ()),
    "full": ("full", ()),
    "frozen": ("frozen encoders", (f"--config.optimizer.frozen={ENCODERS}", STILL)),
    "staged": (
        "staged: frozen for 40 steps, then layer-wise rates",
        (
            f"--config.optimizer.held={ENCODERS}",
            f"--config.optimizer.held_steps={STEPS // 5}",
            "--config.optimizer.layer_decay=0.75",
            STILL,
        ),
    ),
    "lora": ("LoRA, rank 4", ("--config.model.lora_rank=4",)),
    "tokens": ("cached tokens, 8 views", ()),
}


def arm(out: Path, name: str, rate: float) -> Arm:
    """One way of training at one rate."""

    def commands(folder: Path, seed: int) -> list[tuple[str, Words]]:
        words = ["evaluate", "--checkpoint", str(folder / "run"), "--split", "test"]
        evaluation = ("evaluate", [*words, "--no-baseline", "--step", "last"])
        return [*train_words(out, name, rate, folder, seed).items(), evaluation]

    return Arm(name, KINDS[name][0], commands)


def best_rate(out: Path, name: str) -> float:
    """The rate with the best accuracy on validation clips; of equal ones the lowest loss."""
    found = {rate: _validated(out, name, rate) for rate in RATES}
    if max(found, key=lambda rate: found[rate]) == RATES[-1]:
        found[LARGER_RATE] = _validated(out, name, LARGER_RATE)
    return max(found, key=lambda rate: found[rate])


def _validated(out: Path, name: str, rate: float) -> tuple[float, float]:
    """(accuracy, -loss) on validation clips."""
    folder = out / "rates" / f"{name}-{rate}"
    done = folder / "done"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for words in train_words(out, name, rate, folder, TUNING_SEED).values():
            arms.measured(words, folder / "log.txt")
        done.touch()
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    last = [line for line in map(json.loads, lines) if line["split"] == "val"][-1]
    return last["top1/label"], -last["loss/label"]


if __name__ == "__main__":
    main()
