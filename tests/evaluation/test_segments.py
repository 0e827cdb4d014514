"""Scores of detected spans: values computed by hand."""

import math

import numpy as np
import pytest

from avt_jax.errors import UserError
from avt_jax.evaluation.segments import active_frames, read_truth, score, summarize


def test_frames_belong_to_the_span_that_holds_their_middle():
    active = active_frames([(0.014, 0.026), (0.05, 0.06)], 7)
    np.testing.assert_array_equal(np.flatnonzero(active), [1, 2, 5])
    np.testing.assert_array_equal(np.flatnonzero(active_frames([(0.016, 0.026)], 7)), [2])
    assert not active_frames([], 5).any()


def test_hand_computed_scores():
    # True 20 + 30 frames; found 20 (10 of them right) + 30 (all right).
    result = score([(0.3, 0.5), (1.0, 1.3)], [(0.2, 0.4), (1.0, 1.3)], duration_sec=2.0)
    assert result.frame == (2 * 40, 50 + 50)
    assert result.segment == (2 * 2, 2 + 2)  # 100 ms late is still within the tolerance
    np.testing.assert_allclose(result.onset_error_sec, [0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(result.offset_error_sec, [0.1, 0.0], atol=1e-12)
    stricter = score(
        [(0.3, 0.5), (1.0, 1.3)], [(0.2, 0.4), (1.0, 1.3)], duration_sec=2.0, tolerance_sec=0.09
    )
    assert stricter.segment == (2 * 1, 2 + 2)


def test_a_segment_needs_both_ends_right():
    late_offset = score([(0.2, 0.8)], [(0.2, 0.6)], duration_sec=1.0)
    assert late_offset.segment == (0, 2)
    assert late_offset.frame == (2 * 40, 60 + 40)
    np.testing.assert_allclose(late_offset.offset_error_sec, [0.2], atol=1e-12)


def test_spans_are_paired_one_to_one_by_shared_time():
    # The second true span shares more with what was found; the first has no partner.
    merged = score([(0.2, 1.0)], [(0.2, 0.4), (0.5, 1.0)], duration_sec=1.0)
    np.testing.assert_allclose(merged.onset_error_sec, [-0.3], atol=1e-12)
    assert (merged.num_detected, merged.num_true) == (1, 2)
    apart = score([(0.0, 0.1)], [(0.5, 0.6)], duration_sec=1.0)
    assert len(apart.onset_error_sec) == 0 and apart.segment == (0, 2)


def test_the_largest_pairing_counts_not_the_first():
    # The first found span fits both true ones, the second only the first.
    found, true = [(0.50, 1.00), (0.41, 0.91)], [(0.50, 1.00), (0.58, 1.08)]
    assert score(found, true, duration_sec=2.0).segment == (2 * 2, 4)


def test_summary_adds_up_before_it_divides():
    scores = [
        score([(0.0, 0.5)], [(0.0, 0.5)], duration_sec=1.0),
        score([], [(0.2, 0.4)], duration_sec=1.0),
        score([(0.1, 0.3)], [(0.08, 0.34)], duration_sec=1.0),
    ]
    summary = summarize(scores)
    assert summary["frame_f1"] == pytest.approx((100 + 0 + 40) / (100 + 20 + 46))
    assert summary["segment_f1"] == pytest.approx((2 + 0 + 2) / (2 + 1 + 2))
    assert summary["onset_error_ms_median"] == pytest.approx(10)
    assert summary["onset_error_ms_p90"] == pytest.approx(18)
    assert summary["offset_error_ms_median"] == pytest.approx(20)
    assert (summary["num_true"], summary["num_detected"], summary["num_matched"]) == (3, 2, 2)


def test_nothing_there_and_nothing_found_has_no_score():
    summary = summarize([score([], [], duration_sec=1.0)])
    assert math.isnan(summary["frame_f1"]) and math.isnan(summary["onset_error_ms_p90"])
    assert summarize([])["num_true"] == 0


@pytest.mark.parametrize("span", [(0.5, 0.5), (1.0, 0.2), (0.1, math.nan)])
def test_bad_spans_are_refused(span):
    with pytest.raises(ValueError, match="onset < offset"):
        score([span], [], duration_sec=1.0)


def test_truth_is_read_per_path(tmp_path):
    table = tmp_path / "events.csv"
    table.write_text("path,onset_sec,offset_sec,kind\na.mp4,0.5,1\nb.mp4,2,3.5,x\na.mp4,2,2.5\n")
    assert read_truth(table) == {"a.mp4": [(0.5, 1.0), (2.0, 2.5)], "b.mp4": [(2.0, 3.5)]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,onset\na,1\n", "no column 'onset_sec'"),
        (b"", "no column 'path'"),
        (b"path,onset_sec,offset_sec\na,1,2\na,3,2\n", "line 3: 3 to 2 is no span"),
        (b"path,onset_sec,offset_sec\na,1\n", "line 2"),
        (b"path,onset_sec,offset_sec\na,nan,2\n", "line 2"),
        (b"\xff\xfe\x00path", "no CSV in UTF-8"),
    ],
)
def test_a_bad_table_is_named(tmp_path, content, message):
    table = tmp_path / "events.csv"
    table.write_bytes(content)
    with pytest.raises(UserError, match=f"events.csv.*{message}"):
        read_truth(table)
    with pytest.raises(UserError, match="cannot read .*missing.csv"):
        read_truth(tmp_path / "missing.csv")
