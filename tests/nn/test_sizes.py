from itertools import pairwise

import pytest
import torch

from lit_generative.nn.sizes import Crop, default_widths, halvings, padding_to


@pytest.mark.parametrize(("height", "width"), [(28, 28), (30, 18), (7, 128), (1, 5)])
def test_each_size_is_half_the_one_before_rounded_up(height: int, width: int) -> None:
    sizes = halvings(height, width, 5)
    assert (sizes[0], len(sizes)) == ((height, width), 6)
    for (h, w), smaller in pairwise(sizes):
        assert smaller == ((h + 1) // 2, (w + 1) // 2)


@pytest.mark.parametrize("coarsest", [4, 8])
def test_default_levels_are_the_fewest_that_reach_the_coarsest_size(coarsest: int) -> None:
    for size in range(1, 257):
        widths = default_widths(size, 2 * size, coarsest)
        *before, last = [height for height, _ in halvings(size, 2 * size, len(widths))]
        assert last <= coarsest
        assert len(widths) == 1 or min(before) > coarsest
        assert widths == [64, 128, 256, 512, 512, 512, 512][: len(widths)]
        assert default_widths(size, 2 * size, coarsest, base=16) == [w // 4 for w in widths]


@pytest.mark.parametrize("multiple", [1, 2, 8])
def test_padding_is_the_least_and_even_on_both_sides(multiple: int) -> None:
    left, right, top, bottom = padding_to(13, 30, multiple)
    assert ((left + 30 + right) % multiple, (top + 13 + bottom) % multiple) == (0, 0)
    assert max(left + right, top + bottom) < multiple
    assert 0 <= right - left <= 1
    assert 0 <= bottom - top <= 1


def test_a_crop_keeps_the_upper_left_in_channels_last() -> None:
    x = torch.randn(2, 3, 8, 6).to(memory_format=torch.channels_last)
    cropped = Crop((7, 5))(x)
    assert torch.equal(cropped, x[:, :, :7, :5])
    assert cropped.is_contiguous(memory_format=torch.channels_last)
    assert Crop((8, 6))(x).data_ptr() == x.data_ptr()  # nothing to cut, nothing to copy
