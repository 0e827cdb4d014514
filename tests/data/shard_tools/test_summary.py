"""Summaries count what is there; the contact sheet shows it."""

import numpy as np
import pytest

from avt_jax.cli.data import inspect
from avt_jax.data import records
from avt_jax.data.records.writer import RecordWriter
from avt_jax.data.shard_tools import contact_sheet, summary
from avt_jax.errors import UserError


def test_summary_counts(shards):
    result = summary.summarize(shards)
    train, val = result.splits["train"], result.splits["val"]
    assert (train.num_clips, train.num_sources, train.num_without_audio) == (3, 3, 1)
    assert (val.num_clips, val.num_sources, val.num_without_audio) == (1, 1, 0)
    assert train.class_counts["label"] == {0: 1, 1: 2} and val.class_counts["label"] == {0: 1}
    assert train.frame_sizes == {(48, 48): 3}
    assert train.shortest_sec == pytest.approx(0.7) and 1.0 <= train.longest_sec < 1.2
    assert result.failures == {"not_media": 1}
    assert len(result.shared_sources) == 1 and result.shared_sources[0].endswith("b.mp4")
    assert train.num_bytes == sum(p.stat().st_size for p in shards.glob("*-train.*"))


def test_fbank_statistics_are_those_of_the_training_split(shards):
    result = summary.summarize(shards)
    values = np.concatenate(
        [clip["fbank"].astype(np.float64).ravel() for clip in records.open_split(shards, "train")]
    )
    np.testing.assert_allclose(result.fbank_mean, values.mean(), rtol=1e-9)
    np.testing.assert_allclose(result.fbank_std, values.std(), rtol=1e-9)


def make_shards(folder, labels, *, frames, fbank=None, flags=lambda index: []):
    writer = RecordWriter(
        folder, label_sets={"label": ("$a$", "b", "c")}, frame_rate_hz=4, short_side_px=16
    )
    fbank = np.zeros((0, 128), np.float16) if fbank is None else fbank
    for index, label in enumerate(labels):
        writer.add(
            "test",
            {
                "id": f"{index}",
                "source": "$x_{.mp4",
                "frames": frames,
                "frame_rate_hz": 4.0,
                "fbank": fbank,
                "has_audio": len(fbank) > 0,
                "start_sec": 0.0,
                "end_sec": 1.0,
                "flags": flags(index),
                "labels": {"label": label},
            },
        )
    writer.close()
    return records.open_split(folder, "test")


@pytest.fixture
def frame(rng):
    import simplejpeg

    return simplejpeg.encode_jpeg(rng.integers(0, 255, (16, 24, 3), dtype=np.uint8))


def test_no_sound_at_all_has_no_statistics(tmp_path, frame):
    make_shards(tmp_path, [0], frames=[frame])
    result = summary.summarize(tmp_path)
    assert result.fbank_mean is None and result.fbank_std is None


def test_flags_are_counted_and_printed(tmp_path, frame, capsys):
    make_shards(
        tmp_path, [0] * 5, frames=[frame], flags=lambda i: ["still_video", "short"][: (i + 1) % 3]
    )
    counts = summary.summarize(tmp_path).splits["test"].flag_counts
    assert counts == {"still_video": 4, "short": 2}
    assert inspect.main([str(tmp_path), "--num-clips", "0"]) == 0
    assert "flags of test: still_video 4, short 2" in capsys.readouterr().out


def test_chosen_clips_cover_the_classes(tmp_path, frame):
    source = make_shards(tmp_path, [0, 0, 0, 0, 1, 1, 2], frames=[frame])
    assert contact_sheet.choose_clips(source, 3) == [0, 4, 6]
    assert contact_sheet.choose_clips(source, 2) == [0, 6]
    assert contact_sheet.choose_clips(source, 5) == [0, 1, 4, 5, 6]
    assert contact_sheet.choose_clips(source, 50) == list(range(7))


def png_size(path):
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


def test_damaged_frame_and_unwritable_picture(tmp_path, frame):
    (tmp_path / "s").mkdir()
    source = make_shards(tmp_path / "s", [0], frames=[b"no jpeg"])
    with pytest.raises(UserError, match="frame 0 of clip 0 is damaged"):
        contact_sheet.save_contact_sheet(source, [0], tmp_path / "sheet.png", title="t")
    with pytest.raises(UserError, match="its first frame cannot be read"):
        summary.summarize(tmp_path / "s")
    assert not (tmp_path / "sheet.png").exists()
    (tmp_path / "g").mkdir()
    good = make_shards(tmp_path / "g", [0], frames=[frame])
    with pytest.raises(UserError, match="cannot write"):
        contact_sheet.save_contact_sheet(good, [0], tmp_path / "no" / "sheet.png", title="t")
