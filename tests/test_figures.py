"""Figures: the right colours, words that do not overlap, every letter drawn."""

from __future__ import annotations

import warnings
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from odc.geo.xr import xr_coords
from PIL import Image
from shapely.geometry import box

from qala import figures
from qala.errors import InputError
from qala.figures import number, percent
from qala.grid import ghsl_geobox
from qala.messages import LANGUAGES, catalog, tr
from qala.raster import open_raster
from qala.rules import COLOURS

SYNTHETIC = (180, 83, 9)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def share_of(picture: np.ndarray, colour: tuple[int, int, int]) -> float:
    return float((picture == colour).all(axis=2).mean())


def units() -> gpd.GeoDataFrame:
    corner = 5_600_000.0, 5_100_000.0
    boxes = [
        box(corner[0] + 20_000 * i, corner[1], corner[0] + 20_000 * (i + 1), corner[1] + 30_000)
        for i in range(3)
    ]
    return gpd.GeoDataFrame(
        {
            "unit": ["a", "b", "c"],
            "name_kk": ["Түркістан қ.", "Кентау", "Әңғұөһі"],
            "urban_share": [0.1, 0.95, None],
            "ratio": [0.3, 1.0, 2.5],
            "degurba_l2": [30, 21, 11],
        },
        geometry=boxes,
        crs="ESRI:54009",
    )


def rates() -> pd.DataFrame:
    rows = [
        ("Түркістан", 2020, 180e3, 1.0, 0.95, 9000.0, 4000.0, -500.0),
        ("Кентау", 2020, 60e3, 1.0, 0.4, -200.0, 0.0, -3000.0),
        ("Сауран", 2020, 50e3, 0.0, None, 100.0, 50.0, 0.0),
        ("all", 2020, 290e3, 0.8, 0.7, 8900.0, 4050.0, -3500.0),
        ("Түркістан", 2015, 160e3, 1.0, 0.9, None, None, None),
    ]
    columns = ["unit", "epoch", "population", "official_share", "urban_share",
               "growth_inside", "new_footprint", "reclassification"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def sensitivity() -> pd.DataFrame:
    rows = [
        ("default", "ruleset", "R2023A", 0.43),
        ("threshold", "cluster_density", 240.0, 0.49),
        ("threshold", "cluster_density", 360.0, 0.36),
        ("ruleset", "ruleset", "2024", 0.44),
        ("built-up rule", "centre_built", "off", 0.43),
    ]
    return pd.DataFrame(rows, columns=["variant", "threshold", "value", "urban_share"])


# --- numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "digits", "english", "kazakh"),
    [
        (1234567.5, 1, "1,234,567.5", "1\u202f234\u202f567,5"),
        (-0.04, 1, "0.0", "0,0"),
        (-1234, 0, "\u22121,234", "\u22121\u202f234"),
        (float("nan"), 1, "–", "–"),
        (None, 0, "–", "–"),
    ],
)
def test_numbers_follow_the_language(value, digits, english, kazakh):
    assert number(value, "en", digits=digits) == english
    assert number(value, "kk", digits=digits) == kazakh
    assert number(value, "ru", digits=digits) == kazakh


def test_percent():
    assert percent(0.271, "en") == "27.1%"
    assert percent(0.271, "ru") == "27,1\u202f%"
    assert percent(1, "en", digits=0) == "100%"


# --- letters --------------------------------------------------------------------------


def test_the_font_has_every_letter_of_the_catalog():
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    regular = font_manager.findfont("DejaVu Sans")
    bold = font_manager.findfont(font_manager.FontProperties(family="DejaVu Sans", weight="bold"))
    words = "".join(t for texts in catalog().values() for t in texts.values())
    needed = set(words + "әғқңөұүһіӘҒҚҢӨҰҮҺІ\u202f\u2212÷≥·–") - {"\n"}
    for file in (regular, bold):
        assert "DejaVuSans" in file
        have = FT2Font(file).get_charmap()
        assert not {c for c in needed if ord(c) not in have}


# --- maps -----------------------------------------------------------------------------


