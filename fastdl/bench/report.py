"""The HTML report: one file with inline SVG, no script and no network."""

from __future__ import annotations

import html
import math
from typing import Any

from .table import SHORT, duration, geometric_mean

# Engines in the order of the legends, with their colours on a light and on a dark page.
COLOURS = {
    "fastdl": ("#1a6fb0", "#5cb0ee"),
    "fastdl-eager": ("#7fb2d8", "#2f7fb8"),
    "torch": ("#d9541e", "#ff8a57"),
    "torch-compile": ("#a23c12", "#d8622f"),
    "jax": ("#7a4fb5", "#b492ea"),
    "onnxruntime": ("#8a6d1f", "#d9b75a"),
    "numpy": ("#3d8b5f", "#6cc795"),
}
PAGE = {  # likewise
    "ink": ("#1c2430", "#dde3ea"),
    "muted": ("#5b6675", "#97a3b2"),
    "paper": ("#ffffff", "#14181e"),
    "line": ("#e1e6ec", "#2b333d"),
    "won": ("#14713d", "#58c487"),
    "lost": ("#b3261e", "#ff8177"),
}


def _variables(which: int) -> str:
    return " ".join(f"--{name}: {pair[which]};" for name, pair in (PAGE | COLOURS).items())


STYLE = f"""
:root {{ color-scheme: light dark; {_variables(0)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(1)} }} }}
body {{ font: 15px/1.45 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: var(--ink); background: var(--paper) }}
h1 {{ margin-bottom: 0 }} h2 {{ margin-top: 2em; border-bottom: 1px solid var(--line) }} .muted {{ color: var(--muted) }}
.wide {{ overflow-x: auto }} .wide svg {{ display: block; width: 100%; min-width: 720px; height: auto }}
table {{ border-collapse: collapse; font-size: 13px; width: 100% }}
th, td {{ padding: 3px 8px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left; white-space: normal; min-width: 8em; position: sticky; left: 0; background: var(--paper) }}
td.lost {{ color: var(--lost); font-weight: 600 }} td.won {{ color: var(--won) }}
svg text {{ font: 12px system-ui, sans-serif; fill: var(--ink) }} svg .muted {{ fill: var(--muted) }}
svg .grid {{ stroke: var(--line) }} svg .axis {{ stroke: var(--ink); fill: none }} svg .won {{ fill: var(--won) }} svg .lost {{ fill: var(--lost) }}
""" + "".join(f"svg .{name} {{ fill: var(--{name}) }}\n" for name in COLOURS)


def esc(text: object) -> str:
    return html.escape(str(text), quote=True)


def ratio_bars(rows: list[dict[str, Any]]) -> str:
    """A bar per case on a logarithmic axis: to the right of 1 fastdl is faster than the best peer."""
    rows = [r for r in rows if r["ratio"]]
    if not rows:
        return "<p>No peer was measured.</p>"
    ahead = math.ceil(math.log2(max(4.0, *(r["ratio"] for r in rows))))  # powers of two to the right of 1, and to its left
    behind = math.ceil(math.log2(max(2.0, *(1 / r["ratio"] for r in rows))))
    left = 20 + 6.4 * max(len(r["case"]) for r in rows)
    right, step, head = 960, 18, 34
    unit = (right - left) / (ahead + behind)
    middle = left + behind * unit
    height = head + step * len(rows) + 8
    parts = [f'<div class="wide"><svg viewBox="0 0 1000 {height}" role="img" aria-label="Speed of fastdl against the best peer">']
    for power in range(-behind, ahead + 1):
        if ahead + behind > 10 and power % 2:
            continue
        x = middle + power * unit
        label = f"{2**power}x" if power >= 0 else f"1/{2**-power}x"
        parts.append(f'<line x1="{x:.1f}" y1="{head - 8}" x2="{x:.1f}" y2="{height}" class="{"grid" if power else "axis"}"/>')
        parts.append(f'<text class="muted" x="{x:.1f}" y="{head - 14}" text-anchor="middle">{label}</text>')
    for i, row in enumerate(rows):
        y, x = head + i * step, middle + math.log2(row["ratio"]) * unit
        begin, width = min(x, middle), max(abs(x - middle), 1)
        parts.append(f'<text x="{left - 8:.1f}" y="{y + 11}" text-anchor="end">{esc(row["case"])}</text>')
        parts.append(
            f'<rect x="{begin:.1f}" y="{y + 1}" width="{width:.1f}" height="{step - 5}" class="{"won" if row["ratio"] >= 1 else "lost"}">'
            f"<title>{esc(row['case'])}: {row['ratio']:.2f}x {esc(row['best_peer'])}</title></rect>"
        )
        right_side = row["ratio"] >= 1
        near = x + 4 if right_side else x - 4
        parts.append(f'<text x="{near:.1f}" y="{y + 11}" text-anchor="{"start" if right_side else "end"}">{row["ratio"]:.2f}</text>')
    return "\n".join([*parts, "</svg></div>"])


