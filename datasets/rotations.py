"""Rotations from one representation to another, through matrices; any leading shape, radians, float64 inside.

Representations and their sizes are `spec.ROTATIONS`. Quaternions q and -q are one rotation: the one with w >= 0
comes out. Axis-angle comes out with an angle in [0, pi]; Euler angles with y in [-pi/2, pi/2].
"""

from __future__ import annotations

import numpy as np

from ..errors import UserError, unknown
from ..spec import ROTATIONS


def convert(value: np.ndarray, source: str, target: str) -> np.ndarray:
    """(..., size of source) -> (..., size of target), in the type of `value`.

    Raises:
        UserError: for a name that is no representation, a last axis of another size, or numbers that are no rotation.
    """
    for name in (source, target):
        if name not in ROTATIONS:
            raise unknown("rotation", name, ROTATIONS)
    if value.shape[-1] != ROTATIONS[source]:
        raise UserError(f"a rotation as {source} has {ROTATIONS[source]} numbers, not {value.shape[-1]}")
    if source == target:
        return value
    return _FROM_MATRIX[target](_TO_MATRIX[source](value.astype(np.float64))).astype(value.dtype)


def _from_axis_angle(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector, axis=-1, keepdims=True)
    # sin(a/2)/a goes to 1/2 at 0, where the axis is undefined.
    scale = np.where(angle > 1e-12, np.sin(angle / 2) / np.where(angle > 1e-12, angle, 1.0), 0.5)
    return _from_xyzw(np.concatenate([scale * vector, np.cos(angle / 2)], -1))


def _from_xyzw(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = np.moveaxis(_unit(quaternion), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _from_euler(angles: np.ndarray) -> np.ndarray:
    (a, b, c), (sa, sb, sc) = np.moveaxis(np.cos(angles), -1, 0), np.moveaxis(np.sin(angles), -1, 0)
    rows = [  # Rz Ry Rx
        [c * b, c * sb * sa - sc * a, c * sb * a + sc * sa],
        [sc * b, sc * sb * sa + c * a, sc * sb * a - c * sa],
        [-sb, b * sa, b * a],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def _from_6d(value: np.ndarray) -> np.ndarray:
    first = _unit(value[..., :3])
    second = value[..., 3:] - (first * value[..., 3:]).sum(-1, keepdims=True) * first
    second = _unit(second)
    return np.stack([first, second, np.cross(first, second)], -2)


def _from_flat(value: np.ndarray) -> np.ndarray:
    matrix = value.reshape(*value.shape[:-1], 3, 3)
    if not np.allclose(matrix @ matrix.swapaxes(-1, -2), np.eye(3), atol=1e-3) or (np.linalg.det(matrix) < 0).any():
        raise UserError("these matrices are no rotations: their rows are not orthonormal, or they mirror")
    return matrix


def _to_xyzw(matrix: np.ndarray) -> np.ndarray:
    # Of four formulas, each exact, the one with the largest divisor: 4 times the largest component.
    m = matrix
    trace = m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2]
    squares = np.stack([1 - trace + 2 * m[..., i, i] for i in range(3)] + [1 + trace], -1)
    x, y, z = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    options = [
        np.stack([squares[..., 0], xy, xz, x], -1),
        np.stack([xy, squares[..., 1], yz, y], -1),
        np.stack([xz, yz, squares[..., 2], z], -1),
        np.stack([x, y, z, squares[..., 3]], -1),
    ]
    best = squares.argmax(-1)[..., None]
    chosen = np.select([best == i for i in range(4)], options)
    return _unit(np.where(chosen[..., 3:] < 0, -chosen, chosen))


def _to_axis_angle(matrix: np.ndarray) -> np.ndarray:
    quaternion = _to_xyzw(matrix)
    vector, w = quaternion[..., :3], quaternion[..., 3:]
    sine = np.linalg.norm(vector, axis=-1, keepdims=True)
    small = sine < 1e-12
    return vector * np.where(small, 2.0, 2 * np.arctan2(sine, w) / np.where(small, 1.0, sine))


def _to_euler(matrix: np.ndarray) -> np.ndarray:
    y = np.arcsin(np.clip(-matrix[..., 2, 0], -1, 1))
    # Looking straight up or down, x and z turn about one axis: all of it is put into x.
    locked = np.abs(matrix[..., 2, 0]) > 1 - 1e-9
    sign = -np.sign(matrix[..., 2, 0])
    x = np.arctan2(matrix[..., 2, 1], matrix[..., 2, 2])
    x = np.where(locked, np.arctan2(sign * matrix[..., 0, 1], matrix[..., 1, 1]), x)
    z = np.where(locked, 0.0, np.arctan2(matrix[..., 1, 0], matrix[..., 0, 0]))
    return np.stack([x, y, z], -1)


def _unit(vector: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vector, axis=-1, keepdims=True)
    if not (length > 1e-9).all():
        raise UserError("a rotation of length zero or NaN has no direction: check where the rotation begins")
    return vector / length


_TO_MATRIX = {
    "axis_angle": _from_axis_angle,
    "euler_xyz": _from_euler,
    "quat_xyzw": _from_xyzw,
    "quat_wxyz": lambda value: _from_xyzw(np.roll(value, -1, -1)),
    "6d": _from_6d,
    "matrix": _from_flat,
}
_FROM_MATRIX = {
    "axis_angle": _to_axis_angle,
    "euler_xyz": _to_euler,
    "quat_xyzw": _to_xyzw,
    "quat_wxyz": lambda matrix: np.roll(_to_xyzw(matrix), 1, -1),
    "6d": lambda matrix: matrix[..., :2, :].reshape(*matrix.shape[:-2], 6),
    "matrix": lambda matrix: matrix.reshape(*matrix.shape[:-2], 9),
}
