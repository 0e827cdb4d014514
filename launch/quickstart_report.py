"""The end of the quickstart: gathers what its stages wrote into results.json and a table."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from pathlib import Path

from avt_jax.host.new_files import write_json
from avt_jax.host.output.tables import PlainTable, new_console

MODELS = {"av": "audio and video", "audio": "audio alone", "video": "video alone"}


def example_videos(out: Path, number: int = 3) -> list[str]:
    """Test videos of different classes."""
    with (out / "videos" / "clips.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    first = {row["label"]: row["path"] for row in reversed(rows)}
    labels = sorted(first)[:: max(1, len(first) // number)][:number]
    return [str(out / "videos" / first[label]) for label in labels]


def gather(out: Path) -> dict:
    """Top-1 of every model that was evaluated, and the seconds of the stages."""
    top1 = {}
    for model in MODELS:
        file = out / model / "evaluation-test" / "results.json"
        if file.is_file():
            top1[model] = json.loads(file.read_text(encoding="utf-8"))["label"]["top1"]
    stages = {file.name: int(file.read_text()) for file in (out / "seconds").iterdir()}
    seconds = {
        "install": stages["install"],
        "data": stages["synthesize"] + stages["extract"] + stages["inspect"],
        "train": sum(value for name, value in stages.items() if name.startswith("train_")),
        "total": sum(stages.values()),
    }
    return {"top1": top1, "seconds": seconds}


def main() -> int:
    """Writes results.json and prints the table; or prints example files for `avt predict`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the quickstart's folder")
    parser.add_argument("--examples", action="store_true", help="print test videos, one a line")
    args = parser.parse_args()
    if args.examples:
        print("\n".join(example_videos(args.out)))
        return 0
    results = gather(args.out)
    write_json(args.out / "results.json", results, indent=1)
    print("\nAV-Events, test split. 16 classes = 4 motions x 4 sounds: who only sees, or only")
    print("hears, is right one time in four.")
    table = PlainTable("", "model sees", "top-1")
    for model, value in results["top1"].items():
        table.row(MODELS[model], f"{value:.3f}")
    new_console().print(table)
    seconds = results["seconds"]
    print(", ".join(f"{name} {value} s" for name, value in seconds.items()))
    print("\nPictures to look at:")
    for picture in sorted(args.out.rglob("*.png")):
        print(f"  {picture}")
    print(f"Numbers: {args.out / 'results.json'}")
    print(f"Your own files: .venv/bin/avt predict --checkpoint {args.out / 'av'} FILE...")
    return 0


if __name__ == "__main__":
    sys.exit(main())
