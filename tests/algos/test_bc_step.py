"""One gradient step of cloning: several draws per observation, in parts, in bfloat16."""

from dataclasses import replace

import pytest
import torch

from noisepilot.algos.bc import BC
from noisepilot.algos.distill import Distill
from noisepilot.algos.students import couple
from noisepilot.errors import UserError
from noisepilot.policies import MLP, Consistency, MeanFlow, Shortcut, UNet, precision

from ..policies.toys import TINY, generator, observe, tiny
from ..policies.vision.test_policy import CAMERA, scene, seeing
from .toys import weights

STEP = replace(TINY, step_size=True)
KINDS = {
    "ddpm": ("ddpm", {}),
    "flow": ("flow", {}),
    "shortcut": ("flow", {"network": STEP, "objective": Shortcut(bootstrap=0.5)}),
    "mean flow": ("flow", {"network": STEP, "objective": MeanFlow()}),
    "consistency": ("flow", {"objective": Consistency()}),
    "unet": ("flow", {"network": UNet((8, 16), groups=2, last_groups=2, time_dim=8), "horizon": 4}),
}
BATCH = 8


def make(kind, dtype=torch.float64):
    """A policy that sees nothing, or one that does, and data for it."""
    if kind == "sees":
        policy = seeing(times=2).to(dtype)
        obs, action = scene(BATCH, 0, times=2)
        return policy, {CAMERA: obs[CAMERA], "state": obs["state"].to(dtype)}, action.to(dtype)
    base, changes = KINDS[kind]
    policy = tiny(base, dtype=dtype, **changes)
    action = torch.randn(BATCH, policy.spec.horizon, 2, generator=generator(5), dtype=torch.float64)
    return policy, observe(policy, BATCH), action.to(dtype)


def gradient(kind, dtype=torch.float64, seed=3, **settings):
    """Of one step, and its loss."""
    policy, obs, action = make(kind, dtype)
    bc = BC(grad_steps=4, **settings)
    state = replace(bc, precision="float32").init(policy)  # bfloat16 is refused where it would be slow
    loss = bc.update(state, obs, action, generator(seed))
    return torch.cat([p.grad.flatten() for p in policy.network.parameters() if p.grad is not None]), loss


@pytest.mark.parametrize("kind", [*KINDS, "sees"])
def test_one_draw_is_the_objective_itself_to_the_last_bit(kind):
    policy, obs, action = make(kind, torch.float32)
    bc, g = BC(grad_steps=3, lr=1e-2), generator(3)
    optimizer = torch.optim.AdamW(policy.network.parameters(), weight_decay=bc.weight_decay, fused=True)
    for step in range(3):
        optimizer.param_groups[0]["lr"] = bc.learning_rate(step)
        draws = policy.draw_augmentation(BATCH, g)
        data = policy.normalizer.normalize("action", action)
        optimizer.zero_grad()
        policy.config.objective.loss(policy, policy.encode(obs, draws), data, g).mean().backward()
        optimizer.step()
    ours, g = make(kind, torch.float32)[0], generator(3)
    state = bc.init(ours)
    for _ in range(3):
        bc.update(state, obs, action, g)
    assert torch.equal(weights(ours.network), weights(policy.network))


@pytest.mark.parametrize("kind", [*KINDS, "sees"])
def test_draws_are_averaged_over_one_encoding(kind):
    """Against every draw by itself, each with an encoding of its own."""
    policy, obs, action = make(kind)
    objective, g, draws = policy.config.objective, generator(3), 3
    augment = policy.draw_augmentation(BATCH, g)
    data = policy.normalizer.normalize("action", action)
    points = objective.draw(policy, data.repeat_interleave(draws, 0), g)
    alone = [
        objective.loss_at(policy, policy.encode(obs, augment), data, points.rows(slice(i, None, draws))).mean()
        for i in range(draws)
    ]
    (sum(alone) / draws).backward()
    expected = torch.cat([p.grad.flatten() for p in policy.network.parameters() if p.grad is not None])
    found, loss = gradient(kind, draws=draws)
    assert (found - expected).abs().max() < 1e-12
    assert loss.item() == pytest.approx(sum(alone).item() / draws, abs=1e-12)
    assert len({round(x.item(), 6) for x in alone}) == draws