def test_map_of_units_shows_classes_names_and_mark(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # missing glyphs come as such
        path = figures.map_units(
            units(), "urban_share", title="Қала халқының үлесі: ә ғ қ ң ө ұ ү һ і",
            path=tmp_path / "Түркістан өңірі.png", lang="kk", source="дерек", synthetic=True,
        )  # fmt: skip
    picture = pixels(path)
    assert picture.shape[0] == 1080
    assert abs(picture.shape[1] - 1920) <= 1
    # legend alone would be far less
    for colour in ((255, 255, 178), (189, 0, 38), (204, 204, 204)):
        assert share_of(picture, colour) > 0.05
    assert share_of(picture, SYNTHETIC) > 0.005
    assert [p.name for p in tmp_path.iterdir()] == ["Түркістан өңірі.png"]
    real = figures.map_units(units(), "urban_share", title="t", path=tmp_path / "real.png")
    assert share_of(pixels(real), SYNTHETIC) == 0


@pytest.mark.parametrize(
    ("column", "colours"),
    [
        ("degurba_l2", [COLOURS[30], COLOURS[21], COLOURS[11]]),
        ("ratio", [(33, 102, 172), (247, 247, 247), (178, 24, 43)]),
    ],
)
def test_kind_follows_from_the_column(tmp_path: Path, column: str, colours: list):
    picture = pixels(figures.map_units(units(), column, title="t", path=tmp_path / "x.png"))
    for colour in colours:
        assert share_of(picture, colour) > 0.05


def test_same_inputs_give_the_same_picture(tmp_path: Path):
    a, b = (
        figures.map_units(units(), "ratio", title="t", path=tmp_path / f"{n}.png") for n in "ab"
    )
    assert a.read_bytes() == b.read_bytes()


def test_map_of_cells_is_upright_and_in_official_colours(tmp_path: Path):
    # at 68° E, Mollweide leans; a meridional strip of centres must stand upright on the map
    import pyproj

    grid = ghsl_geobox((5_500_000, 5_000_000, 5_900_000, 5_400_000))
    x, y = np.meshgrid(grid.coords["x"].values, grid.coords["y"].values)
    lon, _ = pyproj.Transformer.from_crs("ESRI:54009", 4326, always_xy=True).transform(x, y)
    middle = lon[200, 200]
    values = np.where(np.abs(lon - middle) < 0.2, 30, 11).astype(np.uint8)
    cells = xr.DataArray(values, xr_coords(grid), ("y", "x"))
    picture = pixels(figures.map_cells(cells, title="t", path=tmp_path / "x.png"))
    row, col = np.nonzero((picture == COLOURS[30]).all(axis=2))
    strip = col < 1300  # the legend stands right of it
    row, col = row[strip], col[strip]
    top, bottom = (
        col[row < np.quantile(row, 0.1)].mean(),
        col[row > np.quantile(row, 0.9)].mean(),
    )
    assert abs(top - bottom) < 0.01 * 1920
    assert share_of(picture, COLOURS[11]) > 0.1


def test_a_map_cut_to_a_focus_is_filled_to_its_corners(tmp_path: Path):
    # the grid's own box leans at 68° E; the map's frame must not
    grid = ghsl_geobox((5_300_000, 4_800_000, 6_100_000, 5_600_000))
    cells = xr.DataArray(np.full((800, 800), 11, np.uint8), xr_coords(grid), ("y", "x"))
    focus = gpd.GeoDataFrame(
        geometry=[box(5_650_000, 5_150_000, 5_750_000, 5_250_000)], crs="ESRI:54009"
    )
    path = figures.map_cells(cells, title="t", path=tmp_path / "x.png", focus=focus)
    rural = (pixels(path) == COLOURS[11]).all(axis=2)[:, :1300]
    rows, cols = np.nonzero(rural)
    frame = rural[rows.min() + 2 : rows.max() - 2, cols.min() + 2 : cols.max() - 2]
    assert frame.size > 200_000
    assert frame.all()


def test_map_of_belgium(reference: Path, tmp_path: Path):
    cells = open_raster(reference / "belgium/expected_cells/L2_default_2024.tif", "cells")
    communes = gpd.read_file(reference / "belgium/units.gpkg")
    path = figures.map_cells(cells, communes, title="Belgium", path=tmp_path / "be.png", lang="ru")
    picture = pixels(path)
    present = {int(c) for c in np.unique(np.asarray(cells.compute())) if int(c) in COLOURS}
    for code in present:
        assert share_of(picture, COLOURS[code]) > 0.0001


def test_maps_refuse_what_they_cannot_draw(tmp_path: Path):
    path = tmp_path / "x.png"
    empty = xr.DataArray(
        np.full((2, 2), 255, np.uint8), xr_coords(ghsl_geobox((0, 0, 2000, 2000))), ("y", "x")
    )
    with pytest.raises(InputError, match="without data"):
        figures.map_cells(empty, title="t", path=path)
    with pytest.raises(InputError, match="no column 'x'"):
        figures.map_units(units(), "x", title="t", path=path)
    bare = units().set_crs(None, allow_override=True)
    with pytest.raises(InputError, match="no CRS"):
        figures.map_units(bare, "ratio", title="t", path=path)
    with pytest.raises(InputError, match="no value"):
        figures.map_units(units().assign(ratio=np.nan), "ratio", title="t", path=path)
    with pytest.raises(InputError, match="PNG"):
        figures.map_units(units(), "ratio", title="t", path=tmp_path / "x.jpg")
    with pytest.raises(InputError, match="language"):
        figures.map_units(units(), "ratio", title="t", path=path, lang="de")
    assert not list(tmp_path.iterdir())


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=40), st.booleans()
)
def test_names_never_overlap(places: list[tuple[float, float]], centred: bool):
    from matplotlib.text import Text

    with figures._page("t", "en", "", False, "") as page:
        axes = figures._map_axes(page, (0, 10, 0, 10))
        axes.apply_aspect()
        before = set(page.findobj(Text))
        texts = [f"Қала {i}\n100 000" for i in range(len(places))]
        dropped = figures._place_labels(page, axes, texts, places, size=10, centred=centred)
        labels = [t.get_window_extent() for t in page.findobj(Text) if t not in before]
    assert len(labels) + dropped == len(places)
    assert labels
    for i, a in enumerate(labels):
        for b in labels[:i]:
            assert a.x1 <= b.x0 or b.x1 <= a.x0 or a.y1 <= b.y0 or b.y1 <= a.y0