def roofline_plot(rows: list[dict[str, Any]], peaks: dict[str, Any]) -> str:
    """GFLOP/s over FLOP per byte, both logarithmic, under the two measured limits."""
    points = [
        (row["flops"] / row["bytes"], cell["gflops"], engine, row["case"])
        for row in rows
        for engine, cell in row["engines"].items()
        if cell.get("gflops") and row["bytes"]
    ]
    peak, memory = peaks.get("fp32_gflops"), max(peaks.get("copy_gbs", 0), peaks.get("add_gbs", 0))
    if not points or not peak or not memory:
        return ""
    x0, x1 = math.floor(math.log10(min(p[0] for p in points))), math.ceil(math.log10(max(*(p[0] for p in points), peak / memory) * 1.01))
    y0, y1 = math.floor(math.log10(min(p[1] for p in points))), math.ceil(math.log10(max(*(p[1] for p in points), peak) * 1.01))
    left, right, top, bottom = 70, 980, 20, 420

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (math.log10(x) - x0) / (x1 - x0) * (right - left), bottom - (math.log10(y) - y0) / (y1 - y0) * (bottom - top)

    parts = ['<div class="wide"><svg viewBox="0 0 1000 490" role="img" aria-label="Roofline">']
    for e in range(x0, x1 + 1):
        x, _ = at(10.0**e, 10.0**y0)
        parts.append(f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" class="grid"/>')
        parts.append(f'<text class="muted" x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{10.0**e:g}</text>')
    for e in range(y0, y1 + 1):
        _, y = at(10.0**x0, 10.0**e)
        parts.append(f'<line x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text class="muted" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{10.0**e:g}</text>')
    ridge = peak / memory
    low = max(10.0**x0, 10.0**y0 / memory)
    corners = [at(low, low * memory), at(ridge, peak), at(10.0**x1, peak)]
    parts.append(f'<polyline points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}" class="axis" stroke-width="2"/>')
    parts.append(f'<text x="{corners[2][0]:.1f}" y="{corners[2][1] - 6:.1f}" text-anchor="end">{peak:.0f} GFLOP/s fp32</text>')
    x, y = at(math.sqrt(low * ridge), math.sqrt(low * ridge) * memory)
    parts.append(f'<text x="{x - 8:.1f}" y="{y - 8:.1f}" text-anchor="end">{memory:.1f} GB/s memory</text>')
    engines = [e for e in COLOURS if any(p[2] == e for p in points)]
    for engine in reversed(engines):  # fastdl on top; engines side by side, as many cases share an intensity
        for intensity, rate, name, case in points:
            if name == engine:
                x, y = at(intensity, rate)
                x += 7 * (engines.index(engine) - (len(engines) - 1) / 2)
                parts.append(
                    f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if engine.startswith("fastdl") else 3.5}" class="{engine}" fill-opacity="0.75">'
                    f"<title>{esc(case)}, {engine}: {rate:.1f} GFLOP/s</title></circle>"
                )
    parts.append(f'<text x="{(left + right) / 2}" y="{bottom + 38}" text-anchor="middle">floating-point operations per byte (engines beside each other)</text>')
    parts.append(f'<text x="16" y="{(top + bottom) / 2}" text-anchor="middle" transform="rotate(-90 16 {(top + bottom) / 2})">GFLOP/s</text>')
    for i, engine in enumerate(engines):
        x = left + 140 * i
        parts.append(f'<circle cx="{x + 6}" cy="{bottom + 58}" r="5" class="{engine}"/><text x="{x + 16}" y="{bottom + 62}">{engine}</text>')
    return "\n".join([*parts, "</svg></div>"])


