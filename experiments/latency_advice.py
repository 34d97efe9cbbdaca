"""What a curve of success against delay advises, in plain words."""

from __future__ import annotations

import numpy as np

from .compare import Difference, difference
from .latency import Cell, Curve
from .plots import number, percent

STARVING = 0.02
"""share of ticks without a plan from which on it is worth a word"""
JERKY = 1.5
"""jerk at seams over jerk inside chunks, likewise"""


def advise(curve: Curve) -> list[str]:
    """Sentences: which mode and how many actions at which delay, what is lost all the same, and what would help."""
    chosen = {delay: choose(curve, cells) for delay, cells in curve.at.items()}
    said = _choices(curve, chosen)
    said += _losses(curve, chosen)
    said += _starving(curve, chosen)
    said += _seams(curve)
    episodes = len(curve.cells[0].played.ledger)
    if episodes < 50:
        said.append(
            f"With {episodes} episodes intervals are wide: measure 100 or more before you rely on a difference."
        )
    return said


def choose(curve: Curve, cells: list[Cell]) -> Cell:
    """The cell to run at a delay: the simplest mode that no other surely beats, in success or else in time to it."""
    best = cells[0]
    for cell in cells[1:]:
        found, sooner = versus(curve, best, cell), seconds_saved(best, cell)
        saves = sooner is not None and sooner.sure and sooner.difference.mean < 0
        if found.difference.mean > 0 if found.sure else saves:
            best = cell
    return best


def versus(curve: Curve, a: Cell, b: Cell) -> Difference:
    """B's value minus A's over the same episodes."""
    ours, theirs = a.played.ledger, b.played.ledger
    if curve.binary:
        return difference(ours.success, theirs.success, binary=True)
    return difference(ours.returns, theirs.returns)


def seconds_saved(a: Cell, b: Cell) -> Difference | None:
    """B's time to success minus A's, over episodes in which both succeed; None without any."""
    ours, theirs = a.played.ledger.goal_s, b.played.ledger.goal_s
    both = np.isfinite(ours) & np.isfinite(theirs)
    return difference(ours[both], theirs[both]) if both.any() else None


def _choices(curve: Curve, chosen: dict[float, Cell]) -> list[str]:
    said = []
    for delays in _runs(chosen):
        cells = [chosen[delay] for delay in delays]
        mode, counts = cells[0].chunking.mode, list(dict.fromkeys(str(cell.chunking.execute) for cell in cells))
        span = f"{delays[0]:g}" if len(delays) == 1 else f"{delays[0]:g} to {delays[-1]:g}"
        words = f"At {span} ms: {mode}, execute {', then '.join(counts)} of {curve.horizon} actions"
        said.append(f"{words} ({_values(curve, cells)}). {_why(curve, {delay: chosen[delay] for delay in delays})}")
    return said


def _why(curve: Curve, chosen: dict[float, Cell]) -> str:
    mode = next(iter(chosen.values())).chunking.mode
    against = {delay: other for delay in chosen if (other := _other(curve.at[delay], mode)) is not None}
    if not against:
        over = any(text.endswith(f" at {delay:g} ms") for text in curve.skipped for delay in chosen)
        return "In other modes a chunk is over before it arrives." if over else "Nothing else was measured."
    if not any(cell.ticks for cell in chosen.values()):
        return "Without delay the modes do not differ."
    if mode == "sync":
        return "No other mode is shown to be better, and it is the simplest."
    found = {delay: versus(curve, other, chosen[delay]) for delay, other in against.items()}
    sure = {delay: one.difference.mean for delay, one in found.items() if one.sure and one.difference.mean > 0}
    if sure:
        delay = max(sure, key=lambda delay: sure[delay])
        return f"At {delay:g} ms {against[delay].chunking.mode} reaches {_value(curve, found[delay].a)}."
    delay = max(against)
    sooner, other = seconds_saved(against[delay], chosen[delay]), against[delay].chunking.mode
    beaten = (
        ""
        if sooner is None
        else f"; at {delay:g} ms {mode} gets there in {sooner.b:.3g} s, {other} in {sooner.a:.3g} s"
    )
    return f"No mode is surely better{beaten}."


