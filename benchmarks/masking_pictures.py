"""The picture of docs/masking.md, and its table of how much each strategy hides.

    python benchmarks/masking_pictures.py [--out docs/images/masking.png] [--clips 512]

Clips are AV-Events' (test split, seed 0, 4 s), patches AST's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from avt_jax.audio import melspec
from avt_jax.audio.activity import ActivityConfig, activity_ids
from avt_jax.audio.masking import STRATEGIES, MaskingConfig, PatchGrid, hide_activities, hide_audio
from avt_jax.data.av_events.audio import synthesize_audio
from avt_jax.data.av_events.render import SAMPLE_RATE_HZ, specify_clips

FRAMES, BINS = 400, 128
GRIDS = {
    stride: PatchGrid((BINS - 16) // stride + 1, (FRAMES - 16) // stride + 1, stride, stride)
    for stride in (16, 10)
}
SHOWN, KEY = 16, 12  # a clip with three sounds, and a key that hides one or two of them
ACTIVITY = ActivityConfig()


def spectrograms(count: int) -> np.ndarray:
    """[count, s, f] raw log-mel of AV-Events' first clips; 4 s make 398 frames, the rest is 0.0."""
    found = np.zeros((count, FRAMES, BINS), np.float32)
    specs = specify_clips(num_train=0, num_val=0, num_test=count, seed=0)
    for fbank_sf, spec in zip(found, specs, strict=True):
        rng = np.random.default_rng([*spec.seed_parts, 1])
        waveform, _ = synthesize_audio(
            spec.kind, rng, clip_sec=spec.clip_sec, sample_rate_hz=SAMPLE_RATE_HZ
        )
        values = melspec.fbank(waveform)
        fbank_sf[: len(values)] = values
    return found


def pixels(masked_m: np.ndarray, grid: PatchGrid) -> np.ndarray:
    """[s, f]: 0 where all patches are visible, 1 where some are hidden, 2 where all are."""
    hidden, visible = np.zeros((2, FRAMES, BINS), bool)
    for place, masked in enumerate(masked_m):
        row, column = divmod(place, grid.time)
        frame, mel = column * grid.time_stride, row * grid.frequency_stride
        patch = (slice(frame, frame + grid.size), slice(mel, mel + grid.size))
        (hidden if masked else visible)[patch] = True
    return np.where(hidden, np.where(visible, 1, 2), 0)


def panels(fbank_bsf: np.ndarray) -> list[tuple[str, np.ndarray | None]]:
    """(title, what `pixels` gives or None) of every part of the picture, for one clip."""
    key, found = jax.random.key(KEY), [("the clip; lines: detected activities", None)]

    def add(title, hidden, grid):
        found.append((title, pixels(np.asarray(hidden[0][0]), grid)))

    for stride, grid in GRIDS.items():
        hidden = hide_audio(fbank_bsf, key, grid=grid, config=MaskingConfig(), activity=ACTIVITY)
        add(f"activity, patches every {stride}", hidden, grid)
    grid = GRIDS[16]
    nothing = np.zeros(fbank_bsf.shape[:2], np.int32)
    add("activity when none is found", hide_activities(nothing, key, grid=grid, ratio=0.5), grid)
    for name in ("random", "time", "frequency", "time_frequency"):
        config = MaskingConfig(strategy=name)
        add(name, hide_audio(fbank_bsf, key, grid=grid, config=config, activity=ACTIVITY), grid)
    return found


def draw(path: Path, fbank_bsf: np.ndarray) -> None:
    """Draws and writes the picture of one clip."""
    ids_s = np.asarray(activity_ids(fbank_bsf, ACTIVITY)[0])
    figure = Figure(figsize=(13, 5.6), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    shades = ListedColormap([(0, 0, 0, 0), (0.82, 0.84, 0.87, 0.55), (0.82, 0.84, 0.87, 1)])
    all_axes = figure.subplots(2, 4, sharex=True, sharey=True)
    for axes, (title, shade) in zip(all_axes.flat, panels(fbank_bsf), strict=True):
        box = dict(origin="lower", aspect="auto", extent=(0, FRAMES / 100, 0, BINS))
        rows = np.where(fbank_bsf[0].any(-1, keepdims=True), fbank_bsf[0], np.nan)
        axes.imshow(rows.T, cmap="magma", vmin=-14, vmax=2, **box)
        if shade is None:
            for number in range(1, ids_s.max() + 1):
                active = np.flatnonzero(ids_s == number)
                for edge in (active[0], active[-1] + 1):
                    axes.axvline(edge / 100, color="#22d3ee", linewidth=1.3)
        else:
            axes.imshow(shade.T, cmap=shades, vmin=0, vmax=2, interpolation="nearest", **box)
        axes.set_title(title, fontsize=10)
    for axes in all_axes[:, 0]:
        axes.set_ylabel("mel bin")
    for axes in all_axes[-1]:
        axes.set_xlabel("seconds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=85)


def table(fbank_bsf: np.ndarray) -> list[str]:
    """Lines of Markdown: the share of patches that each strategy hides at its defaults."""
    lines = [
        "| strategy | stride | mean | 5th percentile | 95th | above the ratio | fallback |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in STRATEGIES:
        for stride, grid in GRIDS.items():
            masked_bm, fallback_b = hide_audio(
                fbank_bsf,
                jax.random.key(0),
                grid=grid,
                config=MaskingConfig(strategy=name),
                activity=ACTIVITY,
            )
            share_b = np.asarray(masked_bm).mean(-1)
            low, high = np.percentile(share_b, (5, 95))
            lines.append(
                f"| {name} | {stride} | {share_b.mean():.3f} | {low:.2f} | {high:.2f} "
                f"| {(share_b > 0.5).mean():.1%} | {np.mean(fallback_b):.1%} |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("docs/images/masking.png"))
    parser.add_argument("--clips", type=int, default=512, help=f"for the table, above {SHOWN}")
    options = parser.parse_args()
    fbank_bsf = spectrograms(options.clips)
    draw(options.out, fbank_bsf[SHOWN : SHOWN + 1])
    print("\n".join(table(fbank_bsf)))


if __name__ == "__main__":
    main()
