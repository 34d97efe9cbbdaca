"""robomimic's and robosuite's HDF5."""

import json

import h5py
import numpy as np
import pytest

from noisepilot.datasets.readers import load
from noisepilot.errors import UserError
from noisepilot.spec import Convention

OSC = {"type": "OSC_POSE", "control_delta": True}


@pytest.fixture
def robomimic(tmp_path):
    def write(controller=OSC, lengths=(3, 2, 4), change=lambda file: None):
        rng = np.random.default_rng(0)
        kwargs = {"control_freq": 10, "controller_configs": controller}
        with h5py.File(tmp_path / "demo.hdf5", "w") as file:
            data = file.create_group("data")
            data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": kwargs})
            for name, length in zip(("demo_0", "demo_2", "demo_10"), lengths, strict=True):
                demo = data.create_group(name)
                camera = rng.integers(0, 255, (length + 1, 4, 5, 3), np.uint8)
                position, turn = rng.normal(size=(length + 1, 3)), rng.normal(size=(length + 1, 4))
                for group, rows in (("obs", slice(0, -1)), ("next_obs", slice(1, None))):
                    demo[f"{group}/agentview_image"] = camera[rows]
                    demo[f"{group}/robot0_eef_pos"] = position[rows]
                    demo[f"{group}/robot0_eef_quat"] = turn[rows]
                demo["actions"] = np.full((length, 7), float(name[5:]))
                demo["actions_abs"] = np.zeros((length, 7))
                demo["rewards"] = np.arange(length) == length - 1
                demo["dones"] = np.ones(length)
                demo["states"] = rng.normal(size=(length, 9))
            file["mask/train"] = np.array([b"demo_10", b"demo_0"])
            change(file)
        return tmp_path / "demo.hdf5"

    return write


def test_robomimic(robomimic):
    path = robomimic()
    episodes = load(path)
    assert episodes.ends.tolist() == [3, 5, 9]
    assert episodes.data["action"][[0, 3, 5], 0].tolist() == [0, 2, 10]
    assert sorted(episodes.obs_specs()) == ["images.agentview", "robot0_eef_pos", "robot0_eef_quat"]
    assert episodes.data["sim_state"].shape == (9, 9)
    assert np.flatnonzero(episodes.data["next.terminated"]).tolist() == [2, 4, 8]
    assert not episodes.data["next.truncated"].any()
    assert episodes.returns().tolist() == [1, 1, 1]
    with h5py.File(path) as file:
        last = np.asarray(file["data/demo_2/next_obs/robot0_eef_pos"])[-1]
        np.testing.assert_array_equal(episodes.final["observation.robot0_eef_pos"][1], last)
        np.testing.assert_array_equal(
            episodes.data["observation.images.agentview"][:3], file["data/demo_0/obs/agentview_image"]
        )
    assert (episodes.attrs["env"], episodes.attrs["fps"]) == ("Lift", 10.0)
    assert episodes.attrs["file"]["env_args"]["type"] == 1
    assert json.dumps(episodes.attrs)


def test_robomimic_mask_and_absolute_actions(robomimic):
    path = robomimic()
    episodes = load(path, mask="train", actions="actions_abs")
    assert episodes.lengths.tolist() == [3, 4]
    assert episodes.action_spec().convention.mode == "absolute"
    for options, message in (
        ({"mask": "trian"}, "unknown mask 'trian': did you mean 'train'"),
        ({"actions": "nope"}, "has no 'nope' of one row per step: it has actions, actions_abs"),
        ({"msk": "x"}, "unknown option of robomimic .hdf5 'msk': did you mean 'mask'"),
    ):
        with pytest.raises(UserError, match=message):
            load(path, **options)


@pytest.mark.parametrize(
    ("controller", "convention"),
    [
        (OSC, Convention("delta", "world", "axis_angle", (3,), "closes", (6,))),
        ({**OSC, "control_delta": False}, Convention("absolute", "world", "axis_angle", (3,), "closes", (6,))),
        (
            {"body_parts": {"right": {"type": "OSC_POSE", "input_type": "absolute", "input_ref_frame": "base"}}},
            Convention("absolute", "base", "axis_angle", (3,), "closes", (6,)),
        ),
        ({"type": "JOINT_VELOCITY"}, Convention()),
    ],
)
def test_the_controller_says_what_actions_mean(robomimic, controller, convention):
    spec = load(robomimic(controller)).action_spec()
    assert spec.convention == convention
    assert spec.unit.startswith("1 is 0.05 m") == (convention.mode == "delta")


def drop(name):
    return lambda file: file.__delitem__(name)


