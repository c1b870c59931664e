"""Heights: what tags say, and which source wins."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely

from qala.city.heights import (
    ASSUMPTIONS,
    HEIGHT_SOURCES,
    assign_heights,
    parse_direction,
    parse_height,
    parse_length,
    parse_levels,
    parse_min_height,
)


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("12 m", 12.0),
        ("12", 12.0),
        ("12m", 12.0),
        ("12,5", 12.5),
        (" 12.50 metres ", 12.5),
        ("39'", 39 * 0.3048),
        ("39 ft", 39 * 0.3048),
        ("12'6\"", 12 * 0.3048 + 6 * 0.0254),
        ("250 cm", 2.5),
        (".5", 0.5),
        ("-3", -3.0),
    ],
)
def test_lengths_as_people_write_them(text: str, metres: float) -> None:
    assert parse_length(text).value == pytest.approx(metres)


@pytest.mark.parametrize("text", ["abc", "", "12;15", "3-4", "m", "1e3", "nan", "inf", "12 kg"])
def test_what_is_no_length_is_refused_with_the_text(text: str) -> None:
    parsed = parse_length(text)
    assert not parsed.ok
    assert text[:40] in parsed.problem
    assert np.isnan(parsed.value)


@pytest.mark.parametrize("text", ["-3", "0", "1001", "-39'"])
def test_impossible_heights_are_refused(text: str) -> None:
    assert not parse_height(text).ok


def test_precision_is_that_of_the_writing() -> None:
    assert parse_length("12").half_step == 0.5
    assert parse_length("12.5").half_step == pytest.approx(0.05)


def test_levels_may_be_halves_and_not_words() -> None:
    assert parse_levels("2.5").value == 2.5
    assert parse_levels("2,5").value == 2.5
    assert not parse_levels("EG").ok
    assert not parse_levels("-1").ok
    assert not parse_levels("900").ok


def test_min_height_and_directions() -> None:
    assert parse_min_height("0").ok
    assert not parse_min_height("-1").ok
    assert parse_direction("NE").value == 45.0
    assert not parse_direction("up").ok


def buildings(**tags: list[object]) -> gpd.GeoDataFrame:
    count = len(next(iter(tags.values())))
    boxes = [shapely.box(i * 20, 0, i * 20 + 10, 10) for i in range(count)]
    table = gpd.GeoDataFrame(
        {"id": [f"way/{i}" for i in range(count)], "kind": ["yes"] * count, **tags},
        geometry=boxes,
        crs="EPSG:32642",
    )
    table["footprint_area"] = table.area
    table["outline_width"] = 10.0
    return table


def test_the_chain_takes_the_first_source_that_holds() -> None:
    table = buildings(
        **{
            "height": ["12 m", "abc", "-3", None, "5", None],
            "building:height": [None, "9", None, None, None, None],
            "building:levels": [None, "7", "4", "2.5", "9", None],
            "min_height": [None, None, None, None, "8", None],
        }
    )
    out, issues = assign_heights(table, np.array([np.nan] * 5 + [17.0]))
    assert out["height"].tolist() == [12.0, 9.0, 12.0, 7.5, 27.0, 17.0]
    assert out["height_source"].tolist() == ["tag", "tag", "levels", "levels", "levels", "ghsl"]
    refused = {i for i, _ in issues}
    assert refused == {"way/1", "way/2", "way/4"}
    assert any("not above min_height" in why for i, why in issues if i == "way/4")
    assert (out["height_lo"] <= out["height"]).all()
    assert (out["height"] <= out["height_hi"]).all()
    assert (out["min_height"] < out["height"]).all()
    assert set(out["height_source"]) <= set(HEIGHT_SOURCES)


def test_neighbours_of_the_same_type_and_then_the_type() -> None:
    table = buildings(height=["9", "10", "11", None, None])
    table["kind"] = ["house"] * 4 + ["garage"]
    out, issues = assign_heights(table)
    assert not issues
    assert out["height"].tolist()[3:] == [10.0, ASSUMPTIONS["level_height"].value]
    assert out["height_source"].tolist()[3:] == ["neighbour", "type"]
    # no estimate is surer than half a level
    assert out["height_hi"][3] - out["height_lo"][3] >= ASSUMPTIONS["level_height"].value


def test_roof_levels_add_to_levels_and_odd_shapes_are_told() -> None:
    table = buildings(
        **{
            "building:levels": ["2", "2", "2"],
            "roof:shape": ["gabled", "9.0", "lean_to"],
            "roof:levels": ["1", None, None],
            "roof:height": [None, None, "400"],
        }
    )
    out, issues = assign_heights(table)
    assert out["height"][0] == 9.0
    assert out["roof_height"][0] == 3.0
    assert out["roof_shape"].tolist() == ["gabled", "unknown", "skillion"]
    assert any("roof:shape refused" in why for _, why in issues)


def test_every_assumption_names_its_source() -> None:
    assert all(a.source and a.unit for a in ASSUMPTIONS.values())
