"""One style of tables, in which nothing of the user's is markup or moves the cursor."""

import io
from pathlib import Path

import pytest

import avt_jax
from avt_jax.host.output import tables
from avt_jax.host.output.tables import PlainTable, new_console

NASTY = "[red]a[/red] [link=file:///x]b[/link] \x1b[2J\ttab\nline :smile:"
SHOWN = r"[red]a[/red] [link=file:///x]b[/link] \x1b[2J\ttab\nline :smile:"


def rendered(table, width=200):
    console = tables.Console(
        file=io.StringIO(), width=width, highlight=False, markup=False, force_terminal=False
    )
    console.print(table)
    return console.file.getvalue()


def test_names_are_shown_as_they_are_everywhere():
    table = PlainTable(NASTY, NASTY, "n", footer=(NASTY, "2"))
    table.row(NASTY, "1")
    text = rendered(table)
    assert text.count(SHOWN) == 4 and "\x1b" not in text and "\t" not in text


def test_numbers_stand_right_and_text_left():
    table = PlainTable("", "class", "clips", "taken for", left=(0, 2))
    table.row("a", "1", "b")
    table.row("longer", "1,000", "something")
    lines = [line.rstrip() for line in rendered(table).splitlines() if line.strip(" ─")]
    assert lines == [
        "  class    clips   taken for",
        "  a            1   b",
        "  longer   1,000   something",
    ]


def test_the_last_row_is_a_sum():
    table = PlainTable("title", "class", "clips", footer=("all", "7"))
    table.row("a", "7")
    lines = [line.strip() for line in rendered(table).splitlines() if line.strip(" ─")]
    assert lines == ["title", "class   clips", "a           7", "all         7"]


def test_columns_and_footer_are_as_many():
    with pytest.raises(ValueError, match="zip"):
        PlainTable("", "a", "b", footer=("all",))


def test_a_file_is_wide_enough(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert new_console().width == 120
    monkeypatch.setenv("COLUMNS", "90")
    assert new_console().width == 90


def test_no_other_module_has_a_style_of_its_own():
    root = Path(avt_jax.__file__).parent
    own = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if any(f"rich.{name} import" in path.read_text("utf-8") for name in ("table", "box"))
    }
    assert own <= {"host/output/tables.py"}