def swap(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def twice(name):
    def change(file):
        file[name.replace("_image", "_rgb")] = file[name][()]

    return change


def args(**kwargs):
    return json.dumps({"env_kwargs": kwargs})


@pytest.mark.parametrize("controllers", ["OSC_POSE", [{"type": "OSC_POSE"}], {"body_parts": {"right": "OSC_POSE"}}])
def test_a_controller_in_another_form_says_nothing(robomimic, controllers):
    assert load(robomimic(controller=controllers)).action_spec().convention == Convention()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("data/demo_2/actions"), r"'/data/demo_2' has no 'actions'"),
        (drop("data/demo_2/obs"), r"'/data/demo_2' has no 'obs'"),
        (drop("data/demo_2/obs/robot0_eef_pos"), r"episode 1: .*robot0_eef_pos' is absent but float64 \(3,\)"),
        (swap("data/demo_2/actions", np.zeros((9, 7))), r"episode 1: .* has 2 rows but 'action' has 9"),
        (swap("data/demo_2/actions", np.array(["a", "b"], "S1")), r"'/data/demo_2/actions' has type \|S1"),
        (swap("data/demo_2/actions", np.zeros((2, 7), "f4")), r"episode 1: 'action' is float32 .* but float64"),
        (swap("data/demo_2/actions", 1.0), r"is a single number"),
        (swap("data/demo_2/actions", h5py.ExternalLink("/etc/passwd", "/x")), r"is a link to another file"),
        (lambda file: file["data"].attrs.__setitem__("env_args", "{"), r"'env_args' is not a JSON object"),
        (lambda file: file["data"].attrs.__setitem__("env_args", "[" * 50_000), r"'env_args' is not a JSON object"),
        (lambda file: file["data"].attrs.__setitem__("env_args", args(control_freq="x")), r"a control_freq of 'x'"),
        (twice("data/demo_0/obs/agentview_image"), r"'agentview_image' and 'agentview_rgb' would both become"),
    ],
)
def test_faults_are_named(robomimic, change, message):
    with pytest.raises(UserError, match=message) as error:
        load(robomimic(change=change))
    assert "demo.hdf5" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_link_that_leads_over_another_one_is_refused(robomimic, tmp_path):
    with h5py.File(tmp_path / "secret.hdf5", "w") as file:
        file["secret"] = np.zeros((2, 7))

    def change(file):
        file["elsewhere"] = h5py.ExternalLink(str(tmp_path / "secret.hdf5"), "/")
        del file["data/demo_2/actions"]
        file["data/demo_2/actions"] = h5py.SoftLink("/elsewhere/secret")

    with pytest.raises(UserError, match="'actions' is a link to another file"):
        load(robomimic(change=change))


def test_a_link_inside_the_file_is_followed(robomimic):
    def change(file):
        file["kept"] = file["data/demo_2/actions"][()]
        del file["data/demo_2/actions"]
        file["data/demo_2/actions"] = h5py.SoftLink("/kept")

    assert load(robomimic(change=change)).data["action"][3, 0] == 2


def test_rows_of_nothing_are_refused(robomimic):
    def change(file):
        del file["data/demo_0/states"]
        file.create_dataset("data/demo_0/states", (2**31, 9), "f8", chunks=True, compression="gzip")

    with pytest.raises(UserError, match=r"demo.hdf5: '/data/demo_0/states' has 0 bytes and claims 154,618,822,656"):
        load(robomimic(change=change))


def test_external_storage_is_refused(robomimic, tmp_path):
    (tmp_path / "secret").write_bytes(b"0123456789abcdef")

    def change(file):
        del file["data/demo_0/rewards"]
        file.create_dataset("data/demo_0/rewards", (2,), "f8", external=[(str(tmp_path / "secret"), 0, 16)])

    with pytest.raises(UserError, match="stored in another file"):
        load(robomimic(change=change))


def test_a_file_cut_anywhere_is_named(robomimic):
    path = robomimic()
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(UserError, match=r"demo.hdf5 is not a readable HDF5 file") as error:
            load(path)
        assert "\n" not in str(error.value)


def test_real_robosuite_demonstrations(shared_data):
    lift = load(shared_data / "demos/robosuite_lift_panda_human3.hdf5")
    assert (len(lift), lift.num_steps, lift.attrs["env"], lift.attrs["fps"]) == (3, 1384, "Lift", 20.0)
    assert lift.data["observation.sim_state"].shape == (1384, 32)
    assert lift.action_spec().convention.gripper_at == (6,)
    assert lift.attrs["env_kwargs"]["controller_configs"]["kp"] == 150
    stack = load(shared_data / "demos/robosuite_v1.0_stack_panda_human1.hdf5")
    assert (len(stack), stack.num_steps, stack.attrs["model_file"]) == (1, 532, "model_1.xml")
    assert stack.data["observation.joint_torques"].shape == (532, 7)
