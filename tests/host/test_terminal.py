"""What files and labels say does not reach a terminal as anything but text."""

import io
import unicodedata

import pytest
from rich.table import Table
from rich.text import Text

from avt_jax.host.output.rich_console import plain_console
from avt_jax.host.output.terminal import printable, printable_lines, show, without_controls

HARMLESS = "no\u00a0break, narrow\u202fspace, soft\u00adhyphen, \U0001f468\u200d\U0001f469, ü, 漢"


def test_control_characters_are_written_out():
    assert printable("\x1b[31mred\x07\n\t\x9b2J\udcff\u2028") == (
        r"\x1b[31mred\x07\n\t\x9b2J\udcff\u2028"
    )
    assert printable("abc\u202egpj.exe") == r"abc\u202egpj.exe"
    assert printable(HARMLESS) == HARMLESS == without_controls(HARMLESS)
    assert without_controls("\u202e\u2028") == "\u202e\\u2028"
    assert printable_lines("one\ntwo\x1b\r\nthree") == "one\ntwo\\x1b\\r\nthree"


def test_no_character_at_all_controls_the_terminal():
    text = printable("".join(map(chr, [*range(0x3000), *range(0xD800, 0xE000), 0xFEFF, 0xE0001])))
    assert not {c for c in text if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}
    text.encode()


def test_show(capsys):
    show("a\x1b[2J\nb")
    show()
    show(3)
    assert capsys.readouterr().out == "a\\x1b[2J\nb\n\n3\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_tables_and_lines_of_a_console(is_terminal):
    file = io.StringIO()
    console = plain_console(file=file, force_terminal=is_terminal, color_system=None, width=70)
    names = ["[/x]", "[red]a[/red]", ":car:", "\x1b[31mred", "a\tb", "\x9b2J", "abc\u202egpj"]
    table = Table(title=names[0])
    table.add_column(names[1])
    for name in names:
        table.add_row(name)
        table.add_row(Text(name, "bold"))
        console.print(name, soft_wrap=True)
    console.print(table)
    shown = file.getvalue()
    for name in names:
        if name != "a\tb":  # Rich puts spaces for it
            assert shown.count(printable(name)) >= 3
    for bad in ("\x1b[31m", "\x9b", "\u202e", "\t"):
        assert bad not in shown
