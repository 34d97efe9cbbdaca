"""What encoders promise whatever they are made of: sizes, augmentation on demand, clear refusals."""

import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.policies.vision import Jitter, ResNet, ViT

from ..toys import generator

JITTER = Jitter(0.2, 0.2, 0.5, 0.05)
TINY_VIT = ViT(width=8, heads=2, features=5)
TINY_RESNET = ResNet(width=16, keypoints=3)
CAMERAS = {"images.front": (40, 48, 3), "images.wrist": (40, 48, 3)}


def pictures(batch=2, times=2, cameras=CAMERAS, seed=0):
    g = generator(seed)
    return {k: torch.randint(256, (batch, times, *s), dtype=torch.uint8, generator=g) for k, s in cameras.items()}


def state(batch=2, times=2, size=4):
    return torch.randn(batch, times, size, generator=generator(5))


@pytest.mark.parametrize(
    ("config", "times", "whole", "per_step"),
    [(TINY_VIT, 1, 0, (5, 5)), (TINY_VIT, 2, 10, ()), (TINY_RESNET, 2, 0, (6, 6))],
)
def test_sizes_say_what_features_hold(config, times, whole, per_step):
    encoder = config.build(CAMERAS, 4, times)
    assert (encoder.whole, encoder.per_step) == (whole, per_step)
    features = encoder(state(times=times), pictures(times=times))
    assert features.shape == (2, whole + times * sum(per_step))


def test_resnet_features_hold_one_camera_after_the_other_each_with_all_times():
    encoder, images = TINY_RESNET.build(CAMERAS, 0, 2), pictures()
    features = encoder(state(), images).view(2, 2, 2, 6)  # batch, camera, time
    alone = TINY_RESNET.build({"images.wrist": (40, 48, 3)}, 0, 1)
    alone.load_state_dict(encoder.state_dict())
    newest = {"images.wrist": images["images.wrist"][:, 1:]}
    torch.testing.assert_close(alone(state(times=1), newest), features[:, 1, 1])


def test_vit_sees_state_and_every_time_of_every_camera():
    encoder, images = TINY_VIT.build(CAMERAS, 4, 2), pictures()
    before = encoder(state(), images)
    assert not torch.equal(encoder(state() + 1, images), before)
    for name in CAMERAS:
        for time in range(2):
            dark = {k: v.clone() for k, v in images.items()}
            dark[name][:, time] = 0
            changed = (encoder(state(), dark) != before).view(2, 2, 5).any(2)
            assert changed.tolist() == [[k == name for k in CAMERAS]] * 2


def test_cameras_share_a_network_or_have_one_each():
    other = CAMERAS | {"images.wrist": (48, 48, 3)}
    shared, separate = (ResNet(16, 3, separate=s).build(CAMERAS, 0, 1) for s in (False, True))
    weights = [sum(p.numel() for p in encoder.parameters()) for encoder in (shared, separate)]
    assert weights[1] == 2 * weights[0]
    encoder = ResNet(16, 3, separate=True).build(other, 0, 1)
    assert encoder(state(times=1), pictures(times=1, cameras=other)).shape == (2, 12)
    for config in (TINY_VIT, TINY_RESNET):
        with pytest.raises(UserError, match=r"'images.front' \(40, 48, 3\) and 'images.wrist' \(48, 48, 3\) differ"):
            config.build(other, 0, 1)


@pytest.mark.parametrize(
    "config", [TINY_VIT, ResNet(16, 3, crop=(36, 46)), ResNet(16, 3, jitter=JITTER)], ids=["shift", "crop", "jitter"]
)
def test_the_same_draws_give_the_same_features(config):
    encoder, images = config.build(CAMERAS, 4, 2), pictures(batch=8)
    plain = encoder(state(8), images)
    first, other = (encoder.draw(8, generator(seed)) for seed in (1, 2))
    features = encoder(state(8), images, first)
    assert torch.equal(encoder(state(8), images, first), features)
    assert not torch.equal(encoder(state(8), images, other), features)
    assert torch.equal(encoder(state(8), images), plain)
    some = torch.tensor([5, 2])
    part = encoder(state(8)[some], {k: v[some] for k, v in images.items()}, first.rows(some))
    torch.testing.assert_close(part, features[some])


