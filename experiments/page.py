"""The HTML page around a report: one file without scripts or links, light or dark by preference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme:light dark; --paper:#fff; --card:#f7f8fa; --ink:#1a202b; --muted:#667085; --grid:#e6e9ee;
  --rule:#d5dae2; --wall:#c3cad5; --good:#17803d; --bad:#b42318;
  --s0:#2f6bdb; --s1:#dd7116; --s2:#16936b; --s3:#a5489f; --s4:#b08a00; --s5:#7a8699;
  --s6:#c2374f; --s7:#0d8fa8; --s8:#6a4fd0; --s9:#7d9a10; --s10:#8c5a3c; --s11:#d05fa8 }
@media (prefers-color-scheme:dark) { :root { --paper:#12151b; --card:#1a1e26; --ink:#e8ebf0; --muted:#98a2b3;
  --grid:#2a303a; --rule:#39414e; --wall:#465062; --good:#4cc38a; --bad:#ff8a7d;
  --s0:#6ea0ff; --s1:#f59b4c; --s2:#4cc9a0; --s3:#d587d0; --s4:#dbb842; --s5:#98a4b8;
  --s6:#ff7d8e; --s7:#4cc4dc; --s8:#a48fff; --s9:#b7d24a; --s10:#c9946f; --s11:#ff9ad5 } }
* { box-sizing:border-box }
body { margin:0; background:var(--paper); color:var(--ink); font:15px/1.5 system-ui,-apple-system,"Segoe UI",
  Roboto,"Helvetica Neue",Arial,sans-serif; font-variant-numeric:tabular-nums }
main { max-width:1000px; margin:0 auto; padding:44px 28px 72px }
h1 { font-size:30px; line-height:1.2; letter-spacing:-.02em; margin:0 0 6px; font-weight:680 }
h2 { font-size:18px; letter-spacing:-.01em; margin:46px 0 14px; font-weight:640 }
h3 { font-size:14px; margin:22px 0 8px; font-weight:600 }
p { margin:6px 0 }
.meta, .note, small, figcaption { color:var(--muted) }
.meta { font-size:14px }
.note { font-size:13px; max-width:72ch }
.finding { font-size:17px; line-height:1.45; margin:22px 0 0; padding:14px 18px; background:var(--card);
  border-left:3px solid var(--s0); border-radius:0 8px 8px 0 }
.finding + .finding { margin-top:8px }
.scroll { overflow-x:auto; margin-top:18px }
table { border-collapse:collapse; width:100%; font-size:14px }
th { text-align:left; font-weight:500; color:var(--muted); font-size:12.5px; padding:6px 18px 6px 0;
  white-space:nowrap; border-bottom:1px solid var(--rule) }
td { padding:10px 18px 10px 0; white-space:nowrap; border-bottom:1px solid var(--grid) }
td small { display:block; font-size:12px }
td b { font-weight:620 }
tr:last-child td { border-bottom:0 }
td i, .legend i { display:inline-block; width:10px; height:10px; border-radius:3px; margin-right:8px }
.good { color:var(--good) }
.bad { color:var(--bad) }
.grid2 { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(380px,100%),1fr)); gap:20px }
.grid3 { display:grid; grid-template-columns:repeat(auto-fill,minmax(270px,1fr)); gap:18px 22px }
.beside { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(400px,100%),1fr)); gap:8px 36px }
.strip { display:grid; grid-template-columns:repeat(auto-fill,minmax(104px,1fr)); gap:10px }
.beside .strip { grid-template-columns:repeat(3,1fr) }
figure { margin:0; min-width:0 }
.plot figcaption { font-size:13.5px; font-weight:600; color:var(--ink); margin:0 0 4px }
.strip figcaption { font-size:12px; margin-top:3px; display:flex; justify-content:space-between;
  align-items:baseline }
.strip img { width:100%; display:block; border-radius:6px }
.plane svg { border-radius:8px }
.legend { display:flex; flex-wrap:wrap; gap:4px 20px; font-size:13px; margin:2px 0 10px }
.legend span { display:inline-flex; align-items:center }
svg { display:block; max-width:100%; overflow:hidden }
svg:not([width]) { width:100%; height:auto }
svg text { font:11px system-ui,-apple-system,"Segoe UI",Roboto,Arial,sans-serif; fill:var(--muted) }
svg text.on { fill:#fff; font-weight:600 }
.grid, .rail { stroke:var(--grid) }
.axis { stroke:var(--rule) }
.curve { fill:none; stroke-width:1.9; stroke-linejoin:round; stroke-linecap:round }
.band { opacity:.17 }
.spot { opacity:0 }
.spot:hover { opacity:1 }
.whisker { stroke-width:2.6; stroke-linecap:round }
.heat { fill:var(--s0); shape-rendering:crispEdges }
.wall { fill:var(--wall); shape-rendering:crispEdges }
.trace { fill:none; stroke-width:1.8; opacity:.75; stroke-linejoin:round }
.trace:hover { opacity:1; stroke-width:3 }
.start { fill:var(--paper); stroke-width:1.8 }
.goal { fill:var(--good); stroke:var(--paper); stroke-width:1.5 }
.fail { fill:none; stroke-width:2.2; stroke-linecap:round }
.panel { fill:var(--card); stroke:var(--grid) }
.chunk { fill:none; stroke-width:1.4; opacity:.55; stroke-linejoin:round }
details { border:1px solid var(--grid); border-radius:8px; margin:10px 0; background:var(--card) }
summary { cursor:pointer; padding:10px 14px; font-weight:560; font-size:14px }
details table { margin:0 14px 12px; width:calc(100% - 28px) }
details td { padding:4px 16px 4px 0; white-space:normal; overflow-wrap:anywhere;
  font:12px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace }
details td:first-child { color:var(--muted); width:42% }
@media print { main { max-width:none } details, figure { break-inside:avoid } }
"""


def page(title: str, body: str) -> str:
    """A complete HTML document."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading with what follows; nothing if nothing follows."""
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def figure(title: str, drawing: str) -> str:
    """A plot under its title."""
    return f'<figure class="plot"><figcaption>{escape(title)}</figcaption>{drawing}</figure>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; cells are HTML."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def details(title: str, values: Mapping[str, Any]) -> str:
    """A closed box that lists names and values."""
    rows = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in values.items())
    return f"<details><summary>{escape(title)}</summary><table>{rows}</table></details>"


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON as dotted names with plain values."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    dotted = {}
    for key, inner in value.items():
        dotted |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return dotted