def _other(cells: list[Cell], mode: str) -> Cell | None:
    """What a chosen mode is held against: sync, or else any other."""
    others = [cell for cell in cells if cell.chunking.mode != mode]
    return next((cell for cell in others if cell.chunking.mode == "sync"), others[0] if others else None)


def _losses(curve: Curve, chosen: dict[float, Cell]) -> list[str]:
    delays = list(chosen)
    first, kept = chosen[delays[0]], delays[0]
    for delay in delays[1:]:
        found = versus(curve, first, chosen[delay])
        if found.sure and found.difference.mean < 0:
            scale, unit = (100, " points") if curve.binary else (1, "")
            low, high = sorted(-scale * x for x in (found.difference.low, found.difference.high))
            lost = f"{number(-scale * found.difference.mean)}{unit} (95 % interval {number(low)} to {number(high)})"
            held = f"Up to {kept:g} ms nothing is surely lost; at" if kept > delays[0] else "At"
            return [
                f"{held} {delay:g} ms even the best mode loses {lost}: bring the delay below that "
                "(fewer denoising steps, a distilled policy, a nearer or faster computer)."
            ]
        kept = delay
    return [f"Up to {kept:g} ms nothing is surely lost against {delays[0]:g} ms."] if kept > delays[0] else []


def _starving(curve: Curve, chosen: dict[float, Cell]) -> list[str]:
    for delay, cell in chosen.items():
        if cell.chunking.mode != "sync" and cell.played.starved > STARVING:
            lasts, share = 1e3 * curve.horizon / curve.hz, percent(round(cell.played.starved, 3))
            return [
                f"From {delay:g} ms on, {cell.chunking.mode} finds no plan for {share} of the ticks: a "
                f"chunk lasts {lasts:g} ms, and two delays have to fit. A policy with a horizon of "
                f"{2 * cell.ticks} or more actions would go on without waiting."
            ]
    return []


def _seams(curve: Curve) -> list[str]:
    """How hard each mode jerks, at the longest delay at which most of them were played."""
    delayed = {delay: cells for delay, cells in curve.at.items() if cells[0].ticks}
    if not delayed:
        return []
    delay = max(delayed, key=lambda delay: (len({cell.chunking.mode for cell in delayed[delay]}), delay))
    found: dict[str, float] = {}
    for cell in delayed[delay]:
        if ratio := roughness(cell):
            found.setdefault(cell.chunking.mode, ratio)
    if max(found.values(), default=0.0) < JERKY:
        return []
    times = ", ".join(f"{mode} {number(ratio)}" for mode, ratio in found.items())
    rough = found.get("async", 0.0) >= JERKY and "rtc" not in found
    cure = (
        "; --ensemble 0.1, or rtc where the policy has it, smooths async"
        if rough and curve.cells[0].chunking.ensemble is None
        else ""
    )
    return [f"Commands jerk so many times as hard where chunks meet as inside, at {delay:g} ms: {times}{cure}."]


def roughness(cell: Cell) -> float | None:
    """Jerk at seams over jerk inside chunks; None where either is unknown."""
    seams, inside = cell.played.jerk["seams"], cell.played.jerk["inside"]
    return seams / inside if seams is not None and inside else None


def _runs(chosen: dict[float, Cell]) -> list[list[float]]:
    """Neighbouring delays at which one mode is chosen."""
    runs: list[list[float]] = []
    for delay, cell in chosen.items():
        if runs and chosen[runs[-1][-1]].chunking.mode == cell.chunking.mode:
            runs[-1].append(delay)
        else:
            runs.append([delay])
    return runs


def _values(curve: Curve, cells: list[Cell]) -> str:
    means = [_value(curve, curve.value(cell).mean) for cell in cells]
    return " to ".join(dict.fromkeys([means[0], means[-1]]))


def _value(curve: Curve, value: float) -> str:
    return percent(value) if curve.binary else f"a return of {number(value)}"
