"""Results as text: a line per case, and the losing ones once more at the end."""

from __future__ import annotations

import statistics
from typing import Any

SHORT = {"torch-compile": "compile", "fastdl-eager": "fd eager", "onnxruntime": "onnxrt"}


def duration(seconds: float) -> str:
    """
    >>> duration(0.00123), duration(4.5e-7), duration(2.0)
    ('1.23 ms', '450 ns', '2.00 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size >= 100 else f"{seconds / size:#.3g} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def heading(engines: tuple[str, ...], roofline: bool) -> str:
    columns = "".join(f"{SHORT.get(e, e):>11}" for e in engines)
    return f"{'case':<44}{'T':>3}{columns}{'GFLOP/s':>9}{'GB/s':>7}{'  peak' if roofline else ''}{'ratio':>8}  best peer"


def line(row: dict[str, Any], engines: tuple[str, ...], roofline: bool) -> str:
    cells = row["engines"]
    columns = "".join(f"{duration(cells[e]['min']) if 'min' in cells.get(e, {}) else 'failed' if e in cells else '-':>11}" for e in engines)
    ours = next((cells[e] for e in ("fastdl", "fastdl-eager") if "min" in cells.get(e, {})), None)
    rates = f"{ours['gflops']:>9.1f}{ours['gbs']:>7.1f}" if ours and row["flops"] else f"{'':>9}{ours['gbs']:>7.1f}" if ours and row["bytes"] else " " * 16
    share = (f"{ours['share']:>6.0%}" if ours and (row["flops"] or row["bytes"]) else " " * 6) if roofline else ""
    ratio = f"{row['ratio']:>7.2f}x  {SHORT.get(row['best_peer'], row['best_peer'])}" if row["ratio"] else f"{'-':>8}"
    text = f"{row['case']:<44}{row['threads']:>3}{columns}{rates}{share}{ratio}"
    return text + "".join(f"\n    {e}: {c['error']}" for e, c in cells.items() if "error" in c)


def geometric_mean(values: list[float]) -> float:
    return statistics.geometric_mean(values) if values else float("nan")


def summary(result: dict[str, Any]) -> str:
    """Means by suite and thread count, then every case that a peer wins."""
    lines = []
    for threads, peaks in result["roofline"].items():
        figures = ", ".join(f"{k.replace('_gflops', ' GFLOP/s').replace('_gbs', ' GB/s')} {v:.1f}" for k, v in peaks.items() if isinstance(v, float))
        lines.append(f"peaks with {threads} thread{'s' if threads != '1' else ''} ({peaks.get('isa', '')}): {peaks.get('error') or figures}")
    groups: dict[tuple[str, int], list[float]] = {}
    for row in result["rows"]:
        if row["ratio"]:
            groups.setdefault((row["suite"], row["threads"]), []).append(row["ratio"])
    for (suite, threads), ratios in groups.items():
        lines.append(
            f"{suite}, threads {threads}: {geometric_mean(ratios):.2f}x the best peer (geometric mean of {len(ratios)}, "
            f"least {min(ratios):.2f}x, {sum(r >= 1 for r in ratios)} ahead)"
        )
    losing = sorted((r for r in result["rows"] if r["ratio"] and r["ratio"] < 1), key=lambda r: r["ratio"])
    if losing:
        lines.append(f"a peer is faster in {len(losing)}:")
        lines += [f"  {r['ratio']:.2f}x  {r['case']} (threads {r['threads']}, {r['best_peer']})" for r in losing]
    return "\n".join(lines)