@pytest.mark.parametrize("kind", [*KINDS, "sees"])
@pytest.mark.parametrize("size", [1, 3])
def test_parts_have_the_gradient_of_the_whole(kind, size):
    """Some parts of the shortcut hold only rows that bootstrap, others none."""
    rounding = 5e-6 if kind == "consistency" else 1e-6  # it is a difference of neighbours
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, rounding)):
        whole, loss = gradient(kind, dtype, draws=2)
        parts, sum_of_parts = gradient(kind, dtype, draws=2, micro_batch=size)
        assert (parts - whole).norm() < tolerance * whole.norm()
        assert abs(sum_of_parts - loss) < tolerance * loss


def test_a_student_learns_from_draws_and_parts_alike():
    teacher = tiny("flow data")
    features = torch.randn(5, teacher.feature_dim, generator=generator(), dtype=torch.float64)
    found = []
    for size in (None, 2):
        distill = Distill(fit=BC(grad_steps=3, draws=3, micro_batch=size))
        torch.manual_seed(1)
        state = distill.fit.init(distill.student(teacher))
        losses = [distill.update(state, teacher, features, generator(7)).item() for _ in range(2)]
        found.append((weights(state.policy.network), losses))
    noise, action = couple(teacher, teacher.context(features.repeat_interleave(3, 0)), generator(7))
    torch.manual_seed(1)
    student = Distill().student(teacher)
    context = student.context(features.repeat_interleave(3, 0))
    expected = student.loss(context, action, torch.zeros(15, dtype=torch.float64), noise).mean()
    assert found[0][1][0] == pytest.approx(expected.item(), abs=1e-12)
    assert (found[0][0] - found[1][0]).abs().max() < 1e-9


@pytest.mark.parametrize("kind", [*KINDS, "sees"])
def test_gradients_in_bfloat16_point_the_same_way(kind):
    """Targets are made without gradients before the pass that has them: no cast may be kept from one to the other."""
    exact, _ = gradient(kind, torch.float32)
    rounded, loss = gradient(kind, torch.float32, precision="bfloat16")
    assert rounded.dtype == loss.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    assert torch.cosine_similarity(rounded, exact, 0) > 0.99
    assert 0.9 < rounded.norm() / exact.norm() < 1.1


def test_the_loss_falls_in_bfloat16_as_in_float32():
    """Actions follow from the state."""
    curves = {}
    for kind in ("float32", "bfloat16"):
        policy = tiny(
            "flow", network=MLP((32, 32, 32), time_dim=8), dtype=torch.float32, n_obs_steps=1, scale=False, obs={"s": 2}
        )
        seen = set()
        policy.network.trunk.register_forward_hook(lambda _, __, output, seen=seen: seen.add(output.dtype))
        bc, g = BC(grad_steps=200, lr=3e-3), generator(1)
        state = bc.init(policy)
        losses = []
        for _ in range(200):
            x = torch.rand(64, 1, 2, generator=g) * 2 - 1
            losses.append(replace(bc, precision=kind).update(state, {"s": x}, x.expand(-1, 3, -1), g).item())
        assert {x.dtype for p in policy.network.parameters() for x in (p, p.grad)} == {torch.float32}
        curves[kind] = torch.tensor(losses).view(10, 20).mean(1)
        assert seen == {getattr(torch, kind)}
    assert curves["float32"][-1] < 0.5 * curves["float32"][0]
    assert ((curves["bfloat16"] / curves["float32"]).log().abs() < 0.1).all()


def test_bfloat16_is_refused_where_no_processor_has_it(monkeypatch):
    monkeypatch.setattr(precision, "_processor_flags", lambda: {"avx512f", "avx512_vnni"})
    with pytest.raises(UserError, match=r"^this processor has no bfloat16 arithmetic.*set precision to float32$"):
        BC(precision="bfloat16").init(tiny())
    for flags in ({"avx512_bf16"}, {"amx_bf16"}, {"bf16", "neon"}):
        monkeypatch.setattr(precision, "_processor_flags", lambda flags=flags: flags)
        assert BC(precision="bfloat16").init(tiny()).step == 0
    assert not precision.has_bfloat16(torch.device("meta"))


@pytest.mark.parametrize(("settings", "words"), [({"draws": 0}, "draws"), ({"micro_batch": 0}, "micro_batch")])
def test_sizes_below_one_are_refused(settings, words):
    with pytest.raises(UserError, match=f"^{words} must be"):
        BC(**settings)
