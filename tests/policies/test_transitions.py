"""The transition against textbook formulas that share no code with it (float64)."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from noisepilot.errors import UserError
from noisepilot.policies import CosinePath, LinearPath, Sampler, Transitions
from noisepilot.policies.sampler import denoise

TOLERANCE = 1e-12
quick = settings(deadline=None, max_examples=60)


@st.composite
def diffusions(draw):
    """A table of up to 100 levels and a sampler that visits some of them."""
    levels = draw(st.integers(1, 100))
    return CosinePath(levels), draw(st.integers(1, levels))


numbers = st.floats(-2, 2, allow_nan=False)
clips = st.sampled_from([None, 0.3, 1.0])


def mean(transitions: Transitions, output: float, x: float, k: int) -> float:
    """Of one number, by both ways of naming the transition."""
    o, x_ = (torch.full((1, 1, 1), v, dtype=torch.float64) for v in (output, x))
    one = transitions.mean(o, x_, k).item()
    row = transitions.mean(o, x_, torch.tensor([k])).item()
    assert abs(one - row) <= TOLERANCE * max(1, abs(one))
    return one


def bars(path: CosinePath, transitions: Transitions) -> tuple[np.ndarray, np.ndarray]:
    """alpha_bar before and after each transition, from the diffusion indices that a sampler visits."""
    levels, steps = path.levels, transitions.steps
    index = [i * (levels // steps) for i in reversed(range(steps))]
    table = path.alpha_bar()
    after = [table[i - levels // steps] if i >= levels // steps else 1.0 for i in index]
    return table[index], np.array(after)


def clipped(data: float, bound: float | None) -> float:
    return data if bound is None else min(max(data, -bound), bound)


def near(ours: float, theirs: float, scale: float = 1.0) -> None:
    assert abs(ours - theirs) <= TOLERANCE * max(1.0, scale)


@quick
@given(diffusions(), numbers, numbers, clips, st.sampled_from(["eps", "data"]))
def test_eta_1_is_the_ddpm_posterior(case, output, x, bound, predicts):
    path, steps = case
    transitions = Transitions(path, predicts, Sampler(steps, 1.0, bound))
    for k, (bar, after) in enumerate(zip(*bars(path, transitions), strict=True)):
        alpha, beta = bar / after, 1 - bar / after
        data = clipped((x - np.sqrt(1 - bar) * output) / np.sqrt(bar) if predicts == "eps" else output, bound)
        posterior = (np.sqrt(after) * beta * data + np.sqrt(alpha) * (1 - after) * x) / (1 - bar)
        near(mean(transitions, output, x, k), posterior, abs(data))
        near(transitions.std[k] ** 2, beta * (1 - after) / (1 - bar))


@quick
@given(diffusions(), numbers, numbers, clips, st.floats(0, 1), st.sampled_from(["eps", "data"]))
def test_any_eta_is_ddim_with_eps_recomputed_from_the_clipped_data(case, output, x, bound, eta, predicts):
    path, steps = case
    transitions = Transitions(path, predicts, Sampler(steps, eta, bound))
    for k, (bar, after) in enumerate(zip(*bars(path, transitions), strict=True)):
        data = clipped((x - np.sqrt(1 - bar) * output) / np.sqrt(bar) if predicts == "eps" else output, bound)
        eps = (x - np.sqrt(bar) * data) / np.sqrt(1 - bar)
        std = eta * np.sqrt((1 - after) / (1 - bar)) * np.sqrt(1 - bar / after)
        direction = np.sqrt(max(1 - after - std**2, 0))
        # Near the last step 1 - after - std^2 nearly cancels: the square root keeps half of the digits.
        scale = abs(data) + abs(eps)
        assert abs(mean(transitions, output, x, k) - (np.sqrt(after) * data + direction * eps)) <= 1e-11 * max(1, scale)
        near(transitions.std[k], std)


@quick
@given(st.integers(1, 100), numbers, numbers, clips)
def test_eta_0_on_the_linear_path_is_eulers_step(steps, output, x, bound):
    velocity = Transitions(LinearPath(), "velocity", Sampler(steps, 0.0, bound))
    data = Transitions(LinearPath(), "data", Sampler(steps, 0.0, bound))
    for k in range(steps):
        t = k / steps
        v = (clipped(x + (1 - t) * output, bound) - x) / (1 - t)
        near(mean(velocity, output, x, k), x + v / steps, abs(v))
        v = (clipped(output, bound) - x) / (1 - t)
        near(mean(data, output, x, k), x + v / steps, abs(v))
    assert (velocity.std == 0).all()


@quick
@given(st.one_of(diffusions(), st.tuples(st.just(LinearPath()), st.integers(2, 60))), numbers, numbers)
def test_eta_1_is_bayes_rule_on_any_path(case, data, x):
    """Prior x_s | data times likelihood x_t | x_s, two Gaussians multiplied."""
    path, steps = case
    transitions = Transitions(path, "data", Sampler(steps, 1.0, None))
    alpha, sigma = path.alpha_sigma(path.grid(steps))
    for k in range(steps - 1):  # the last step's prior is a point
        a = alpha[k] / alpha[k + 1]
        likelihood = sigma[k] ** 2 - (a * sigma[k + 1]) ** 2
        precision = 1 / sigma[k + 1] ** 2 + a**2 / likelihood
        posterior = (alpha[k + 1] * data / sigma[k + 1] ** 2 + a * x / likelihood) / precision
        near(mean(transitions, data, x, k), posterior, 10.0)
        near(transitions.std[k] ** 2, 1 / precision, 10.0)
    near(mean(transitions, data, x, steps - 1), data)
    near(transitions.std[-1], 0.0)


@quick
@given(diffusions(), st.floats(0, 1), st.floats(0, 0.5))
def test_floors_never_enter_the_mean(case, eta, floor):
    transitions = Transitions(case[0], "eps", Sampler(case[1], eta, 1.0))
    before = transitions.coefficients.copy()
    assert (transitions.floored(floor) == np.where(transitions.std > floor, transitions.std, floor)).all()
    assert (transitions.coefficients == before).all()
    assert np.isfinite(before).all()


def test_dppo_stds_of_twenty_steps():
    """The table that DPPO's documentation prints, noisiest first."""
    printed = [0.996, 0.857, 0.731, 0.641, 0.573, 0.519, 0.474, 0.435, 0.401, 0.369, 0.339]
    printed += [0.311, 0.283, 0.255, 0.226, 0.195, 0.162, 0.123, 0.076, 0]
    assert np.abs(Transitions(CosinePath(20), "eps", Sampler(20, 1.0, 1.0)).std - printed).max() < 6e-4


