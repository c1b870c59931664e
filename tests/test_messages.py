"""Texts that people see exist in English, Russian and Kazakh, with the same values."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest

import qala as package
from qala.errors import InputError
from qala.messages import LANGUAGES, catalog, tr


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_every_text_stands_in_three_languages_with_the_same_values() -> None:
    for key, texts in catalog().items():
        assert set(texts) == set(LANGUAGES), key
        for lang in LANGUAGES:
            assert texts[lang].strip(), (key, lang)
            assert fields(texts[lang]) == fields(texts["en"]), (key, lang)


def test_russian_and_kazakh_are_written_in_cyrillic() -> None:
    # formulae, codes and names of standards are the same everywhere
    same = [k for k, t in catalog().items() if t["ru"] == t["en"] and len(t["en"]) > 24]
    assert same == []
    kazakh = "".join(t["kk"] for t in catalog().values()).lower()
    # letters that only Kazakh has
    assert set("әғқңөұүі") <= set(kazakh)


def test_every_key_that_the_code_names_exists() -> None:
    known = set(catalog())
    missing = set()
    for path in Path(package.__file__).parent.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        missing |= {
            f"{path.name}: {key}"
            for key in re.findall(r"""\btr\(\s*["']([^"'{}]+)["']""", text)
            if key not in known
        }
    assert missing == set()


def test_values_are_filled_in_and_mistakes_told() -> None:
    key = next(k for k, t in catalog().items() if fields(t["en"]) == {"title"})
    for lang in LANGUAGES:
        assert "Түркістан" in tr(key, lang, title="Түркістан")
    with pytest.raises(InputError, match="one of en, ru, kk"):
        tr(key, "de")
    with pytest.raises(InputError, match="no message"):
        tr("no.such.key")