# --- charts ---------------------------------------------------------------------------


@pytest.mark.parametrize("lang", LANGUAGES)
def test_charts_in_each_language(tmp_path: Path, lang: str):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        dumbbells = figures.chart_rates(rates(), path=tmp_path / f"Үлес {lang}.png", lang=lang)
        ranges = figures.chart_sensitivity(
            sensitivity(), path=tmp_path / "s.png", lang=lang, official=0.6
        )
        change = figures.chart_change(rates(), path=tmp_path / "c.png", lang=lang)
    assert share_of(pixels(dumbbells), (200, 16, 46)) > 0.0005
    assert share_of(pixels(dumbbells), (238, 241, 244)) > 0.01  # the band of the whole
    assert share_of(pixels(ranges), (240, 184, 191)) > 0.01
    for colour in figures._PARTS.values():
        rgb = tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5))
        assert share_of(pixels(change), rgb) > 0.001


def test_many_units_are_cut_to_the_most_populous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    count = 100
    table = pd.DataFrame(
        {
            "unit": [f"u{i}" for i in range(count)],
            "population": np.arange(count),
            "urban_share": np.linspace(0, 1, count),
        }
    )
    kept, all_units = figures._most_populous(table)
    assert (len(kept), all_units) == (figures.MAX_ROWS, count)
    assert kept["population"].min() == count - figures.MAX_ROWS
    seen: list[str] = []
    page = figures._page

    def spying(title: str, lang: str, source: str, synthetic: bool, subtitle: str):
        seen.append(subtitle)
        return page(title, lang, source, synthetic, subtitle)

    monkeypatch.setattr(figures, "_page", spying)
    figures.chart_rates(table, path=tmp_path / "x.png")
    assert seen == [tr("chart.largest", "en", shown=figures.MAX_ROWS, all=count)]


def test_charts_name_what_is_missing(tmp_path: Path):
    path = tmp_path / "x.png"
    with pytest.raises(InputError, match="urban_share"):
        figures.chart_rates(pd.DataFrame({"unit": ["a"]}), path=path)
    with pytest.raises(InputError, match="no change"):
        figures.chart_change(rates().query("epoch == 2015"), path=path)
    with pytest.raises(InputError, match="without default"):
        figures.chart_sensitivity(sensitivity().iloc[1:], path=path)


def test_epochs_may_be_absent_years_or_names():
    table = rates()
    assert set(figures.last_epoch(table)["epoch"]) == {2020}
    assert len(figures.last_epoch(table.assign(epoch=None))) == len(table)
    mixed = table.assign(epoch=[2020, "2040 high", 2015, None, 2015])
    assert list(figures.last_epoch(mixed)["unit"]) == ["Кентау"]


def test_names_come_in_the_language_or_any():
    table = pd.DataFrame({"unit": ["1", "2", "all"], "name": ["A", None, None],
                          "name_kk": [None, "Ә", None]})  # fmt: skip
    assert figures.place_names(table, "kk") == ["A", "Ә", "Барлығы"]
    assert figures.place_names(table, "ru") == ["A", "Ә", "Всего"]
