"""Tables for people and JSON for programs.

Owns: how rows are laid out, with rich on a terminal where it is installed, as plain text elsewhere.
Does not know: what the rows are about.
"""

import json
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence

import click

_WIDTH_OF_A_PIPE = 120
_LEAST_COLUMN = 16


def when(until: float | None) -> str:
    """ " until 14:05:00", with the day where it is not today; nothing where there is no end."""
    if until is None:
        return ""
    then = time.localtime(until)
    is_today = then[:3] == time.localtime()[:3]
    return time.strftime(" until %H:%M:%S" if is_today else " until %a %d %b %H:%M", then)


def print_json(value: object) -> None:
    click.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def print_line(text: str) -> None:
    """On a terminal wrapped between words, further lines indented; elsewhere as it is, to be searched."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, max(width, _LEAST_COLUMN), subsequent_indent="    ", break_on_hyphens=False)
    click.echo(text)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "") -> None:
    """One line per row, or several where a cell has to be wrapped. Nothing is printed where there is no row."""
    if not rows:
        return
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not (sys.stdout.isatty() and _print_rich(columns, cells, title)):
        click.echo(
            plain_table(columns, cells, title=title, width=shutil.get_terminal_size((_WIDTH_OF_A_PIPE, 0)).columns)
        )


def _print_rich(columns: Sequence[str], cells: Sequence[Sequence[str]], title: str) -> bool:
    """False where rich is not installed (it belongs to an extra), or its frame would make it wrap more."""
    framed = sum(_widths([columns, *cells], sys.maxsize)[0]) + 3 * len(columns) + 1
    if framed > shutil.get_terminal_size().columns:
        return False
    try:
        from rich.console import Console  # noqa: PLC0415 - optional
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415
    except ImportError:
        return False
    table = Table(title=title or None, title_justify="left")
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if _is_numeric(cells, position) else "left", overflow="fold")
    for row in cells:
        # Text, not markup: a reason may hold [brackets].
        table.add_row(*map(Text, row))
    Console().print(table)
    return True


def plain_table(columns: Sequence[str], cells: Sequence[Sequence[str]], *, title: str = "", width: int) -> str:
    """The table as text, no wider than `width` where its columns can be wrapped."""
    widths, gap = _widths([columns, *cells], width)
    numeric = [_is_numeric(cells, position) for position in range(len(columns))]
    lines = textwrap.wrap(title, width)
    lines += _row_lines(columns, widths, numeric, gap)
    lines.append(gap.join("-" * one for one in widths))
    for row in cells:
        lines += _row_lines(row, widths, numeric, gap)
    return "\n".join(lines) + "\n"


def _is_numeric(cells: Sequence[Sequence[str]], position: int) -> bool:
    return all(row[position].replace(".", "", 1).isdecimal() for row in cells if row[position])


def _widths(rows: Sequence[Sequence[str]], width: int) -> tuple[list[int], str]:
    """The widths of the columns, and what stands between them.

    Where the widest cells are too much the widest columns are wrapped, then the columns stand closer, and at last even
    narrow ones are wrapped, as long as no word is cut.
    """
    widths = [max(len(row[position]) for row in rows) for position in range(len(rows[0]))]
    gaps = len(widths) - 1
    _shrink(widths, [_LEAST_COLUMN] * len(widths), width - 2 * gaps)
    if sum(widths) + 2 * gaps <= width:
        return widths, "  "
    _shrink(widths, [_longest_word(rows, position) for position in range(len(widths))], width - gaps)
    return widths, " "


def _shrink(widths: list[int], least: Sequence[int], room: int) -> None:
    while sum(widths) > room and (wrappable := [i for i, one in enumerate(widths) if one > least[i]]):
        widths[max(wrappable, key=lambda i: widths[i])] -= 1


def _longest_word(rows: Sequence[Sequence[str]], position: int) -> int:
    return min(_LEAST_COLUMN, max((len(word) for row in rows for word in row[position].split()), default=1))


def _row_lines(row: Sequence[str], widths: Sequence[int], numeric: Sequence[bool], gap: str) -> list[str]:
    wrapped = [textwrap.wrap(cell, one) or [""] for cell, one in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, wrapped))):
        parts = [cell[number] if number < len(cell) else "" for cell in wrapped]
        aligned = [
            part.rjust(one) if right else part.ljust(one)
            for part, one, right in zip(parts, widths, numeric, strict=True)
        ]
        lines.append(gap.join(aligned).rstrip())
    return lines
