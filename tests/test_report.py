"""The report: offline, escaped, in three languages; tables to the letter."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from shapely.geometry import Point

from qala import report
from qala.errors import InputError, ProblemsError
from qala.figures import chart_rates
from qala.messages import LANGUAGES, tr
from qala.report import console_table, write_report, write_tables

EVIL = '<script>alert("x")</script>&'


def rates() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "unit": ["u1", "u2", "u3", "all"],
            "epoch": [2020, 2020, 2020, 2020],
            "population": [180000.0, 60000.5, 100.0, 240100.5],
            "official_share": [1.0, 0.25, np.nan, 0.8],
            "urban_share": [0.95, 0.5, np.nan, 0.4],
            "centre_share": [0.9, 0.0, np.nan, 0.3],
            "ratio": [1.0526, 0.5, np.nan, 2.0],
            "degurba_l2": [30, 23, np.nan, np.nan],
            "name_kk": ["Түркістан", EVIL, None, "Өңір"],
            "name_ru": ["Туркестан", EVIL, None, "Область"],
        }
    )


class Page(HTMLParser):
    """Elements of a page, each with its attributes, and the text of each language."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: dict[str, list[str]] = {code: [] for code in (*LANGUAGES, "")}
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "span":
            self._open.append(dict(attrs).get("lang") or "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self._open.pop()

    def handle_data(self, data: str) -> None:
        lang = next((code for code in reversed(self._open) if code), "")
        self.words[lang].append(data)

    def text(self, lang: str) -> str:
        return "".join(self.words[lang])


@pytest.fixture(scope="module")
def page_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("отчёт")
    charts = {
        code: chart_rates(rates(), path=folder / f"{code}.png", lang=code) for code in LANGUAGES
    }
    sensitivity = pd.DataFrame({"urban_share": [0.4, 0.35, 0.46]})
    centres = gpd.GeoDataFrame(
        {"name": ["Түркістан", None], "population": [215873.0, 60000.0], "area_km2": [42.0, 9.0]},
        geometry=[Point(0, 0), Point(1, 1)],
        crs="ESRI:54009",
    )
    (written,) = write_report(
        folder / "бет",
        rates=rates(),
        summary={
            "synthetic": True,
            "ruleset": "R2023A",
            "thresholds": {"centre_population": 75000},
            "sources": [
                {"title": "GHSL", "licence": "reuse", "url": "https://ghsl.jrc.ec.europa.eu"},
                {"title": EVIL, "url": "javascript:alert(1)"},
                "BNS",
            ],
        },
        centres=centres,
        sensitivity=sensitivity,
        figures={"rates": charts, "only": charts["kk"]},
        provenance={"inputs": [{"path": "POP.tif", "sha256": "ab" * 32}], "note": EVIL},
    )
    assert written.name == "index.html"
    assert [p.name for p in written.parent.iterdir()] == ["index.html"]
    return written.read_text(encoding="utf-8")


def test_the_page_asks_nothing_of_the_network(page_text: str):
    page = Page(page_text)
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed"}
        if "src" in attributes:
            assert (attributes["src"] or "").startswith("data:image/png;base64,")
    assert [a["href"] for t, a in page.elements if t == "a"] == ["https://ghsl.jrc.ec.europa.eu"]
    assert "@import" not in page_text
    assert "url(" not in page_text
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_nothing_users_write_runs(page_text: str):
    assert EVIL not in page_text
    assert sum(t == "script" for t, _ in Page(page_text).elements) == 1
    assert "&lt;script&gt;alert" in page_text
    assert 'href="javascript' not in page_text


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_page_answers_in_each_language(page_text: str, lang: str):
    page = Page(page_text)
    text = page.text(lang)
    for key in ("report.question", "report.official", "report.trust.grid", "figure.synthetic"):
        assert tr(key, lang) in text
    comma = "." if lang == "en" else ","
    gap = "," if lang == "en" else "\u202f"
    percent = "%" if lang == "en" else "\u202f%"
    assert f"80{comma}0{percent}" in text
    assert f"40{comma}0{percent}" in text
    assert tr("report.higher", lang, ratio=f"2{comma}00") in text
    assert f"75{gap}000" in text  # the threshold as used, in the method
    low, high = f"35{comma}0{percent}", f"46{comma}0{percent}"
    assert tr("report.trust.definition", lang, low=low, high=high) in text
    assert tr("unit.30", lang) in text
    assert tr("report.unnamed", lang) in text
    pictures = [a for t, a in page.elements if t == "img"]
    assert [a.get("lang") for a in pictures].count(lang) == 1
    assert [a.get("lang") for a in pictures].count(None) == 1
    assert all(a.get("alt") for a in pictures)


def test_the_whole_stands_first_and_hashes_are_shown(page_text: str):
    body = page_text.split("<tbody>")[1]
    first = body.split("</tr>")[0]
    assert 'class="whole"' in first
    assert "Өңір" in first
    assert "ab" * 32 in page_text
    assert not re.search(r"\{\{|\{%", page_text)


def test_long_tables_are_cut_and_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "MAX_PAGE_ROWS", 2)
    (written,) = write_report(tmp_path, rates=rates(), lang="en")
    text = written.read_text(encoding="utf-8")
    assert tr("report.more", "en", count="2") in text
    assert text.count("<tr") == 1 + 2


