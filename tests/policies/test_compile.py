"""torch.compile captures a policy. In a process of its own: the shape checks of the test run cannot be traced."""

import subprocess
import sys

SCRIPT = """
import torch
from noisepilot.policies import MLP, CosinePath, LinearPath, Policy, PolicyConfig, Sampler
from noisepilot.spec import ArraySpec

for path, predicts, eta in ((CosinePath(4), "eps", 1.0), (LinearPath(), "velocity", 0.0)):
    config = PolicyConfig(MLP((8, 8, 8)), path, Sampler(3, eta), predicts)
    policy = Policy(config, config.spec({"state": ArraySpec((3,))}, ArraySpec((2,))))
    for name, dim in (("state", 3), ("action", 2)):
        policy.normalizer.fit(name, -torch.ones(dim).numpy(), torch.ones(dim).numpy())
    features, noise = torch.randn(5, 3), policy.noise(5)
    with torch.no_grad():
        # The captured graph, run without a C++ compiler, which would take a minute.
        compiled = torch.compile(policy.forward, backend="aot_eager")(features, noise)
        assert (compiled - policy(features, noise)).abs().max() < 1e-5
"""


def test_compiled_forward_gives_the_same_chunk():
    subprocess.run([sys.executable, "-W", "error", "-c", SCRIPT], check=True, timeout=120)
