"""No foreign text commands a terminal, whatever it is printed in."""

import io
import json
import logging

from hypothesis import given
from hypothesis import strategies as st
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.printable import Terminal, json_line
from proxy.contract.log_lines import UNPRINTABLE, PrintableFormatter, printable

ODD = st.one_of(
    st.text(),
    st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zp", "Cs"]) | st.sampled_from("[]/\\ab")),
)


def terminal() -> Terminal:
    made = Terminal()
    made.file = io.StringIO()
    return made


def shown(made: Terminal) -> str:
    assert isinstance(made.file, io.StringIO)
    return made.file.getvalue()


@given(ODD)
def test_nothing_of_it_is_obeyed_and_plain_text_stays(text: str) -> None:
    assert not UNPRINTABLE.search(printable(text))
    printable(text).encode()  # half a surrogate would not be written at all
    assert printable(printable(text)) == printable(text)


@given(ODD)
def test_sentences_tables_and_live_displays_are_clean(text: str) -> None:
    made = terminal()
    table = Table(text)
    table.add_row(text)
    made.say(text, style="red")
    made.print(table, Text(text), text)
    with Live(table, console=made, auto_refresh=False):
        made.print(text)
    assert not UNPRINTABLE.search(shown(made))


@given(ODD.filter(lambda text: text.isprintable() or not any("\ud800" <= mark <= "\udfff" for mark in text)))
def test_json_is_clean_and_means_the_same(text: str) -> None:
    line = json_line({"said": text})
    assert not UNPRINTABLE.search(line.decode().removesuffix("\n"))
    assert json.loads(line) == {"said": text}


@given(ODD)
def test_log_lines_in_words_are_clean(text: str) -> None:
    record = logging.makeLogRecord({"msg": "of %s", "args": (text,), "levelname": "WARNING"})
    assert not UNPRINTABLE.search(PrintableFormatter("%(levelname)s %(message)s").format(record))
    assert logging.lastResort  # what writes the launcher's warnings
    assert not UNPRINTABLE.search(logging.lastResort.format(record))


def test_people_s_letters_are_left_alone() -> None:
    text = "Größe 模型 हिन्दी 👩‍👩‍👧 مرحبا\tend"
    assert printable(text) == text


def test_markup_and_long_lines_stay_as_they_are() -> None:
    made = terminal()
    made.say("[proxy] api_keys :warning: " + "x" * 300)
    assert shown(made) == "[proxy] api_keys :warning: " + "x" * 300 + "\n"
