"""The contact sheet shows the clips it was given: frames, sound and names, each in its place."""

import matplotlib
import numpy as np
import pytest
import simplejpeg
from pictures import (
    colliding,
    cut_off,
    figures_fixture,  # noqa: F401
    has_blank_edge,
    like,
    read_png,
    region,
    shown_texts,
    span,
)

from avt_jax.data import records
from avt_jax.data.records.writer import RecordWriter
from avt_jax.data.shard_tools import contact_sheet

COLOURS = [(220, 20, 20), (20, 200, 20), (20, 20, 220), (200, 200, 20)]
LONG = "WWW a name of a class, $\\frac{, that goes on beyond every place there is for it"


def jpeg(colour, height_px=40, width_px=60):
    return simplejpeg.encode_jpeg(np.full((height_px, width_px, 3), colour, np.uint8), quality=95)


def burst():
    """2 s of quiet; loud in the second half of the lower half of the bins."""
    fbank_sf = np.full((200, 128), -12.0, np.float16)
    fbank_sf[100:, :64] = 2.0
    return fbank_sf


def opened(folder, labels, *, classes=("$a$", "b", "c"), source="$x_{.mp4", fbank=None):
    """A split of clips of 2 s at 4 frames/s, whose frames are of four colours in turn."""
    folder.mkdir()
    writer = RecordWriter(folder, label_sets={"label": classes}, frame_rate_hz=4, short_side_px=40)
    fbank = np.zeros((0, 128), np.float16) if fbank is None else fbank
    for index, label in enumerate(labels):
        writer.add(
            "test",
            {
                "id": f"{index}",
                "source": source,
                "frames": [jpeg(colour) for colour in COLOURS for _ in range(2)],
                "frame_rate_hz": 4.0,
                "fbank": fbank,
                "has_audio": len(fbank) > 0,
                "start_sec": 1.5 + index,
                "end_sec": 3.5 + index,
                "flags": [],
                "labels": {"label": label},
            },
        )
    writer.close()
    return records.open_split(folder, "test")


def drawn(tmp_path, figures, source, indices, title="a title"):
    """(figure, the file it was saved in, as RGB)."""
    contact_sheet.save_contact_sheet(source, indices, tmp_path / "sheet.png", title=title)
    return figures[-1], read_png(tmp_path / "sheet.png")


def test_two_clips_a_row(shards, tmp_path, figures):
    source = records.open_split(shards, "train")
    (_, one), (figure, three) = (drawn(tmp_path, figures, source, range(n)) for n in (1, 3))
    assert three.shape[1] > 1.8 * one.shape[1] and three.shape[0] > 1.7 * one.shape[0]
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    strips = [axes.get_window_extent() for axes in figure.axes[::2]]
    assert strips[0].y0 == strips[1].y0 > strips[2].y0 and strips[0].x0 == strips[2].x0
    # Rendered test videos and their tones: nothing is flat, but the clip without sound is.
    for axes, record in zip(figure.axes[1::2], (source[n] for n in range(3)), strict=True):
        assert (region(figure, axes).std() > 0.05) == record["has_audio"]
    for axes in figure.axes[::2]:
        assert region(figure, axes).std() > 0.05


def test_frames_and_sound_lie_on_one_time_axis(tmp_path, figures):
    figure, image_hwc = drawn(tmp_path, figures, opened(tmp_path / "s", [0], fbank=burst()), [0])
    assert image_hwc.shape[:2] == (int(figure.bbox.height), int(figure.bbox.width))
    assert has_blank_edge(image_hwc)
    strip, sound = (region(figure, axes) for axes in figure.axes)
    middle_wc = strip[len(strip) // 2]
    for place, colour in zip((0.15, 0.4, 0.65, 0.9), COLOURS, strict=True):
        seen = middle_wc[int(place * len(middle_wc))]
        np.testing.assert_allclose(seen, np.array(colour) / 255, atol=0.05)
    loud = like(sound, matplotlib.colormaps["magma"](1.0)[:3])
    assert span(loud, 1) == pytest.approx(np.array([0.5, 1.0]) * loud.shape[1], abs=6)
    assert span(loud, 0) == pytest.approx(np.array([0.5, 1.0]) * loud.shape[0], abs=3)


def test_what_is_written(tmp_path, figures):
    figure, _ = drawn(tmp_path, figures, opened(tmp_path / "s", [0, 2]), [0, 1], title="$\\frac{")
    written = [text.get_text() for text, _ in shown_texts(figure)]
    for text in ("$\\frac{", "$a$", "c", "$x_{.mp4   1.50 to 3.50 s", "$x_{.mp4   2.50 to 4.50 s"):
        assert written.count(text) == 1, text
    assert written.count("no audio") == 2
    assert cut_off(figure) == [] and colliding(figure) == []


@pytest.mark.parametrize("number", [1, 2])
def test_long_names_share_the_header(tmp_path, figures, number):
    source = opened(
        tmp_path / "s", range(number), classes=(LONG, LONG + "b"), source=f"folder/{LONG * 3}.mp4"
    )
    figure, image_hwc = drawn(tmp_path, figures, source, range(number), title=f"{LONG * 3} at/path")
    assert has_blank_edge(image_hwc) and cut_off(figure) == [] and colliding(figure) == []
    written = [text.get_text() for text, _ in shown_texts(figure)]
    # Of a class its start is kept, of a path its end.
    assert any(text.startswith("WWW a name of a class, $") for text in written)
    assert any(
        text.startswith("…") and text.endswith(" it.mp4   1.50 to 3.50 s") for text in written
    )
    assert any(text.startswith("…") and text.endswith("at/path") for text in written)


def test_sound_of_one_value(tmp_path, figures):
    constant = np.full((1, 128), -15.94, np.float16)
    figure, image_hwc = drawn(tmp_path, figures, opened(tmp_path / "s", [0], fbank=constant), [0])
    assert has_blank_edge(image_hwc) and "no audio" not in [
        t.get_text() for t, _ in shown_texts(figure)
    ]


@pytest.mark.parametrize("aspect", [0.5, 1.5, 3.0])
def test_crop_middle_keeps_the_middle(aspect):
    image_hwc = np.zeros((40, 60, 3), np.uint8)
    image_hwc[15:25, 25:35] = 255
    cropped = contact_sheet.crop_middle(image_hwc, aspect)
    height, width = cropped.shape[:2]
    assert width / height == pytest.approx(aspect, rel=0.05) and (height == 40 or width == 60)
    assert (cropped == 255).sum() == (image_hwc == 255).sum()
    assert (cropped == cropped[::-1, ::-1]).all()
