"""Mazes of cells one metre wide: Gymnasium-Robotics' maps, geometry, shortest ways, and the MuJoCo model.

A map is a sequence of rows of cells: 1 wall, 0 free, "r" a start, "g" a goal, "c" either. Row 0 is at the
top, where y is largest.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from ..errors import UserError

Cell = tuple[int, int]
Map = tuple[tuple[int | str, ...], ...]

WALL_HEIGHT = 0.4
"""metres"""

MAPS = {
    "UMaze": ("11111", "10001", "11101", "10001", "11111"),
    "Open": ("1111111", "1000001", "1000001", "1000001", "1111111"),
    "Open_Diverse_G": ("1111111", "1rgggg1", "1ggggg1", "1ggggg1", "1111111"),
    "Open_Diverse_GR": ("1111111", "1ccccc1", "1ccccc1", "1ccccc1", "1111111"),
    "Medium": (
        "11111111",
        "10011001",
        "10010001",
        "11000111",
        "10010001",
        "10100101",
        "10001001",
        "11111111",
    ),
    "Medium_Diverse_G": (
        "11111111",
        "1r011001",
        "100100g1",
        "11000111",
        "10010001",
        "1g100101",
        "10001g01",
        "11111111",
    ),
    "Medium_Diverse_GR": (
        "11111111",
        "1c011001",
        "100100c1",
        "11000111",
        "10010001",
        "1c100101",
        "10001c01",
        "11111111",
    ),
    "Large": (
        "111111111111",
        "100001000001",
        "101101010101",
        "100000010001",
        "101111011101",
        "100101000001",
        "110101010111",
        "100100010001",
        "111111111111",
    ),
    "Large_Diverse_G": (
        "111111111111",
        "1r0001g00001",
        "101101010101",
        "10000g0100g1",
        "101111011101",
        "10g101000001",
        "110101010111",
        "1001g0g10g01",
        "111111111111",
    ),
    "Large_Diverse_GR": (
        "111111111111",
        "1c0001c00001",
        "101101010101",
        "10000c0100c1",
        "101111011101",
        "10c101000001",
        "110101010111",
        "1001c0c10c01",
        "111111111111",
    ),
}


def named_map(name: str) -> Map:
    """One of `MAPS` as cells."""
    return tuple(tuple(int(cell) if cell in "01" else cell for cell in row) for row in MAPS[name])


@dataclass(frozen=True)
class Maze:
    """A maze centred on the origin."""

    cells: Map

    def __post_init__(self) -> None:
        known = {0, 1, "r", "g", "c"}
        if not self.cells or any(len(row) != len(self.cells[0]) for row in self.cells):
            raise UserError("maze_map must have rows of equal length")
        if strange := {cell for row in self.cells for cell in row} - known:
            raise UserError(f"maze_map holds {sorted(map(str, strange))}: cells are 0, 1, 'r', 'g' or 'c'")
        if not len(self.goals) or not len(self.starts):
            raise UserError("maze_map needs a cell for the start and one for the goal")

    @property
    def shape(self) -> Cell:
        """Rows and columns."""
        return len(self.cells), len(self.cells[0])

    @property
    def starts(self) -> np.ndarray:
        """Centres (.., 2) where episodes may start, in the order in which they are drawn."""
        return self._places("r")

    @property
    def goals(self) -> np.ndarray:
        """Centres (.., 2) of possible goals, in the order in which they are drawn."""
        return self._places("g")

    def _places(self, mark: str) -> np.ndarray:
        # Cells with the mark, then those marked for either use; without any, every unmarked free cell.
        return self.centers(np.array(self._marked(mark) + self._marked("c") or self._marked(0)).reshape(-1, 2))

    @property
    def walls(self) -> np.ndarray:
        """Centres (.., 2) of the walls."""
        return self.centers(np.array(self._marked(1)).reshape(-1, 2))

    def _marked(self, mark: int | str) -> list[Cell]:
        rows, columns = self.shape
        return [(i, j) for i in range(rows) for j in range(columns) if self.cells[i][j] == mark]

    def is_free(self, cell: Cell) -> bool:
        """Whether a cell lies within the maze and is no wall."""
        (i, j), (rows, columns) = cell, self.shape
        return 0 <= i < rows and 0 <= j < columns and self.cells[i][j] != 1

    def centers(self, cells: np.ndarray) -> np.ndarray:
        """Cells (..., 2) as row and column -> their centres (..., 2) as x and y."""
        rows, columns = self.shape
        return np.stack((cells[..., 1] + 0.5 - columns / 2, rows / 2 - (cells[..., 0] + 0.5)), -1)

    def cell_of(self, xy: np.ndarray) -> np.ndarray:
        """Positions (..., 2) -> cells (..., 2), kept within the maze."""
        rows, columns = self.shape
        cell = np.stack((np.floor(rows / 2 - xy[..., 1]), np.floor(xy[..., 0] + columns / 2)), -1).astype(int)
        return np.clip(cell, 0, (rows - 1, columns - 1))

    def next_cells(self, goal: Cell) -> np.ndarray:
        """Shortest ways to `goal`: for every cell the next one, (rows, columns, 2), or itself."""
        rows, columns = self.shape
        step = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1)
        seen, queue = {goal}, deque([goal])
        while queue:
            i, j = queue.popleft()
            for cell in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if self.is_free(cell) and cell not in seen:
                    seen.add(cell)
                    step[cell] = i, j
                    queue.append(cell)
        return step


MODEL = """
<mujoco model="pointmaze">
  <compiler angle="radian" inertiafromgeom="true"/>
  <option timestep="0.01" gravity="0 0 0" iterations="20" integrator="Euler"/>
  <default>
    <joint type="slide" damping="1"/>
    <geom condim="1" friction="0.5 0.1 0.1" density="1000" margin="0.002" contype="1" conaffinity="1"/>
    <motor ctrllimited="true" ctrlrange="-1 1" gear="100"/>
  </default>
  <visual><headlight ambient="0.5 0.5 0.5" diffuse="0.6 0.6 0.6" specular="0 0 0"/></visual>
  <worldbody>
    <geom name="floor" type="plane" size="40 40 0.25" pos="0 0 -0.1" conaffinity="0" rgba="0.93 0.93 0.95 1"/>
    <body name="point">
      <joint name="x" axis="1 0 0"/>
      <joint name="y" axis="0 1 0"/>
      <geom name="ball" type="sphere" size="0.1" rgba="0.15 0.35 0.8 1"/>
    </body>
{walls}
    <site name="goal" size="0.2" pos="0 0 {middle}" rgba="0.9 0.2 0.2 0.7"/>
  </worldbody>
  <actuator><motor name="x" joint="x"/><motor name="y" joint="y"/></actuator>
</mujoco>
"""


def maze_model(maze: Maze) -> str:
    """MJCF of a ball (4.2 kg, two motors of 100 N) among the walls of a maze."""
    middle = WALL_HEIGHT / 2
    walls = "\n".join(
        f'    <geom type="box" pos="{x} {y} {middle}" size="0.5 0.5 {middle}" rgba="0.55 0.55 0.6 1"/>'
        for x, y in maze.walls.tolist()
    )
    return MODEL.format(walls=walls, middle=middle)
