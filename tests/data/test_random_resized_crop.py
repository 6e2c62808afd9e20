"""Parts of images: inside, of the right areas and shapes, each from its own numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxsparse.data import random_resized_crop

pytestmark = pytest.mark.keys_used_once


WORDS = np.array([1, 2], np.uint32)
GOLDEN = [0.9648208950982607, 0.9034133278066571]
SIDES = st.integers(1, 3000)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.integers(0, 2**31), st.integers(0, 2**31))
def test_a_part_lies_inside_and_has_the_aspect_that_was_asked_for(
    height: int, width: int, epoch: int, place: int
) -> None:
    left, top, right, bottom = random_resized_crop.draw(
        height, width, words=WORDS, epoch=epoch, place=place
    )
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    w, h = right - left, bottom - top
    # Rounding moves a side by half a pixel, and a side is at least 1.
    assert w <= 4 / 3 * (h + 0.5) + 0.5
    assert h <= 4 / 3 * (w + 0.5) + 0.5


def test_parts_of_a_usual_image_have_all_areas_shapes_and_places() -> None:
    height, width, count = 375, 500, 4000
    boxes = np.array(
        [
            random_resized_crop.draw(height, width, words=WORDS, epoch=3, place=i)
            for i in range(count)
        ]
    )
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = w * h / (height * width), np.log(w / h)
    assert area.min() > 0.079
    assert area.max() < 1.005
    assert np.abs(ratio).max() < np.log(4 / 3) + 0.02
    # Small boxes always fit, so that below half of the area all areas are as likely.
    counts, _ = np.histogram(area, bins=4, range=(0.08, 0.48))
    assert counts.max() < 1.25 * counts.min()
    small = area < 0.3
    shares = np.histogram(ratio[small], bins=4)[0] / small.sum()
    np.testing.assert_allclose(shares, 0.25, atol=0.05)
    # Where there is room, a box lies anywhere in it.
    for start, room in ((boxes[:, 0], width - w), (boxes[:, 1], height - h)):
        where = start[small] / room[small]
        counts, _ = np.histogram(where, bins=4, range=(0, 1))
        np.testing.assert_allclose(counts / small.sum(), 0.25, atol=0.05)


def test_numbers_are_of_one_image_in_one_epoch_of_one_key() -> None:
    def numbers(words: list[int], epoch: int, place: int) -> tuple[float, ...]:
        given = np.array(words, np.uint32)
        return tuple(
            random_resized_crop.uniforms(given, epoch=epoch, place=place, count=3)
        )

    asked = [([1, 2], 0, 0), ([2, 1], 0, 0), ([1, 2], 1, 0), ([1, 2], 0, 1)]
    asked += [([1, 2, 3], 0, 0), ([1, 2, 0, 4], 0, 0)]
    found = [numbers(*one) for one in asked]
    assert len({x for one in found for x in one}) == 3 * len(asked)
    assert all(0 <= x < 1 for one in found for x in one)
    assert numbers(*asked[0]) == found[0]
    # More are asked for without another beginning.
    longer = random_resized_crop.uniforms(WORDS, epoch=0, place=0, count=9)
    assert tuple(longer[:3]) == found[0]


def test_numbers_are_the_same_for_ever() -> None:
    # Golden: a change here changes what every recorded run was trained on. Philox with
    # key 1 + 2^33 and counter (0, 0, 5, 7), of numpy.
    found = random_resized_crop.uniforms(WORDS, epoch=7, place=5, count=2)
    stream = np.random.Philox(key=1 + 2**33, counter=(7 << 192) + (5 << 128))
    assert found == [x / 2**53 for x in (stream.random_raw(2) >> 11).tolist()]
    assert found == GOLDEN


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (10, 1000, (493, 0, 506, 10)),
        (1000, 10, (0, 493, 10, 506)),
        (40, 40, (0, 0, 40, 40)),
        (1, 1, (0, 0, 1, 1)),
    ],
)
def test_the_middle_is_as_large_as_its_aspect_allows(
    height: int, width: int, box: random_resized_crop.Box
) -> None:
    assert random_resized_crop.middle(height, width) == box
    if height == 10:  # nothing of 8 % of the area fits
        assert (
            random_resized_crop.draw(height, width, words=WORDS, epoch=0, place=0)
            == box
        )


@pytest.mark.parametrize(
    ("height", "width", "resized", "start"),
    [
        (500, 375, (341, 256), (58, 16)),
        (375, 500, (256, 341), (16, 58)),
        (224, 224, (256, 256), (16, 16)),
        (1, 2, (256, 512), (16, 144)),
    ],
)
def test_evaluation_sees_the_middle(
    height: int, width: int, resized: tuple[int, int], start: tuple[int, int]
) -> None:
    assert random_resized_crop.resized(height, width, size=224) == resized
    assert random_resized_crop.center(*resized, size=224) == start


def test_what_is_resized_is_never_smaller_than_what_is_cut_out() -> None:
    for size in range(1, 400):
        assert min(random_resized_crop.resized(70, 60, size=size)) >= size
