"""A one-step student: it becomes its teacher, pairing noise with action."""

import torch

from noisepilot.algos.bc import BC
from noisepilot.algos.distill import Distill
from noisepilot.algos.students import couple
from noisepilot.policies import MLP, LinearPath, Sampler

from ..policies.toys import KINDS, generator, jolt, observe, tiny

RELU = MLP((64, 64, 64), time_dim=4)


def test_the_teacher_takes_no_noise_between_its_steps():
    renoising = tiny("flow", sampler=Sampler(4, transition="renoise"))
    for policy in (*map(tiny, KINDS), renoising):
        teacher = Distill().teacher(policy)
        assert teacher.config.sampler.deterministic
        assert teacher.network is policy.network
        noise = policy.noise(4, generator(), steps=True)
        features = policy.encode(observe(policy)).features
        expected = teacher.sample(teacher.context(features), noise).action
        seed = generator(2)
        start, action = couple(teacher, teacher.context(features), seed)
        assert start.shape == action.shape == (4, 3, 2)
        again = teacher.sample(teacher.context(features), start[:, None]).action
        assert (again - action).abs().max() < 1e-12
        only_first = teacher.sample(teacher.context(features), noise[:, :1]).action
        assert (only_first - expected).abs().max() < 1e-12
        assert not action.requires_grad


def test_a_tuned_policy_teaches_with_both_networks():
    policy = tiny().split(5)
    jolt(policy.network, 0.5)
    teacher = Distill().teacher(policy)
    assert teacher.first_tuned == 15
    student = Distill().student(teacher)
    assert student.prefix is None
    assert (student.config.sampler.steps, student.config.path, student.config.predicts) == (1, LinearPath(), "data")
    assert student.normalizer.state_dict().keys() == policy.normalizer.state_dict().keys()
    for name, value in student.normalizer.named_buffers():
        assert (value == policy.normalizer.get_buffer(name)).all()


def test_a_one_step_teacher_is_learned():
    teacher = tiny(
        "flow data", network=RELU, sampler=Sampler(1, 0.0), path=LinearPath(), n_obs_steps=1, dtype=torch.float32
    )
    distill = Distill(fit=BC(grad_steps=600, lr=5e-3, lr_final=1e-5, ema_decay=0.9))
    torch.manual_seed(1)
    student = distill.student(teacher)
    state, g = distill.fit.init(student), generator()
    features = torch.randn(4096, 3, generator=g)
    losses = [
        distill.update(state, teacher, features[torch.randint(4096, (256,), generator=g)], g).item() for _ in range(600)
    ]

    obs = {"state": torch.randn(500, 1, 3, generator=generator(8))}
    noise = teacher.noise(500, generator(9))
    expected, action = teacher.act(obs, noise), state.averaged().act(obs, noise)
    assert losses[-1] < 0.02 * losses[0]
    assert (action - expected).square().mean() < 0.02 * expected.var(0).mean()