@pytest.mark.parametrize("steps", [0, 21, -1])
def test_more_steps_than_levels_are_refused(steps):
    with pytest.raises(UserError, match=f"sampler steps {steps} .* levels 20"):
        CosinePath(20).grid(steps)


@pytest.mark.parametrize("eta", [0.7, 2**0.5])
def test_a_flows_sde_keeps_its_marginals(eta):
    """Exact velocity of N(0.7, 0.25) on the linear path: the end of 400 noisy steps has that mean and variance."""
    transitions = Transitions(LinearPath(), "velocity", Sampler(400, eta, None, 10.0, transition="sde"))
    t, mean, var = transitions.t, 0.7, 0.25
    x_var = t**2 * var + (1 - t) ** 2

    def velocity(k, x):
        # E[data - noise | x] of jointly Gaussian variables
        return mean + (t[k] * var - (1 - t[k])) / x_var[k] * (x - t[k] * mean)

    noise = torch.randn(20_000, 401, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = denoise(velocity, transitions, noise)
    assert end.mean().item() == pytest.approx(mean, abs=0.02)
    assert end.var().item() == pytest.approx(var, abs=0.02)


def test_ddim_noise_keeps_the_variance():
    """Exact eps of N(0.7, 0.25): with the mean's -std^2 the end has variance 0.24 after 200 steps, without it 2.8."""
    path = CosinePath(200)
    transitions = Transitions(path, "eps", Sampler(200, 1.0, None, 10.0))
    alpha, sigma = path.alpha_sigma(transitions.t)
    x_var = alpha**2 * 0.25 + sigma**2
    noise = torch.randn(20_000, 201, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = denoise(lambda k, x: sigma[k] / x_var[k] * (x - alpha[k] * 0.7), transitions, noise)
    assert end.var().item() == pytest.approx(0.25, abs=0.02)


def test_the_sde_is_a_flows_alone():
    with pytest.raises(UserError, match="sde"):
        _ = Transitions(CosinePath(4), "eps", Sampler(4, transition="sde")).coefficients


def test_consistency_sampling_draws_the_noise_anew():
    coefficients = Transitions(LinearPath(), "velocity", Sampler(4, 0.0, transition="renoise")).coefficients
    assert coefficients[2].tolist() == [0.25, 0.5, 0.75, 1.0]  # of the data
    assert coefficients[3].tolist() == [0, 0, 0, 0]  # of x
    assert coefficients[4].tolist() == [0.75, 0.5, 0.25, 0.0]  # of the noise
