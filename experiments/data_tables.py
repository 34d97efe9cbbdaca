"""How the data verbs print a table."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: drawn on a terminal, aligned text elsewhere."""
    if not sys.stdout.isatty():
        widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
        lines = [title, *("  ".join(map(str.ljust, row, widths)).rstrip() for row in [header, *rows])]
        print("\n".join(line for line in lines if line))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", show_header=any(header))
    for name in header:
        table.add_column(name)
    for row in rows:
        table.add_row(*row)
    Console(markup=False).print(table)
