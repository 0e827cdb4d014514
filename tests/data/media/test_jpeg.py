"""Decoding only what a box needs gives exactly what decoding everything gives."""

import cv2
import numpy as np
import pytest
import simplejpeg

from avt_jax.data.media.jpeg import Box, BoxDecoder

HEIGHT, WIDTH = 121, 170


def picture(rng, height_px=HEIGHT, width_px=WIDTH):
    coarse = rng.integers(0, 256, (height_px // 6, width_px // 6, 3), np.uint8)
    return cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC)


def whole(jpeg, factor=1):
    """The frame as libjpeg-turbo decodes it in one go, with the same options."""
    sides = {"min_height": -(-HEIGHT // factor), "min_width": -(-WIDTH // factor)}
    return simplejpeg.decode_jpeg(jpeg, fastdct=True, fastupsample=True, min_factor=factor, **sides)


def heights_decoded(monkeypatch):
    """Collects the heights that the decoder is asked for."""
    heights = []
    original = simplejpeg.decode_jpeg

    def decode(data, **options):
        heights.append(simplejpeg.decode_jpeg_header(data)[0])
        return original(data, **options)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", decode)
    return heights


@pytest.mark.parametrize("subsampling", ["420", "422", "440", "444", "gray"])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_every_box_is_what_is_there_in_the_whole_frame(subsampling, factor, rng):
    image = picture(rng)
    if subsampling == "gray":
        jpeg = simplejpeg.encode_jpeg(image[..., :1].copy(), colorspace="GRAY")
    else:
        jpeg = simplejpeg.encode_jpeg(image, colorsubsampling=subsampling)
    frame = whole(jpeg, factor)
    for _ in range(30):
        height, width = int(rng.integers(8, HEIGHT + 1)), int(rng.integers(8, WIDTH + 1))
        top, left = int(rng.integers(HEIGHT - height + 1)), int(rng.integers(WIDTH - width + 1))
        decoder = BoxDecoder((HEIGHT, WIDTH), Box(top, left, height, width), factor)
        cut = decoder.decode(jpeg)
        rows, columns = (
            [int(np.floor(edge / factor + 0.5)) for edge in (start, start + length)]
            for start, length in ((top, height), (left, width))
        )
        np.testing.assert_array_equal(cut, frame[slice(*rows), slice(*columns)])
        assert cut.shape == (*decoder.box_shape, 3)
        assert decoder.box_shape[0] >= height // factor
        assert decoder.box_shape[1] >= width // factor


def test_rows_below_the_box_are_not_decoded(monkeypatch, rng):
    jpeg = simplejpeg.encode_jpeg(picture(rng))
    expected = whole(jpeg)
    heights = heights_decoded(monkeypatch)
    for bottom, decoded in ((10, 16), (16, 16), (17, 32), (112, 112), (113, 121), (121, 121)):
        cut = BoxDecoder((HEIGHT, WIDTH), Box(0, 0, bottom, WIDTH), 1).decode(jpeg)
        np.testing.assert_array_equal(cut, expected[:bottom])
        assert heights == [decoded]
        heights.clear()


def test_a_frame_that_cannot_be_shortened_is_decoded_whole(monkeypatch, rng):
    """libjpeg may not say what is expected, or the header be a longer one."""
    jpeg = simplejpeg.encode_jpeg(picture(rng))
    comment = b"\xff\xfe" + (2000).to_bytes(2, "big") + bytes(1998)
    for data, words in ((jpeg, "other words"), (jpeg[:2] + comment + jpeg[2:], "extraneous")):
        expected = whole(data)[:10]
        with monkeypatch.context() as patch:
            patch.setattr("avt_jax.data.media.jpeg._MORE_ROWS", words)
            heights = heights_decoded(patch)
            cut = BoxDecoder((HEIGHT, WIDTH), Box(0, 0, 10, WIDTH), 1).decode(data)
        np.testing.assert_array_equal(cut, expected)
        assert heights[-1] == HEIGHT


def test_a_file_that_is_cut_off_is_an_error(rng):
    jpeg = simplejpeg.encode_jpeg(picture(rng))
    for box in (Box(0, 0, 16, 16), Box(0, 0, HEIGHT, WIDTH)):
        with pytest.raises(ValueError, match="JPEG"):
            BoxDecoder((HEIGHT, WIDTH), box, 1).decode(jpeg[: len(jpeg) // 20 + 700])


def test_a_damaged_file_gives_an_error_or_an_image(rng):
    """Never a crash, whatever stands in the bytes that are looked at."""
    jpeg = simplejpeg.encode_jpeg(picture(rng))
    outcomes = set()
    for _ in range(300):
        data = bytearray(jpeg)
        place = int(rng.integers(len(data) - 30))
        data[place : place + 30] = rng.bytes(30)
        try:
            cut = BoxDecoder((HEIGHT, WIDTH), Box(30, 30, 40, 50), 1).decode(bytes(data))
            outcomes.add(cut.shape)
        except ValueError:
            outcomes.add("refused")
    assert outcomes == {(40, 50, 3), "refused"}


def test_frames_of_another_size_and_boxes_outside_are_refused(rng):
    decoder = BoxDecoder((HEIGHT, WIDTH), Box(0, 0, 16, 16), 1)
    with pytest.raises(ValueError, match="one size"):
        decoder.decode(simplejpeg.encode_jpeg(picture(rng, HEIGHT, WIDTH + 1)))
    for box in (Box(0, 0, HEIGHT + 1, 5), Box(0, WIDTH, 5, 1), Box(-1, 0, 10, 10)):
        with pytest.raises(ValueError, match="inside"):
            BoxDecoder((HEIGHT, WIDTH), box, 1)