def test_all_times_of_one_observation_move_alike_and_observations_differ():
    encoder = ViT(width=8, heads=2, features=5, jitter=JITTER).build(CAMERAS, 4, 2)
    one = pictures(times=1, batch=1)["images.front"].expand(64, 2, -1, -1, -1)
    seen = encoder.pixels("images.front", {"images.front": one}, encoder.draw(64, generator()))
    assert seen[:, 0].equal(seen[:, 1])
    assert len(seen[:, 0].flatten(1).unique(dim=0)) > 50


def test_without_anything_to_augment_nothing_is_drawn():
    g = generator()
    before = g.get_state()
    assert ViT(width=8, heads=2, shift=0).build(CAMERAS, 4, 1).draw(3, g) is None
    assert g.get_state().equal(before)


def test_crops_lie_in_the_middle_in_acting_and_pictures_are_normalised():
    encoder = ResNet(16, 3, crop=(36, 46)).build({"images.front": (40, 48, 3)}, 0, 1)
    images = pictures(times=1)
    seen = encoder.pixels("images.front", images, None)
    expected = images["images.front"][:, :, 2:38, 1:47].movedim(-1, 2) / 255
    torch.testing.assert_close(seen, expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda i: i.pop("images.wrist"), r"camera 'images.wrist' is missing: .*'images.wrist'\], got"),
        (
            lambda i: i.update({"images.wrist": i["images.wrist"].movedim(-1, 2)}),
            r"'images.wrist' has shape \(2, 2, 3, 40, 48\), expected \(B, 2, 40, 48, 3\): channels come last",
        ),
        (
            lambda i: i.update({"images.front": i["images.front"][:, :, ::2]}),
            r"'images.front' has shape \(2, 2, 20, 48, 3\), expected \(B, 2, 40, 48, 3\)$",
        ),
        (
            lambda i: i.update({"images.front": i["images.front"] / 255}),
            r"'images.front' is torch.float32, expected uint8",
        ),
    ],
)
@pytest.mark.parametrize("config", [TINY_VIT, TINY_RESNET], ids=["vit", "resnet"])
def test_wrong_pictures_are_refused_by_name(config, change, message):
    encoder, images = config.build(CAMERAS, 4, 2), pictures()
    change(images)
    with pytest.raises(UserError, match=message):
        encoder(state(), images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ViT(width=10, heads=4), "width 10 must be a multiple of its heads 4"),
        (lambda: ViT(depth=0), "depth must be at least 1"),
        (lambda: ResNet(width=24), "width 24 must be a multiple of 16"),
        (lambda: ResNet(std=(0.2, 0.0, 0.2)), "std .* must be positive"),
        (lambda: ResNet(crop=(0, 3)), "at least one pixel"),
        (lambda: ResNet(crop=(44, 30)).build(CAMERAS, 0, 1), r"crop \(44, 30\) is larger than camera 'images.front'"),
        (lambda: TINY_VIT.build({"images.front": (12, 48, 3)}, 0, 1), "give no patch: they must be at least 16 pixels"),
        (lambda: ViT("separate").build({"images.front": (7, 8, 3)}, 0, 1), "at least 8 pixels"),
        (lambda: TINY_RESNET.build({"images.depth": (40, 48, 1)}, 0, 1), "'images.depth' has 1 channels"),
        (lambda: ViT(jitter=JITTER).build({"images.depth": (40, 48, 1)}, 0, 1), "'images.depth' with 1 channels"),
        (
            lambda: TINY_RESNET.build({"images.front": (32, 32, 3)}, 0, 1),
            "one point, whose place never changes: .* more than 32",
        ),
        (
            lambda: ResNet(crop=(30, 30)).build(CAMERAS, 0, 1),
            "one point, whose place never changes: .* more than 32",
        ),
        (lambda: TINY_VIT.build({}, 3, 1), "needs a camera"),
    ],
)
def test_impossible_encoders_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_the_smallest_pictures_work():
    assert TINY_VIT.build({"c": (16, 16, 3)}, 0, 1).transformer.patches == 1
    assert ViT("separate").build({"c": (8, 8, 3)}, 0, 1).transformer.patches == 1
    encoder = TINY_RESNET.build({"c": (1, 33, 3)}, 0, 1)
    features = encoder(state(8, times=1), pictures(8, times=1, cameras={"c": (1, 33, 3)}))
    assert len(features.unique(dim=0)) == 8
