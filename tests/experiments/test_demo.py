"""The demo from its first command to its last, too short to learn anything."""

from noisepilot.deploy.runtime import Policy
from noisepilot.experiments.cli import main


def test_quick(tmp_path, capfd):
    assert main(["demo", "--quick", "--out", str(tmp_path / "demo")]) == 0
    out = capfd.readouterr().out
    assert "inference ms" in out
    assert "tuned" in out
    assert "<svg" in (tmp_path / "demo" / "report.html").read_text()
    assert Policy.load(tmp_path / "demo" / "policy.onnx").spec.env == "PointMaze_Medium-v3"


def test_it_replaces_nothing_but_a_demo(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path / "thesis.tex")]) == 2
    assert (tmp_path / "thesis.tex").exists()