def _table(rows: list[dict[str, Any]], roofline: bool) -> str:
    engines = [e for e in COLOURS if any(e in r["engines"] for r in rows)]
    heads = ["case", *(SHORT.get(e, e) for e in engines), "GFLOP/s", "GB/s", *(["of peak"] if roofline else []), "ratio", "best peer"]
    lines = ['<div class="wide"><table><thead><tr>' + "".join(f"<th>{esc(h)}</th>" for h in heads) + "</tr></thead><tbody>"]
    for row in rows:
        cells = [f"<td>{esc(row['case'])}</td>"]
        for engine in engines:
            cell = row["engines"].get(engine)
            if cell is None:
                cells.append("<td>-</td>")
            elif "error" in cell:
                cells.append(f'<td class="lost" title="{esc(cell["error"])}">failed</td>')
            else:
                cells.append(f'<td title="median {duration(cell["median"])} of {cell["samples"]}">{duration(cell["min"])}</td>')
        ours: dict[str, Any] = next((row["engines"][e] for e in ("fastdl", "fastdl-eager") if "min" in row["engines"].get(e, {})), {})
        cells.append(f"<td>{ours['gflops']:.1f}</td>" if ours and row["flops"] else "<td></td>")
        cells.append(f"<td>{ours['gbs']:.1f}</td>" if ours and row["bytes"] else "<td></td>")
        if roofline:
            cells.append(f"<td>{ours['share']:.0%}</td>" if ours.get("share") else "<td></td>")
        ratio = row["ratio"]
        cells.append(f'<td class="{"won" if ratio >= 1 else "lost"}">{ratio:.2f}x</td>' if ratio else "<td>-</td>")
        cells.append(f"<td>{esc(row['best_peer'] or '-')}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


NAMES = {"steps": "Training steps", "ops": "Operations", "conv-sweep": "Convolution sweep"}


def page(result: dict[str, Any]) -> str:
    """The report of a result as a complete HTML document."""
    m = result["machine"]
    versions = ", ".join(f"{e} {v}" for e, v in result["versions"].items())
    settings = result["settings"]
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>fastdl bench</title><style>{STYLE}</style></head><body>",
        "<h1>fastdl bench</h1>",
        f'<p class="muted">{esc(result["created"])} · {esc(m["cpu"])}, {m["processors"]} processors, {m["memory_gb"]} GB, {esc(m["isa"])} · '
        f"{esc(m['system'])}, Python {esc(m['python'])}<br>{esc(versions)}<br>{settings['seconds']:g} s and {settings['rounds']} interleaved rounds per "
        "case and engine; times are minima. Ratio: speed of fastdl / speed of the best peer; above 1 fastdl is faster.</p>",
    ]
    for threads in settings["threads"]:
        rows = [r for r in result["rows"] if r["threads"] == threads]
        peaks = result["roofline"].get(str(threads), {})
        plural = "s" if threads != 1 else ""
        plot = roofline_plot(rows, peaks)
        if plot:
            parts += [f"<h2>Roofline, {threads} thread{plural}</h2>", plot]
        for suite, title in NAMES.items():
            chosen = [r for r in rows if r["suite"] == suite]
            if chosen:
                ratios = [r["ratio"] for r in chosen if r["ratio"]]
                text = ""
                if ratios:
                    text = f"<p>Geometric mean {geometric_mean(ratios):.2f}x, least {min(ratios):.2f}x; "
                    text += f"ahead in {sum(r >= 1 for r in ratios)} of {len(ratios)}.</p>"
                parts += [f"<h2>{title}, {threads} thread{plural}</h2>", text, ratio_bars(chosen), _table(chosen, bool(peaks.get("fp32_gflops")))]
    return "\n".join([*parts, "</body></html>\n"])
