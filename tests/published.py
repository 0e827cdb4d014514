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


AUDIOSET_CLASSES = [
    ("/m/09x0r", "Speech"),
    ("/m/05zppz", "Male speech, man speaking"),
    ("/m/04rlf", "Music"),
    ("/m/0bt9lr", "Dog"),
    ("/m/07qfr4h", "Speech synthesizer"),
]


def write_audioset(path: Path, rows) -> Path:
    """Rows of (id, start, end, [mid]) behind three comments, spaces and quotes as published."""
    found = {mid for *_, mids in rows for mid in mids}
    lines = [
        "# Segments csv created Sun Mar  5 10:54:31 2017",
        f"# num_ytids={len(rows)}, num_segs={len(rows)}, num_unique_labels={len(found)}, "
        f"num_positive_labels={sum(len(mids) for *_, mids in rows)}",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    lines += [f'{i}, {start:.3f}, {end:.3f}, "{",".join(mids)}"' for i, start, end, mids in rows]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_audioset_classes(path: Path) -> Path:
    """`class_labels_indices.csv`: index, mid and name, the name in quotes."""
    lines = [f'{i},{mid},"{name}"' for i, (mid, name) in enumerate(AUDIOSET_CLASSES)]
    path.write_text("\n".join(["index,mid,display_name", *lines]) + "\n")
    return path


def write_vggsounder(path: Path, rows) -> Path:
    """Rows of (id_start, label, modality); one for each label of a clip."""
    header = ["video_id", "label", "modality", "background_music", "static_image", "voice_over"]
    return write_csv(path, [(*row, "False", "False", "True") for row in rows], header)