def test_a_bare_table_still_makes_a_page(tmp_path: Path):
    table = pd.DataFrame({"unit": ["a"], "urban_share": [0.5]})
    (written,) = write_report(tmp_path, rates=table, lang="ru")
    text = written.read_text(encoding="utf-8")
    assert tr("report.title", "ru") in text
    assert tr("report.no_sources", "kk") in text


def test_problems_of_a_report_come_together(tmp_path: Path):
    with pytest.raises(ProblemsError) as error:
        write_report(
            tmp_path / "x", rates=pd.DataFrame({"a": [1]}), figures={"m": "no.png"}, lang="de"
        )
    for words in ("'de'", "'unit'", "'urban_share'", "no.png"):
        assert words in str(error.value)
    fake = tmp_path / "fake.png"
    fake.write_text("<svg/>")
    with pytest.raises(InputError, match="not a sound PNG"):
        write_report(tmp_path / "x", rates=rates(), figures={"m": fake})
    assert not (tmp_path / "x" / "index.html").exists()


def test_sources_are_told_in_the_readers_language(tmp_path: Path):
    told = {"sources": ["Statbel <b>", {"en": "grids", "ru": "растры", "kk": "торлар"}]}
    (written,) = write_report(tmp_path, rates=rates(), summary=told)
    text = written.read_text(encoding="utf-8")
    assert '<span lang="kk">торлар</span>' in text
    assert '<span lang="ru">растры</span>' in text
    assert text.count("Statbel &lt;b&gt;") == 1


def test_a_picture_is_packed_once(tmp_path: Path):
    noise = np.random.default_rng(1).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    packed = report.pack_picture(tmp_path / "whole.png")
    assert len(packed) < (tmp_path / "whole.png").stat().st_size
    (tmp_path / "packed.png").write_bytes(packed)
    assert report.pack_picture(tmp_path / "packed.png") == packed


# --- tables ---------------------------------------------------------------------------


def test_csv_to_the_letter(tmp_path: Path):
    table = gpd.GeoDataFrame(
        {"unit": ['Түркістан, "қ"', "b"], "share": [1 / 3, None], "n": [1, 2], "on": [True, False]},
        geometry=[Point(0, 0), Point(1, 1)],
    )
    written = write_tables(tmp_path / "кестелер", {"rates": table})
    assert [p.name for p in written] == ["rates.csv", "rates.parquet"]
    assert (
        written[0].read_bytes()
        == ('unit,share,n,on\r\n"Түркістан, ""қ""",0.3333333333,1,True\r\nb,,2,False\r\n').encode()
    )
    parsed = list(csv.reader(io.StringIO(written[0].read_text(encoding="utf-8"))))
    assert parsed[1][0] == 'Түркістан, "қ"'
    back = pd.read_parquet(written[1])
    assert back["share"].iloc[0] == 1 / 3
    assert list(back.columns) == ["unit", "share", "n", "on"]
    assert len(list(written[0].parent.iterdir())) == 2


def test_columns_of_mixed_settings_are_kept_as_text(tmp_path: Path):
    table = pd.DataFrame({"value": ["2024", 0.2, False, None]})
    written = write_tables(tmp_path, {"s": table})
    assert pd.read_parquet(written[1])["value"].tolist()[:3] == ["2024", "0.2", "False"]
    assert table["value"].tolist()[1] == 0.2


def test_tables_stay_in_their_folder(tmp_path: Path):
    with pytest.raises(InputError, match="table name"):
        write_tables(tmp_path, {"../x": rates()})


# --- terminal -------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_console_table_is_aligned(lang: str):
    lines = console_table(rates(), lang).splitlines()
    assert len(lines) == 1 + 3 + 1 + 1
    # figures end in the same column; these letters take one column each
    body = [line for line in lines if not line.startswith("--")]
    assert len({len(line) for line in body}) == 1
    assert lines[-2] == "-" * len(lines[0])
    assert lines[-1].startswith({"kk": "Өңір", "ru": "Область", "en": "Область"}[lang])


def test_console_table_counts_letters_not_code_points():
    table = pd.DataFrame({"unit": ["и\u0306", "a"], "urban_share": [0.5, 0.25]})
    first, second = console_table(table, "en").splitlines()[1:]
    assert first.index("50.0%") - 1 == second.index("25.0%")


def test_console_table_shows_epochs_in_order_and_never_drops_the_whole():
    table = pd.concat([rates(), rates().assign(epoch=2015)], ignore_index=True)
    lines = console_table(table, "en", rows=3).splitlines()
    assert lines[1].split()[1:2] == ["2015"] or "2015" in lines[1]
    assert sum(line.startswith("Область") for line in lines) == 2
    assert lines[-1] == tr("report.more", "en", count="3")
    assert "None" not in console_table(rates().assign(epoch=None), "en")
