"""The metrics of a run are read past every line that is not ours."""

import pytest

from avt_jax.errors import UserError
from avt_jax.host.metric_lines import read_metrics

OURS = '{"step": 1, "split": "train", "loss": 2.0}'


def test_without_a_file(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize(
    "foreign",
    [
        "",
        "3",
        "null",
        "[1]",
        '"step"',
        '{"step": 2, "spl',
        '{"step": 2}',
        '{"split": "train"}',
        '{"step": "2", "split": "train"}',
        '{"step": true, "split": "train"}',
        '{"step": 2, "split": ["train"]}',
        "[" * 100_000,
        "9" * 5000,
        "\0\ufffd",
    ],
    ids=lambda text: text[:20] or "empty",
)
def test_foreign_lines_are_passed_over(tmp_path, foreign):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([OURS, foreign, OURS, foreign]))
    assert read_metrics(path) == [{"step": 1, "split": "train", "loss": 2.0}] * 2


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "split": "val", "a": "1", "b": [2], "c": null, "d": 0.5}\n')
    assert read_metrics(path) == [{"step": 1, "split": "val", "d": 0.5}]


def test_bytes_of_no_text_and_a_folder(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(OURS.encode() + b"\n\xff\xfe\x00\n" + OURS.encode())
    assert len(read_metrics(path)) == 2
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="cannot read .*folder"):
        read_metrics(tmp_path / "folder")
