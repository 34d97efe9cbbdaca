import io

import numpy as np
import pytest
import torch

from noisepilot.errors import UserError
from noisepilot.experiments import drawings
from noisepilot.experiments.evaluate import evaluate
from noisepilot.experiments.pictures import (
    load_pictures,
    record_chain,
    record_film,
    record_trajectories,
    save_pictures,
    walls,
)
from noisepilot.experiments.png import png
from noisepilot.policies.policy import Policy, PolicyConfig
from noisepilot.spec import ArraySpec, EnvSpec

from .toys import SPEC, Line, Pusher


class Drawable(Line):
    """A line that can be drawn, or says why not."""

    def __init__(self, num_envs, error=""):
        super().__init__(num_envs)
        self.error = error

    def render(self, slot=0, width=320, height=240):
        if self.error:
            raise UserError(self.error)
        return np.full((height, width, 3), int(100 + 50 * self.x[slot]), np.uint8)


def test_png_is_read_by_pillow():
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (13, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.asarray(image.open(io.BytesIO(png(pixels)))), pixels)


@pytest.mark.parametrize("num_envs", [2, 9])
def test_trajectories_are_the_episodes_of_evaluation(num_envs):
    record = record_trajectories(Pusher(), Line(num_envs), range(5))
    ledger = evaluate(Pusher(), Line(1), range(5))
    for i, episode in enumerate(record["episodes"]):
        states = np.array(episode["states"]["state"])
        assert states.shape == (ledger.length[i] + 1, 1)
        assert episode["success"] == (states[-1, 0] >= 1) == (ledger.success[i] == 1)
        assert states[0, 0] == pytest.approx(np.random.default_rng(i).uniform(-1, 0), abs=1e-4)


def test_film_has_the_first_and_the_last_frame():
    film = record_film(Pusher(), Drawable(2), 3, frames=4, width=16)
    length = len(film["episode"]["states"]["state"]) - 1
    assert (film["times_s"][0], film["times_s"][-1]) == (0, length / SPEC.control_hz)
    assert len(film["frames"]) == 4
    assert drawings.film(film, 0).count("<img") == 4


def test_without_graphics_the_states_are_drawn():
    film = record_film(Pusher(), Drawable(1, error="no <GL> here"), 3)
    assert film["frames"] == []
    drawing = drawings.film(film, 0)
    assert "Drawn from states, not rendered: no &lt;GL&gt; here" in drawing
    assert 'class="heat"' in drawing


def test_chain_in_physical_units():
    config = PolicyConfig(horizon=4, n_action_steps=2)
    policy = Policy(config, config.spec({"state": ArraySpec((3,))}, ArraySpec((2,))))
    for name, size in (("state", 3), ("action", 2)):
        policy.normalizer.fit(name, np.full(size, -2.0), np.full(size, 4.0))
    noise = policy.noise(3, torch.Generator().manual_seed(0))
    obs = {"state": torch.zeros(3, 1, 3)}
    record = record_chain(policy, obs, noise)
    x = np.array(record["x"])
    steps = config.sampler.steps
    assert x.shape == (3, steps + 1, 4, 2)
    np.testing.assert_allclose(x[:, 0], 1 + 3 * noise[:, 0].numpy(), atol=1e-3)
    np.testing.assert_allclose(x[:, -1], policy.act(obs, noise).detach().numpy(), atol=1e-3)
    assert (record["t"][0], record["t"][-1]) == pytest.approx((0, 1), abs=1e-3)
    assert drawings.chain(record).count("<figure>") == min(9, steps + 1)


def test_walls_of_point_mazes():
    maze = walls(EnvSpec("PointMaze_UMaze-v3", {}, ArraySpec((2,)), 10.0, 300))
    assert len(maze) == 18
    assert [-2.5, 1.5, 1.0, 1.0] in maze
    assert walls(EnvSpec("PointMaze_UMaze_Dense-v3", {}, ArraySpec((2,)), 10.0, 300)) == maze
    assert walls(SPEC) == []


def test_plane_shows_walls_paths_and_failures():
    states = {"state": [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], "goal": [[1.0, 0.0], [1.0, 0.0]]}
    episodes = [{"seed": 1, "success": s, "return": 1.0, "states": states} for s in (True, False)]
    record = {"walls": [[-1.5, -1.5, 1.0, 1.0], [1.5, 1.5, 1.0, 1.0]], "episodes": episodes}
    assert drawings.has_plane(record)
    drawing = drawings.plane({"base": record}, {"base": 5})
    assert drawing.count('class="wall"') == 2
    assert drawing.count('class="trace"') == 2
    assert drawing.count('class="fail"') == 1
    assert "1 of 2 reach the goal" in drawing
    assert not drawings.has_plane({"walls": [], "episodes": [{"states": {"state": [[0.0, 0.0]]}}]})


def test_pictures_are_added_by_name(tmp_path):
    path = tmp_path / "pictures.json"
    save_pictures(path, "base", chain={"x": 1})
    save_pictures(path, "tuned", chain={"x": 2}, film={"frames": []})
    save_pictures(path, "base", chain={"x": 3})
    content = load_pictures(path)
    assert content["chains"] == {"base": {"x": 3}, "tuned": {"x": 2}}
    assert list(content["films"]) == ["tuned"]
    path.write_text('{"schema": 99}')
    with pytest.raises(UserError, match="another version"):
        load_pictures(path)
