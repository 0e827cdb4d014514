"""Files of which no clip can be made, or not all of it, are told by their true reason."""

from __future__ import annotations

import media_kinds as kinds
import pytest
from media_kinds import both

from avt_jax.data.extraction.clip_record import ExtractConfig, make_record
from avt_jax.data.media.container import REASON_CODES, DecodeError

CONFIG = ExtractConfig(frame_rate_hz=10, short_side_px=48)


def make(path):
    return make_record(path, None, None, config=CONFIG, id="x", source="x")


def reason(path):
    with pytest.raises(DecodeError) as caught:
        make(path)
    assert caught.value.reason_code in REASON_CODES
    return caught.value.reason_code, caught.value.message


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_encrypted_files_are_called_that(suffix, tmp_path):
    key = "00112233445566778899aabbccddeeff"
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    path = both(tmp_path / f"a.{suffix}", sound={"codec": "aac"}, options=scheme)
    code, message = reason(path)
    assert code == "encrypted" and "is encrypted" in message


def element(name, content):
    """An element of Matroska of less than 127 bytes."""
    return bytes.fromhex(name) + bytes([0x80 | len(content)]) + content


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_matroska_encrypts_in_its_own_way(suffix, tmp_path):
    key = element("47e1", b"\5") + element("47e2", bytes(range(16)))
    one = element("5031", b"\0") + element("5032", b"\1") + element("5033", b"\1")
    how = element("6d80", element("6240", one + element("5035", key)))
    # In the place of a title, so that nothing else moves.
    name = element("536e", b"t" * (len(how) - 3))
    path = both(tmp_path / f"a.{suffix}", picture={"title": "t" * (len(how) - 3)})
    assert make(path)["flags"] == []
    data = path.read_bytes()
    assert data.count(name) == 1
    path.write_bytes(data.replace(name, how))
    assert reason(path)[0] == "encrypted"


def test_a_scrambled_transport_stream(tmp_path):
    path = both(tmp_path / "a.ts")
    data = bytearray(path.read_bytes())
    for place in range(0, len(data), 188):
        if 256 <= (data[place + 1] & 31) << 8 | data[place + 2] < 8191:
            data[place + 3] |= 0x80
            extra = 1 + data[place + 4] if data[place + 3] & 0x20 else 0
            for i in range(place + 4 + extra, place + 188):
                data[i] ^= 0x5A
    path.write_bytes(data)
    assert reason(path)[0] == "encrypted"
    path.write_bytes(b"G" * 100 + bytes(1000))
    assert reason(path)[0] == "not_media"


def test_unknown_codecs_are_called_that(tmp_path):
    for suffix, name in [("mp4", b"avc1"), ("mkv", b"V_MPEG4/ISO/AVC"), ("avi", b"FMP4")]:
        path = both(tmp_path / f"a.{suffix}")
        data = path.read_bytes()
        assert name in data
        path.write_bytes(data.replace(name, name[:-1] + b"\x7f"))
        code, message = reason(path)
        assert code == "unsupported_codec" and "picture" in message


def test_sound_of_an_unknown_codec_is_lost_with_a_flag(tmp_path):
    path = both(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_AAX"))
    record = make(path)
    assert record["flags"] == ["damaged"] and not record["has_audio"]
    assert len(record["frames"]) in (16, 17)


def test_animated_webp_is_called_that(tmp_path):
    path = tmp_path / "a.webp"
    # An extended file with the flag of an animation, of 64 x 48 pixels, and its first parts.
    parts = b"VP8X\n\0\0\0\2\0\0\0?\0\0/\0\0" + b"ANIM\6\0\0\0" + bytes(6) + b"ANMF" + bytes(20)
    path.write_bytes(b"RIFF" + (4 + len(parts)).to_bytes(4, "little") + b"WEBP" + parts)
    code, message = reason(path)
    assert code == "unsupported_codec" and "WebP" in message


def test_joined_transport_streams_of_different_streams_are_told(tmp_path):
    path = both(tmp_path / "a.ts")
    mute = kinds.write(tmp_path / "mute.ts", [kinds.Picture(kinds.moving())])
    path.write_bytes(path.read_bytes() + mute.read_bytes())
    code, message = reason(path)
    assert code == "stamps_restart" and "restart at 1." in message


def test_a_file_cut_off_is_not_taken_for_one_with_a_wrong_header(tmp_path):
    for suffix in ("mp4", "mkv", "webm", "avi", "flv"):
        options = {"movflags": "faststart"} if suffix == "mp4" else None
        path = both(tmp_path / f"a.{suffix}", options=options)
        data = path.read_bytes()
        path.write_bytes(data[: 2 * len(data) // 5])
        assert reason(path)[0] == "truncated", suffix
