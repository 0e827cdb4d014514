"""What the outermost parts of Ogg and ASF files say of their being whole."""

from __future__ import annotations

import media_kinds as kinds
import pytest

from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.media import whole
from avt_jax.data.media.container import DecodeError

CONFIG = ExtractConfig(frame_rate_hz=10, short_side_px=48)


def make(path):
    return make_record(path, None, None, config=CONFIG, id="x", source="x")


def page_starts(data):
    return [place for place in range(len(data)) if data[place : place + 5] == b"OggS\0"]


@pytest.fixture(scope="module")
def ogg(tmp_path_factory):
    return kinds.both(tmp_path_factory.mktemp("whole") / "good.ogg")


@pytest.fixture(params=["all of it is read", "its end is read"])
def sizes(request, monkeypatch):
    if request.param == "its end is read":
        monkeypatch.setattr(whole, "_SMALL_OGG_BYTES", 1000)
        monkeypatch.setattr(whole, "_MAX_OGG_PAGE_BYTES", 60_000)


def test_a_whole_ogg_file_and_two_in_a_row(ogg, tmp_path, sizes):
    assert not whole.is_broken_ogg(ogg) and make(ogg)["flags"] == []
    twice = tmp_path / "twice.ogg"
    twice.write_bytes(ogg.read_bytes() * 2)
    assert not whole.is_broken_ogg(twice)


def test_an_ogg_file_without_its_end(ogg, tmp_path, sizes):
    data = ogg.read_bytes()
    *_, before_last, last = page_starts(data)
    for number, end in enumerate((len(data) - 1, last + 20, before_last, 27, 3)):
        path = tmp_path / f"{number}.ogg"
        path.write_bytes(data[:end])
        assert whole.is_broken_ogg(path), end


def test_an_ogg_file_with_a_page_less_or_another_bit(ogg, tmp_path):
    data = ogg.read_bytes()
    starts = page_starts(data)
    middle = starts[len(starts) // 2 : len(starts) // 2 + 2]
    path = tmp_path / "less.ogg"
    path.write_bytes(data[: middle[0]] + data[middle[1] :])
    assert whole.is_broken_ogg(path)
    for place in (middle[0], middle[0] + 7, middle[0] + 23, middle[0] + 40):
        other = bytearray(data)
        other[place] ^= 4
        path.write_bytes(other)
        assert whole.is_broken_ogg(path), place
    assert "damaged" in make(path)["flags"]


def test_an_asf_file_without_its_end(tmp_path):
    good = kinds.both(tmp_path / "good.asf")
    record = make(good)
    end_sec = whole.asf_end_sec(good)
    assert end_sec == pytest.approx(record["end_sec"] - record["start_sec"], abs=0.15)
    path = tmp_path / "cut.asf"
    path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    # FFmpeg does not tell the length of one whose size is not what its header says.
    with pytest.raises(DecodeError) as caught:
        make(path)
    assert caught.value.reason_code == "truncated"
    assert whole.asf_end_sec(kinds.both(tmp_path / "other.avi")) is None
    path.write_bytes(good.read_bytes()[:100])
    assert whole.asf_end_sec(path) is None
