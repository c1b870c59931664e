"""Texts that people see, in Kazakh, Russian and English, from one catalog.

The catalog is the folder ``catalogs/messages``; each file maps a key to its
text in ``en``, ``ru`` and ``kk``. Errors and log lines stay English, so that
they can be searched for.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from qala.errors import InputError
from qala.resources import resource

Language = Literal["en", "ru", "kk"]
LANGUAGES: tuple[Language, ...] = ("en", "ru", "kk")
#: words in one language, or by language
Words = str | Mapping[Any, str]


@cache
def catalog() -> dict[str, dict[str, str]]:
    """Return all texts: key to language to text.

    Raises
    ------
    InputError
        When a key stands twice or lacks a language.
    """
    import yaml

    # the compiled reader is ten times as fast; a build of PyYAML may lack it
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    texts: dict[str, dict[str, str]] = {}
    for file in sorted(resource("catalogs", "messages").glob("*.yaml")):
        entries = yaml.load(file.read_text(encoding="utf-8"), Loader=loader) or {}
        for key, translations in entries.items():
            if key in texts:
                raise InputError(f"message {key!r} stands twice ({file.name})", "one entry a key")
            missing = [lang for lang in LANGUAGES if not translations.get(lang)]
            if missing:
                raise InputError(
                    f"message {key!r} lacks {', '.join(missing)} ({file.name})", "en, ru and kk"
                )
            texts[key] = translations
    return texts


def tr(key: str, lang: str = "en", /, **values: Any) -> str:
    """Return a text in a language, with its values filled in.

    Parameters
    ----------
    key
        Name of the text in the catalog.
    lang
        ``en``, ``ru`` or ``kk``.
    **values
        Values for the text's placeholders.

    Raises
    ------
    InputError
        When the language or key is unknown.

    Examples
    --------
    >>> tr("class.30", "kk")
    'Қала орталығы'
    """
    if lang not in LANGUAGES:
        raise InputError(f"language {lang!r}", "one of en, ru, kk")
    texts = catalog()
    if key not in texts:
        raise InputError(f"no message {key!r} in the catalog", "a key of catalogs/messages")
    text = texts[key][lang]
    return text.format(**values) if values else text


def said(words: Words, lang: str) -> str:
    """Return words that were given in one or several languages.

    Parameters
    ----------
    words
        A text, or language → text.
    lang
        The language wanted; English, else the first there is, stands in.

    Examples
    --------
    >>> said({"en": "city", "kk": "қала"}, "kk"), said({"en": "city"}, "ru"), said("city", "kk")
    ('қала', 'city', 'city')
    """
    if isinstance(words, str):
        return words
    return words.get(lang) or words.get("en") or next(iter(words.values()), "")


def in_languages(key: str, /, **values: Any) -> dict[str, str]:
    """Return a text in every language, with its values filled in: language to text.

    Parameters
    ----------
    key
        Name of the text in the catalog.
    **values
        Values for the text's placeholders.

    Raises
    ------
    InputError
        When the key is unknown.

    Examples
    --------
    >>> in_languages("class.30")["ru"]
    'Городской центр'
    """
    return {lang: tr(key, lang, **values) for lang in LANGUAGES}
