import json

import numpy as np
from rich.console import Console

from avt_jax.inference import report, timeline
from avt_jax.inference.prediction import FilePrediction, Window, top_classes
from avt_jax.inference.windows import Preview

SETS = {"verb": ("cut", "[b]open", "wash"), "noun": ("$egg$", "pan")}
VERB, NOUN = np.array([0.2, 0.5, 0.3], np.float32), np.array([0.4, 0.6], np.float32)


def predicted(number=3, *, sound=True, picture=True, sets=SETS):
    found = {"verb": VERB, "noun": NOUN}
    windows = tuple(
        Window(4.0 * i, 4.0 * i + 4, {name: np.roll(found[name], i // 2) for name in sets})
        for i in range(number)
    )
    frames = (np.full((20, 30, 3), 90, np.uint8), None, np.full((20, 30, 3), 200, np.uint8))
    fbank_sf = np.full((50, 128), -5.0 if sound else np.nan, np.float32)
    return FilePrediction(
        path="folder/[red]a\x1b.mp4",
        duration_sec=4.0 * number,
        has_audio=sound,
        has_video=picture,
        label_sets=dict(sets),
        windows=windows,
        overall={name: np.mean([w.probabilities[name] for w in windows], axis=0) for name in sets},
        preview=Preview(frames, fbank_sf),
    )


def rendered(item):
    console = Console(width=140)
    with console.capture() as capture:
        console.print(item)
    return capture.get()


def test_top_classes_and_action():
    top = top_classes({"verb": VERB, "noun": NOUN}, SETS, 3)
    assert [name for name, _ in top["verb"]] == ["[b]open", "wash", "cut"]
    names, scores = zip(*top["action"], strict=True)
    assert names == ("[b]open + pan", "[b]open + $egg$", "wash + pan")
    np.testing.assert_allclose(scores, [0.30, 0.20, 0.18], rtol=1e-6)
    assert set(top_classes({"verb": VERB}, {"verb": SETS["verb"]}, 1)) == {"verb"}


def test_to_dict_is_json():
    document = json.loads(json.dumps(predicted().to_dict(2), allow_nan=False))
    assert document["top"]["action"][0]["class"] == "[b]open + pan"
    assert len(document["top"]["verb"]) == 2
    verb, action = document["top"]["verb"][0], document["top"]["action"][1]
    assert (verb["index"], verb["class"]) == (1, "[b]open") and verb["probability"] > 0.3
    assert (
        SETS["verb"][action["index"][0]] + " + " + SETS["noun"][action["index"][1]]
        == (action["class"])
    )
    assert [w["start_sec"] for w in document["windows"]] == [0, 4, 8]
    assert document["windows"][2]["top"]["noun"][0]["class"] == "$egg$"


def test_tables():
    prediction = predicted(sound=False)
    line = rendered(report.heading(prediction))
    assert "[red]a\\x1b.mp4  0:12.0  no sound" in line and "no picture" not in line
    assert "no picture, judged by the sound" in rendered(report.heading(predicted(picture=False)))
    text = rendered(report.file_table(prediction, 5))
    assert "[b]open" in text and "action" in text
    rows = [line for line in rendered(report.window_table(prediction)).splitlines() if "0:" in line]
    assert len(rows) == 2  # the first two windows agree
    assert (
        "0:00.0" in rows[0] and "0:08.0" in rows[0] and "[b]open  " in rows[0] and "pan" in rows[0]
    )
    assert "0:08.0" in rows[1] and "0:12.0" in rows[1] and "wash" in rows[1] and "$egg$" in rows[1]
    assert report.window_table(predicted(1)) is None


def test_long_window_table_is_cut():
    text = rendered(report.window_table(predicted(200)))
    assert text.count("0:0") and "and 60 more changes" in text


def test_clock():
    assert timeline.clock(4.06) == "0:04.1" and timeline.clock(59.96) == "1:00.0"
    assert timeline.clock(3725.0, with_fraction=False) == "1:02:05"


def test_window_edges_share_overlaps_and_leave_holes():
    assert timeline.window_edges([(0, 4), (3, 7), (8, 12)]) == [(0, 3.5), (3.5, 7), (8, 12)]
