"""The verb `ros2`: an exported policy in a ROS 2 node; imports no torch."""

from __future__ import annotations


def ros2(argv: list[str]) -> int:
    """`noisepilot ros2 POLICY --topics FILE [--gate FILE] [--ros-args ...]`; returns the exit code."""
    from ..deploy.runtime.ros2 import main

    return main(argv)
