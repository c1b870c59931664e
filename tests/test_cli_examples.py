"""The lines that ``--help`` shows are ones that the commands take."""

from __future__ import annotations

import shlex

import pytest
import typer
from builders import qala

from qala.cli import app
from qala.cli_examples import EXAMPLES

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_every_command_of_work_has_examples() -> None:
    assert set(COMMANDS) - set(EXAMPLES) == {"doctor", "schema", "registers", "catalog"}
    assert set(EXAMPLES) <= set(COMMANDS)
    shown = qala("rates", "--help").out
    assert all(f"  {line}\n" in shown for line in EXAMPLES["rates"])


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_the_parser_takes_it(line: str) -> None:
    program, name, *words = shlex.split(line)
    assert program == "qala"
    # a typing slip or a missing option is refused here; nothing runs
    COMMANDS[name].make_context(name, words)
