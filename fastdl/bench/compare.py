"""Two result files side by side: which cases got slower."""

from __future__ import annotations

import dataclasses
from typing import Any

from .table import duration, geometric_mean


@dataclasses.dataclass
class Change:
    case: str
    threads: int
    before: float  # seconds of fastdl, minimum
    after: float
    ratio_before: float | None  # speed of fastdl / speed of the best peer
    ratio_after: float | None
    regression: bool

    @property
    def speed(self) -> float:
        """After / before: above 1 is faster."""
        return self.before / self.after


def _ours(row: dict[str, Any]) -> float | None:
    return next((row["engines"][e]["min"] for e in ("fastdl", "fastdl-eager") if "min" in row["engines"].get(e, {})), None)


def compare(before: dict[str, Any], after: dict[str, Any], tolerance: float = 0.1) -> list[Change]:
    """The cases that both results have.

    A case is a regression when fastdl got slower by more than `tolerance` and, where both runs timed the same peer, also slower in
    relation to it: a machine that is slower on that day slows the peer as well.
    """
    earlier = {(r["case"], r["threads"]): r for r in before["rows"]}
    changes = []
    for row in after["rows"]:
        old = earlier.get((row["case"], row["threads"]))
        a, b = (_ours(old) if old else None), _ours(row)
        if old is None or a is None or b is None:
            continue
        slower = b > a * (1 + tolerance)
        common = set(old["ratios"]) & set(row["ratios"])
        if slower and common:
            slower = geometric_mean([row["ratios"][e] / old["ratios"][e] for e in common]) < 1 / (1 + tolerance)
        changes.append(Change(row["case"], row["threads"], a, b, old["ratio"], row["ratio"], slower))
    return changes


def show(changes: list[Change]) -> str:
    """A table, regressions marked."""
    if not changes:
        return "no case is in both files"
    lines = [f"{'case':<44}{'T':>3}{'before':>11}{'after':>11}{'speed':>8}{'ratio before':>14}{'after':>8}"]
    for c in changes:
        ratios = "".join(f"{r:>{w - 1}.2f}x" if r else f"{'-':>{w}}" for r, w in ((c.ratio_before, 14), (c.ratio_after, 8)))
        mark = "  REGRESSION" if c.regression else ""
        lines.append(f"{c.case:<44}{c.threads:>3}{duration(c.before):>11}{duration(c.after):>11}{c.speed:>7.2f}x{ratios}{mark}")
    bad = sum(c.regression for c in changes)
    mean = geometric_mean([c.speed for c in changes])
    lines.append(f"{len(changes)} cases: {mean:.2f}x as fast (geometric mean); {bad or 'no'} regression{'s' if bad != 1 else ''}")
    return "\n".join(lines)
