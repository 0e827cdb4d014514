"""A few rows of each data set's annotation files, in the columns that their authors publish."""

from __future__ import annotations

import csv
from pathlib import Path

EPIC_HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,"
    "start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes"
).split(",")
KINETICS_HEADER = ["label", "youtube_id", "time_start", "time_end", "split"]


def write_csv(path: Path, rows, header=None) -> Path:
    """Writes rows, under a header if there is one; returns the path."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows(([header] if header else []) + list(rows))
    return path


def write_vggsound(path: Path, rows) -> Path:
    """Rows of (id, start, label, split); the label in quotes, as published, and no header."""
    path.write_text("".join(f'{i},{start},"{label}",{split}\n' for i, start, label, split in rows))
    return path


def epic_row(video, number, start, stop, verb, noun):
    """A row from ids, times in s, and (word, class index) of verb and noun."""
    clock = [f"{int(t // 3600):02d}:{int(t // 60) % 60:02d}:{t % 60:05.2f}" for t in (start, stop)]
    return [
        f"{video}_{number}", video.split("_")[0], video, f"{clock[0]}0", *clock,
        round(start * 50), round(stop * 50), f"{verb[0]} {noun[0]}", *verb, *noun,
        f"['{noun[0]}']", f"[{noun[1]}]",
    ]  # fmt: skip


def write_epic(path: Path, rows) -> Path:
    """Rows of `epic_row` under the published header."""
    return write_csv(path, rows, EPIC_HEADER)


def write_kinetics(path: Path, rows) -> Path:
    """Rows of (label, id, start, end, split) under the published header."""
    return write_csv(path, rows, KINETICS_HEADER)


def touch(folder: Path, *names: str) -> Path:
    """Makes files that hold their own name; returns the folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder
