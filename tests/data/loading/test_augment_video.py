"""Boxes stay inside, cover what they should, and are cut where they say."""

import cv2
import numpy as np
import pytest
import simplejpeg

from avt_jax.data.loading import augment_video
from avt_jax.data.media.jpeg import Box, frame_shape


def gradient(height_px, width_px):
    """Red grows to the right, green downwards; smooth, so JPEG keeps it within a few levels."""
    image = np.zeros((height_px, width_px, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width_px)[None]
    image[..., 1] = np.linspace(0, 255, height_px)[:, None]
    return image


def jpeg(image):
    return simplejpeg.encode_jpeg(image, quality=98, colorsubsampling="444")


@pytest.mark.parametrize("size", [(24, 32), (32, 24), (7, 300), (1, 1)])
def test_random_boxes_lie_inside(size, rng):
    for _ in range(300):
        box = augment_video.random_box(*size, rng, scale=(0.08, 1.0), aspect=(0.75, 1.3333))
        assert box.height >= 1 and box.width >= 1 and box.top >= 0 and box.left >= 0
        assert box.top + box.height <= size[0] and box.left + box.width <= size[1]


def test_random_boxes_cover_the_ranges_evenly(rng):
    boxes = [
        augment_video.random_box(1000, 1000, rng, scale=(0.1, 0.4), aspect=(0.5, 2.0))
        for _ in range(2000)
    ]
    area = np.array([box.height * box.width for box in boxes]) / 1e6
    ratio = np.log2([box.width / box.height for box in boxes])
    assert area.min() > 0.099 and area.max() < 0.401
    assert abs(area.mean() - 0.25) < 0.01
    assert ratio.min() > -1.01 and ratio.max() < 1.01
    assert abs(ratio.mean()) < 0.06
    # Any place is equally likely for the middle of the room a box has.
    free = np.array([box.left / (1000 - box.width) for box in boxes])
    assert abs(free.mean() - 0.5) < 0.03 and free.min() < 0.02 and free.max() > 0.98


def test_where_no_box_fits_the_middle_is_taken(rng):
    # Squares with the whole area of a wide frame do not exist.
    box = augment_video.random_box(100, 300, rng, scale=(1.0, 1.0), aspect=(1.0, 1.0))
    assert box == Box(0, 100, 100, 100)
    box = augment_video.random_box(300, 100, rng, scale=(1.0, 1.0), aspect=(0.5, 0.75))
    assert box == Box(50, 0, 200, 100)


def test_squares_along_the_longer_side():
    assert augment_video.square_box(24, 33, 0.5) == Box(0, 4, 24, 24)
    assert augment_video.square_box(40, 20, 0.5) == Box(10, 0, 20, 20)
    assert augment_video.square_box(24, 33, 0.0) == Box(0, 0, 24, 24)
    assert augment_video.square_box(24, 33, 1.0) == Box(0, 9, 24, 24)
    assert augment_video.square_box(40, 20, 1.0) == Box(20, 0, 20, 20)


@pytest.mark.parametrize("size", [16, 24, 50], ids=["smaller", "same", "larger"])
def test_a_box_is_cut_where_it_says(size):
    image = gradient(64, 96)
    box = Box(10, 30, 24, 24)
    [square] = augment_video.decode_boxes([jpeg(image)], box, frame_size_px=size)
    assert square.shape == (size, size, 3) and square.dtype == np.uint8
    # Means over rows or columns, because JPEG moves single pixels by several levels, compared with
    # the frame as this decoder gives it, because its fast mode is a level darker. One pixel beside
    # the box would be 2.7 levels of red or 4 of green.
    frame = simplejpeg.decode_jpeg(jpeg(image), fastdct=True, fastupsample=True)
    along = np.clip((np.arange(size) + 0.5) * 24 / size - 0.5, 0, 23)  # pixel centres
    red = np.interp(30 + along, np.arange(96), frame[10:34, :, 0].mean(0))
    green = np.interp(10 + along, np.arange(64), frame[:, 30:54, 1].mean(1))
    np.testing.assert_allclose(square[..., 0].mean(0), red, atol=1.2)
    np.testing.assert_allclose(square[..., 1].mean(1), green, atol=1.2)
    assert square[..., 2].max() <= 4


def test_mirroring_swaps_left_and_right_only():
    frames = [jpeg(gradient(32, 40)), jpeg(gradient(32, 40)[::-1].copy())]
    box = Box(2, 5, 28, 30)
    plain = augment_video.decode_boxes(frames, box, frame_size_px=20)
    mirrored = augment_video.decode_boxes(frames, box, frame_size_px=20, mirrored=True)
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])
    assert not np.array_equal(mirrored, plain)


def test_repeated_frames_are_the_same_picture():
    first, second = jpeg(gradient(20, 20)), jpeg(255 - gradient(20, 20))
    video = augment_video.decode_boxes(
        [first, first, second, first], Box(0, 0, 20, 20), frame_size_px=10
    )
    np.testing.assert_array_equal(video[1], video[0])
    np.testing.assert_array_equal(video[3], video[0])
    assert not np.array_equal(video[2], video[0])


