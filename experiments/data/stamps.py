"""Makes a folder of real clips from the pictures and recordings of Tux Paint's stamps.

    apt-get download tuxpaint-stamps-default && dpkg-deb -x tuxpaint-stamps-default_*.deb stamps
    python experiments/data/stamps.py --stamps stamps/usr/share/tuxpaint/stamps --out stamps_clips

Photographs and drawings with recordings, a sound effect or the thing's name in one of a dozen
languages. Each of the 8 largest categories gives up to 66 pictures, each picture four clips of 3 s,
panned and zoomed before a plain background, each with another recording. The class is the
category: seen in the picture, and heard only by who knows the words. Clips of one picture share
the part of their name before `__`:

    stamps_clips/animals/cow__fr.mp4

so `avt manifest stamps_clips --group-by '(.+)__'` keeps a picture in one split. The package is
free software (GPL-2; tried with 2022.06.04-1 of Debian 12); what is made of it is not committed.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections import defaultdict
from pathlib import Path

import av
import cv2
import numpy as np
from tqdm import tqdm

from avt_jax.data.av_events.dataset import SAMPLE_RATE_HZ, write_mp4

CLIP_SEC, FRAME_RATE_HZ, SIDE_PX = 3.0, 8, 96
CATEGORIES, PICTURES, CLIPS = 8, 66, 4
SEED = 0


def main() -> int:
    """Renders all clips."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--stamps", type=Path, default=Path("/usr/share/tuxpaint/stamps"), help="package's folder")
    add("--out", type=Path, required=True, help="new folder")
    args = parser.parse_args()
    if not args.stamps.is_dir():
        parser.error(f"no folder {args.stamps}; install tuxpaint-stamps-default, or unpack it")
    if args.out.exists():
        parser.error(f"{args.out} exists; give another folder")
    chosen = choose(args.stamps)
    for category, pictures in chosen.items():
        for picture, recordings in tqdm(pictures.items(), desc=category, unit="picture"):
            (args.out / category).mkdir(parents=True, exist_ok=True)
            name = re.sub(
                r"\W+", "_", picture.relative_to(args.stamps / category).with_suffix("").as_posix()
            )
            for kind, recording in recordings.items():
                render(picture, recording, args.out / category / f"{name}__{kind}.mp4")
    pictures = sum(map(len, chosen.values()))
    print(f"{len(chosen)} classes, {pictures} pictures, {pictures * CLIPS} clips in {args.out}")
    return 0


def choose(stamps: Path) -> dict[str, dict[Path, dict[str, Path]]]:
    """{category: {picture: {kind of recording: file}}}; who is taken depends on the names only."""
    found: dict[str, dict[Path, dict[str, Path]]] = defaultdict(dict)
    for picture in sorted(stamps.rglob("*.png")):
        recordings = recordings_of(picture)
        if len(recordings) >= CLIPS and not picture.stem.endswith(("_mirror", "_flip")):
            kinds = sorted(recordings, key=lambda kind: order(f"{picture.name} {kind}"))
            # A sound effect is the thing's own: it is always taken.
            kinds.sort(key=lambda kind: kind != "effect")
            category = picture.relative_to(stamps).parts[0]
            found[category][picture] = {kind: recordings[kind] for kind in kinds[:CLIPS]}
    # Letters and numbers are no things.
    found.pop("symbols", None)
    largest = sorted(found, key=lambda category: -len(found[category]))[:CATEGORIES]
    return {
        category: dict(
            sorted(found[category].items(), key=lambda item: order(item[0].name))[:PICTURES]
        )
        for category in sorted(largest)
    }


def recordings_of(picture: Path) -> dict[str, Path]:
    """{"effect", "en", "fr", ...: file}."""
    found = {}
    for path in sorted(picture.parent.glob("*.ogg")):
        match = re.fullmatch(rf"{re.escape(picture.stem)}(_desc(_(\w+))?)?\.ogg", path.name)
        if match:
            found["effect" if not match[1] else match[3] or "en"] = path
    return found


def order(name: str) -> str:
    """Shuffles by name, the same on every machine."""
    return hashlib.sha256(f"{SEED} {name}".encode()).hexdigest()


def render(picture: Path, recording: Path, out: Path) -> None:
    """One clip."""
    rng = np.random.default_rng(int(order(out.name)[:16], 16))
    image_hwc = cv2.imread(str(picture), cv2.IMREAD_UNCHANGED)
    if image_hwc.ndim == 2 or image_hwc.shape[2] == 3:
        image_hwc = cv2.cvtColor(
            image_hwc, cv2.COLOR_GRAY2BGRA if image_hwc.ndim == 2 else cv2.COLOR_BGR2BGRA
        )
    frames = draw(image_hwc, rng)
    write_mp4(out, frames, sound(recording, rng), frame_rate_hz=FRAME_RATE_HZ)


def draw(image_bgra: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[t, h, w, 3] uint8: the picture moves and grows evenly before one colour."""
    height, width = image_bgra.shape[:2]
    colour = rng.uniform(90, 255, 3)
    count = round(CLIP_SEC * FRAME_RATE_HZ)
    sizes = np.linspace(*rng.uniform(0.55, 1.05, 2), count) * SIDE_PX
    xs, ys = (SIDE_PX * np.linspace(*rng.uniform(0.35, 0.65, 2), count) for _ in range(2))
    frames = []
    for size, x, y in zip(sizes, xs, ys, strict=True):
        scale = size / max(height, width)
        matrix = np.array([[scale, 0, x - scale * width / 2], [0, scale, y - scale * height / 2]])
        # Colours are weighted before they are averaged: what is transparent has none.
        weighted = image_bgra.astype(np.float32)
        weighted[..., :3] *= weighted[..., 3:] / 255
        placed = cv2.warpAffine(weighted, matrix, (SIDE_PX, SIDE_PX), flags=cv2.INTER_AREA)
        alpha = placed[..., 3:] / 255
        frames.append(np.clip(placed[..., 2::-1] + (1 - alpha) * colour, 0, 255))
    return np.stack(frames).round().astype(np.uint8)


def sound(path: Path, rng: np.random.Generator) -> np.ndarray:
    """[n] float32 in [-1, 1] at 16 kHz: the recording, from a random moment on, and faint noise."""
    total = round(CLIP_SEC * SAMPLE_RATE_HZ)
    with av.open(str(path)) as container:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE_HZ)
        parts = [
            part.to_ndarray().ravel()
            for frame in [*container.decode(audio=0), None]
            for part in resampler.resample(frame)
        ]
    recorded = np.concatenate(parts)[:total] if parts else np.zeros(0)
    start = int(rng.uniform(0, total - len(recorded) + 1))
    mixed = rng.normal(0, 10 ** rng.uniform(-3.5, -2.5), total)
    mixed[start : start + len(recorded)] += recorded * 10 ** rng.uniform(-0.3, 0.0)
    return np.clip(mixed, -1, 1).astype(np.float32)


if __name__ == "__main__":
    sys.exit(main())
