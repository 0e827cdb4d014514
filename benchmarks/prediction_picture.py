"""Draws README's picture: three test clips of AV-Events in one file, and what a model says of it.

bash launch/quickstart.sh
python benchmarks/prediction_picture.py --run runs/quickstart/av --videos runs/quickstart/videos
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from avt_jax.data.av_events.dataset import write_mp4
from avt_jax.inference import Predictor
from avt_jax.inference.timeline import draw_timeline

OUT = Path(__file__).parent.parent / "docs/images/prediction.png"


def main() -> int:
    """Joins, predicts, draws."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--run", type=Path, required=True)
    add("--videos", type=Path, required=True, help="folder of 'avt synthesize'")
    add("--out", type=Path, default=OUT)
    args = parser.parse_args()
    with open(args.videos / "clips.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    # One of each motion and of each sound.
    chosen = [rows[0]]
    for row in rows:
        words = set(row["label"].split("+"))
        if not any(words & set(other["label"].split("+")) for other in chosen):
            chosen.append(row)
    chosen = chosen[:3]
    with tempfile.TemporaryDirectory() as folder:
        joined = Path(folder) / f"{' '.join(row['label'] for row in chosen)}.mp4"
        join([args.videos / row["path"] for row in chosen], joined)
        prediction = Predictor(args.run).predict_file(joined, hop_sec=0.5)
        draw_timeline(prediction, args.out, number=5)
    print(f"wrote {args.out}")
    return 0


def join(paths: list[Path], out: Path) -> None:
    """Writes videos one after another; all of one size and rate."""
    frames, sound, rate_hz, sample_rate_hz = [], [], 0, 0
    for path in paths:
        with av.open(str(path)) as container:
            rate_hz = round(container.streams.video[0].average_rate)
            pictures = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        with av.open(str(path)) as container:
            sample_rate_hz = container.streams.audio[0].rate
            heard = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
        # As long as the pictures: the encoder has added some silence.
        samples = round(len(pictures) / rate_hz * sample_rate_hz)
        frames += pictures
        sound.append(np.pad(heard, (0, max(0, samples - len(heard))))[:samples])
    write_mp4(
        out,
        np.stack(frames),
        np.concatenate(sound).astype(np.float32),
        frame_rate_hz=rate_hz,
        sample_rate_hz=sample_rate_hz,
    )


if __name__ == "__main__":
    sys.exit(main())