def test_shrinking_much_averages_instead_of_skipping():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    [square] = augment_video.decode_boxes([jpeg(stripes)], Box(0, 0, 64, 64), frame_size_px=16)
    assert 100 < square.min() and square.max() < 155


@pytest.mark.parametrize(
    "side,size,expected",
    [(31, 32, 1), (32, 32, 1), (63, 32, 1), (64, 32, 2), (127, 32, 2), (128, 32, 4), (999, 32, 8)],
)
def test_no_frame_is_decoded_smaller_than_its_box_needs(side, size, expected):
    assert augment_video.reduction(Box(0, 0, side, 2000), size) == expected
    assert augment_video.reduction(Box(0, 0, 2000, side), size) == expected


def texture(height_px, width_px, rng):
    """Blobs of all sizes and colours, as real pictures have them."""
    image = np.zeros((height_px, width_px, 3))
    for cells in (4, 8, 16, 32, 64):
        coarse = rng.normal(size=(cells, cells, 3))
        image += cv2.resize(coarse, (width_px, height_px), interpolation=cv2.INTER_CUBIC) / cells
    return np.clip(127 + 300 * image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("box", [Box(0, 0, 240, 320), Box(37, 51, 90, 75), Box(101, 3, 139, 317)])
@pytest.mark.parametrize("size", [16, 24, 40, 112])
def test_frames_decoded_at_the_needed_size_look_like_whole_ones(box, size, rng):
    encoded = simplejpeg.encode_jpeg(texture(240, 320, rng), quality=90)
    [square] = augment_video.decode_boxes([encoded], box, frame_size_px=size)
    cut = simplejpeg.decode_jpeg(encoded)[box.top :, box.left :][: box.height, : box.width]
    shrinks = min(box.height, box.width) > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    whole = cv2.resize(cut, (size, size), interpolation=method).astype(float)
    # Measured over seeds: 0.5 to 1.1 levels of 255 for 112 px, up to 4.6 for 16 px, where a decoded
    # pixel is a larger part of the box; moved by a tenth of the side 11 and more.
    assert np.abs(square - whole).mean() < (5.5 if size < 100 else 1.5)
    aside = np.roll(whole, max(1, size // 10), axis=1)
    assert np.abs(square - aside).mean() > 8


def test_the_result_is_put_where_it_is_wanted(rng):
    encoded = [simplejpeg.encode_jpeg(texture(48, 64, rng)) for _ in range(2)]
    out = np.full((3, 2, 16, 16, 3), 7, np.uint8)
    for mirrored in (False, True):
        options = dict(frame_size_px=16, mirrored=mirrored)
        given = augment_video.decode_boxes(encoded, Box(3, 5, 40, 50), out_thwc=out[1], **options)
        assert np.shares_memory(given, out)
        made = augment_video.decode_boxes(encoded, Box(3, 5, 40, 50), **options)
        np.testing.assert_array_equal(out[1], made)
    assert (out[0] == 7).all() and (out[2] == 7).all()


def test_equal_frames_are_decoded_once(monkeypatch, rng):
    first, second = (simplejpeg.encode_jpeg(texture(20, 20, rng)) for _ in range(2))
    decoded = []
    original = simplejpeg.decode_jpeg
    monkeypatch.setattr(
        simplejpeg, "decode_jpeg", lambda data, **k: decoded.append(data) or original(data, **k)
    )
    copy = bytes(bytearray(first))
    assert copy is not first
    video = augment_video.decode_boxes(
        [first, copy, copy, second], Box(0, 0, 20, 20), frame_size_px=10
    )
    assert decoded == [first, second]
    np.testing.assert_array_equal(video[2], video[0])


def test_grey_jpeg_becomes_rgb():
    grey = simplejpeg.encode_jpeg(np.full((16, 16, 1), 99, np.uint8), colorspace="GRAY")
    [square] = augment_video.decode_boxes([grey], Box(0, 0, 16, 16), frame_size_px=8)
    np.testing.assert_allclose(square, 99, atol=2)


def test_bad_frames_are_errors():
    good = jpeg(gradient(20, 20))
    with pytest.raises(ValueError):
        augment_video.decode_boxes([b"\xff\xd8 no"], Box(0, 0, 8, 8), frame_size_px=8)
    with pytest.raises(ValueError):
        frame_shape(b"")
    with pytest.raises(ValueError, match="one size"):
        augment_video.decode_boxes(
            [good, jpeg(gradient(10, 10))], Box(0, 0, 20, 20), frame_size_px=8
        )


def test_a_frame_that_claims_to_be_huge_is_not_decoded():
    huge = bytearray(jpeg(gradient(16, 16)))
    start = huge.find(b"\xff\xc0")  # start of frame: length, precision, height, width
    huge[start + 5 : start + 9] = (60000).to_bytes(2, "big") * 2
    with pytest.raises(ValueError, match="60000 x 60000"):
        augment_video.decode_boxes([bytes(huge)], Box(0, 0, 8, 8), frame_size_px=8)
