import errno
import os

import pytest

from noisepilot.errors import UserError
from noisepilot.files import append_line, atomic_folder, atomic_write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_write_makes_folders_and_replaces(tmp_path):
    path = tmp_path / "a/b/c.json"
    atomic_write(path, "é")
    atomic_write(path, b"second")
    assert path.read_bytes() == b"second"
    assert names(path.parent) == ["c.json"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_full_disk_keeps_the_old_content(tmp_path, monkeypatch):
    atomic_write(tmp_path / "a", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"cannot write .*/a: the disk is full; free some space"):
        atomic_write(tmp_path / "a", "new")
    with (
        pytest.raises(UserError, match=r"cannot write .*/set: the disk is full"),
        atomic_folder(tmp_path / "set"),
    ):
        pass
    assert (tmp_path / "a").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_a_forbidden_folder_is_named(tmp_path, monkeypatch):
    def forbidden(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("builtins.open", forbidden)
    with pytest.raises(UserError, match=r"cannot write .*/a: no permission; choose a folder you may write to"):
        atomic_write(tmp_path / "a", "new")


@pytest.mark.parametrize("name", ["a/b", "a/b/c"])
def test_a_file_in_the_way_is_named(tmp_path, name):
    (tmp_path / "a").write_text("")
    with pytest.raises(UserError, match="a file stands where a folder is needed; choose another path"):
        atomic_write(tmp_path / name, "x")


def test_folder_appears_whole(tmp_path):
    with atomic_folder(tmp_path / "x/set") as folder:
        (folder / "inner").mkdir()
        (folder / "inner/a").write_text("1")
        assert not (tmp_path / "x/set").exists()
    assert (tmp_path / "x/set/inner/a").read_text() == "1"
    assert names(tmp_path / "x") == ["set"]


def test_an_exception_leaves_nothing_behind(tmp_path):
    def interrupted():
        with atomic_folder(tmp_path / "set") as folder:
            (folder / "a").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == []


def test_folder_replaces_only_when_asked(tmp_path):
    for content in ("1", "2"):
        with atomic_folder(tmp_path / "set", replace=True) as folder:
            (folder / content).write_text(content)
    assert names(tmp_path / "set") == ["2"]
    with pytest.raises(UserError, match="set exists already"), atomic_folder(tmp_path / "set"):
        pass
    assert names(tmp_path) == ["set"]


def test_failed_replacement_puts_the_old_folder_back(tmp_path, monkeypatch):
    with atomic_folder(tmp_path / "set") as folder:
        (folder / "old").write_text("")
    replace = os.replace

    def failing(source, target):
        if str(target).endswith("/set") and not str(source).endswith("old.tmp") and (failing_once := failures):
            failing_once.pop()
            full()
        replace(source, target)

    failures = [None]
    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(UserError, match="the disk is full"), atomic_folder(tmp_path / "set", replace=True):
        pass
    assert names(tmp_path) == ["set"]
    assert names(tmp_path / "set") == ["old"]


def test_log_drops_half_a_line(tmp_path):
    path = tmp_path / "logs/metrics.jsonl"
    append_line(path, "one")
    with path.open("a") as file:
        file.write("cut off" * 2000)
    append_line(path, "two")
    assert path.read_text() == "one\ntwo\n"
    path.write_text("never finished")
    append_line(path, "three")
    assert path.read_text() == "three\n"
