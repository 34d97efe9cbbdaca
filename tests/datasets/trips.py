"""From any format to our zarr, to LeRobot and back."""

import pytest

from noisepilot.datasets.convert import convert
from noisepilot.datasets.lerobot_writer import write
from noisepilot.datasets.readers import load, open_source

pytest.importorskip("pyarrow", reason="pip install 'noisepilot[lerobot]'")
pytest.importorskip("av", reason="pip install 'noisepilot[lerobot]'")


def there_and_back(path, folder):
    """The set at `path` after the whole way, which changes nothing but what LeRobot has no place for."""
    ours, theirs, back = folder / "ours", folder / "theirs", folder / "back"
    assert convert(open_source(path), path, ours) == load(path).hash() == load(ours).hash()
    source = open_source(ours)
    write(theirs, source, codec="lossless", fps=0.0 if source.attrs.get("fps") else 10.0)
    convert(open_source(theirs), theirs, back)
    episodes, before = load(back), load(ours)
    assert {key: value.dtype for key, value in episodes.data.items()} == {k: v.dtype for k, v in before.data.items()}
    assert all((episodes.data[key] == value).all() for key, value in before.data.items())
    return episodes
