import json
import shutil
import zipfile

import numpy as np
import pytest

from noisepilot.datasets.checks import check
from noisepilot.datasets.readers import load
from noisepilot.errors import UserError

zarr = pytest.importorskip("zarr")


@pytest.fixture
def buffer(tmp_path):
    from numcodecs import Blosc

    def write(change=lambda group: None, **arrays):
        rng = np.random.default_rng(0)
        arrays = {
            "action": rng.normal(size=(9, 2)).astype(np.float32),
            "state": rng.normal(size=(9, 5)).astype(np.float32),
            "img": rng.integers(0, 255, (9, 6, 6, 3), np.uint8),
            "keypoint": rng.normal(size=(9, 4, 2)),
        } | arrays
        folder = tmp_path / "buffer.zarr"
        group = zarr.open_group(folder, mode="w", zarr_format=2)
        for key, value in arrays.items():
            made = group.create_array(
                f"data/{key}",
                shape=value.shape,
                chunks=(4, *value.shape[1:]),
                dtype=value.dtype,
                compressors=Blosc("zstd"),
            )
            made[:] = value
        ends = group.create_array("meta/episode_ends", shape=(3,), dtype="i8")
        ends[:] = [2, 6, 9]
        change(folder)
        return folder, arrays

    return write


def zipped(folder, prefix="", extra=()):
    path = folder.with_suffix(".zarr.zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, prefix + str(file.relative_to(folder)))
        for name, content in extra:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("prefix", [None, "", "pusht/"])
def test_a_folder_and_an_archive_are_read_alike(buffer, prefix):
    folder, arrays = buffer()
    episodes = load(folder if prefix is None else zipped(folder, prefix))
    assert episodes.ends.tolist() == [2, 6, 9]
    assert sorted(episodes.obs_specs()) == ["image", "keypoint", "state"]
    np.testing.assert_array_equal(episodes.data["observation.image"], arrays["img"])
    np.testing.assert_array_equal(episodes.data["action"], arrays["action"])


def cut(file):
    file.write_bytes(file.read_bytes()[:50])


def edit(name, **changes):
    def change(folder):
        file = folder / name / ".zarray"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            edit("data/state", dtype="|O", filters=[{"id": "pickle"}]),
            "'data/state' holds objects, which may be pickled",
        ),
        (edit("data/state", filters=[{"id": "pickle", "protocol": 4}]), "'data/state' is packed by 'pickle'"),
        (edit("data/state", compressor={"id": "imagecodecs_jpeg2k"}), "is packed by 'imagecodecs_jpeg2k'"),
        (edit("data/state", chunks=[2**40, 5]), "'data/state' has chunks of"),
        (edit("data/state", shape=[8, 5]), r"'data/state' has shape \(8, 5\) but the episodes sum up to 9"),
        (edit("data/state", dtype="<U4"), "type <U4, not numbers"),
        (lambda folder: shutil.rmtree(folder / "data/action"), "has no 'data/action': it has img, keypoint, state"),
        (lambda folder: (folder / "data/state/.zarray").write_text("{"), "damaged metadata"),
        (lambda folder: (folder / "data/state/.zarray").write_text("[" * 100_000), "damaged metadata"),
        (edit("data/state", filters=[{"id": "blosc"}]), "'data/state' has Blosc among its filters"),
        (
            edit("data/state", shape=[9, 10**12], chunks=[1, 1]),
            "'data/state' has .* and claims 36,000,000,000,000",
        ),
        (edit("meta/episode_ends", dtype="<f8"), "'meta/episode_ends' must hold whole numbers"),
        (lambda folder: cut(folder / "data/img/1.0.0.0"), "'data/img/1.0.0.0' is cut off: .*copy it again"),
        (lambda folder: (folder / "data/state/0.0").write_bytes(b"\x02\x01\x21\x04garbage"), "cannot be read"),
    ],
)
@pytest.mark.parametrize("as_zip", [False, True])
def test_faults_are_named(buffer, change, message, as_zip):
    folder, _ = buffer(change)
    with pytest.raises(UserError, match=message) as error:
        load(zipped(folder) if as_zip else folder)
    assert "buffer.zarr" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "data/../../evil", "C:\\evil", "..\\evil"])
def test_archives_that_lead_out_are_refused(buffer, name, tmp_path):
    with pytest.raises(UserError, match="leads out of it"):
        load(zipped(buffer()[0], extra=[(name, "x")]))
    assert not list(tmp_path.parent.glob("evil"))


def test_decompression_bombs_are_refused(buffer, monkeypatch):
    from noisepilot.datasets import archive

    folder, _ = buffer()
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as bomb:
        for file in (f for f in folder.rglob("*") if f.is_file()):
            bomb.write(file, str(file.relative_to(folder)))
        bomb.writestr("data/state/9.0", bytes(2**25))
    assert path.stat().st_size < 2**16
    monkeypatch.setattr(archive, "FREE_BYTES", 2**20)
    with pytest.raises(UserError, match=r"claims 33,5.* unpacked: refused as a decompression bomb"):
        load(path)


def test_consolidated_metadata_is_not_believed(buffer):
    folder, arrays = buffer()
    found = {str(file.relative_to(folder)): json.loads(file.read_text()) for file in folder.rglob(".z*")}
    found["data/state/.zarray"] |= {"filters": [{"id": "pickle"}], "dtype": "<f8"}
    (folder / ".zmetadata").write_text(json.dumps({"zarr_consolidated_format": 1, "metadata": found}))
    np.testing.assert_array_equal(load(folder).data["observation.state"], arrays["state"])


def test_arrays_behind_a_link_are_refused(buffer, tmp_path):
    folder, _ = buffer()
    (folder / "data/state").rename(tmp_path / "elsewhere")
    (folder / "data/state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"buffer.zarr: 'data/state' is a link to a folder"):
        load(folder)


def test_two_arrays_of_one_name_are_refused(buffer):
    with pytest.raises(UserError, match=r"'img' and 'rgb' would both become 'observation.image'|'rgb' and 'img'"):
        load(buffer(rgb=np.zeros((9, 6, 6, 3), np.uint8))[0])


def test_an_archive_damaged_inside_is_named(buffer):
    path = zipped(buffer()[0])
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("data/img/0.0.0.0").header_offset
    content[at + 90] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="Bad CRC-32"):
        load(path)


def test_chunks_that_are_absent_are_told(buffer):
    folder, _ = buffer(lambda folder: (folder / "data/state/1.0").unlink())
    episodes = load(folder)
    assert episodes.attrs["absent_chunks"] == {"observation.state": 1}
    found = [finding.message for finding in check(episodes) if finding.key == "observation.state"]
    assert found == ["1 chunks of the source had no file and hold its fill value: if it was copied, copy it again"]


def test_cut_off_archive_is_named(buffer):
    path = zipped(buffer()[0])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match="is not a readable archive"):
        load(path)
