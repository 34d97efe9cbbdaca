"""Pictures are moved, cut and coloured as the numbers say: the official shift, and the standard library's colours."""

import colorsys

import numpy as np
import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies.vision.augment import (
    Jitter,
    centre_crop,
    crop,
    draw_crop,
    draw_jitter,
    draw_shift,
    jitter,
    shift,
)

from ..parity import Fixture
from ..toys import generator


def test_shift_is_the_official_one(shared_data):
    f = Fixture(shared_data, "dppo_random_shift")
    images, draws = f.tensor("rgb_0_255"), f.tensor("shift_draws")[:, 0, 0].long()
    moved = shift(images, draws.flip(1), pad=4)  # theirs are (x, y)
    assert (moved == f.tensor("out64.augmented").round()).all()
    assert (moved - f.tensor("out64.augmented")).abs().max() < 1e-10
    assert shift(images.byte(), draws.flip(1), pad=4).equal(moved.byte())


def test_every_shift_is_drawn_and_the_middle_one_moves_nothing():
    images = torch.randint(256, (5, 3, 7, 9), generator=generator(), dtype=torch.uint8)
    assert shift(images, torch.full((5, 2), 4), pad=4).equal(images)
    draws = draw_shift(2_000, 4, generator())
    assert [column.unique().tolist() for column in draws.T] == [list(range(9))] * 2


def test_crops_are_windows_of_their_pictures():
    images = torch.arange(2 * 6 * 7).view(2, 1, 6, 7)
    draws = draw_crop(2_000, (6, 7), (4, 3), generator())
    assert draws.amin(0).tolist() == [0, 0]
    assert draws.amax(0).tolist() == [2, 4]
    cut = crop(images, torch.tensor([[0, 4], [2, 1]]), (4, 3))
    assert cut.equal(torch.stack([images[0, :, 0:4, 4:7], images[1, :, 2:6, 1:4]]))
    assert centre_crop(images, (4, 3)).equal(images[:, :, 1:5, 2:5])


def test_the_same_draws_give_the_same_pictures():
    images = torch.rand(3, 3, 8, 8, generator=generator())
    draws = [draw_jitter(3, Jitter(0.2, 0.2, 0.5, 0.05), generator(seed)) for seed in (1, 1, 2)]
    first, again, other = (jitter(images, d) for d in draws)
    assert first.equal(again)
    assert not first.equal(other)


def test_no_jitter_changes_nothing():
    images = torch.rand(3, 3, 8, 8, generator=generator(), dtype=torch.float64)
    draws = draw_jitter(3, Jitter(), generator())
    assert (jitter(images, draws) - images).abs().max() < 1e-12


def test_jitter_factors():
    images = torch.rand(1, 3, 4, 4, generator=generator(), dtype=torch.float64)
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).double()[:, None, None]).sum(1, keepdim=True)
    for draws, expected in (
        ([1.2, 1, 1, 0], (1.2 * images).clamp(max=1)),
        ([1, 0, 1, 0], grey.mean().expand(1, 3, 4, 4)),
        ([1, 1, 0, 0], grey.expand(1, 3, 4, 4)),
        ([1, 1, 1.3, 0], (grey + 1.3 * (images - grey)).clamp(0, 1)),
    ):
        assert (jitter(images, torch.tensor([draws]).double()) - expected).abs().max() < 1e-7


@pytest.mark.parametrize("turns", [-0.3, 0.05, 0.5])
def test_hue_turns_as_in_the_standard_library(turns):
    images = torch.rand(2, 3, 5, 5, generator=generator(), dtype=torch.float64)
    images[0, :, 0, 0] = 0.5  # grey has no hue
    images[0, :, 0, 1] = 0.0
    ours = jitter(images, torch.tensor([[1, 1, 1, turns]] * 2).double())

    def turned(r, g, b):
        h, s, v = colorsys.rgb_to_hsv(r, g, b)
        return colorsys.hsv_to_rgb((h + turns) % 1, s, v)

    expected = np.apply_along_axis(lambda rgb: turned(*rgb), 1, images.numpy())
    assert np.abs(ours.numpy() - expected).max() < 1e-6


def test_limits_are_fractions():
    with pytest.raises(UserError, match=r"hue 1.5 must lie between 0 and 1"):
        Jitter(hue=1.5)
