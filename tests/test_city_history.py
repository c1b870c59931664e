"""History of every layer on a real extract that was edited as mappers edit."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import osmium
import pyogrio
import pytest
import shapely
import shapely.ops
from osmium.osm.mutable import Node, Way
from typer.testing import CliRunner

from qala.city.check import check_twin
from qala.city.registers import import_register
from qala.city.twin import city_flow
from qala.cli import app

#: the middle of Vaduz
BOX = (9.515, 47.135, 9.527, 47.146)


@dataclass
class Map:
    """Nodes and ways of an extract, to be edited."""

    nodes: dict[int, tuple[float, float, dict[str, str]]] = field(default_factory=dict)
    ways: dict[int, tuple[list[int], dict[str, str]]] = field(default_factory=dict)

    def write(self, path: Path) -> Path:
        with osmium.SimpleWriter(str(path), overwrite=True) as sink:
            for i, (x, y, tags) in sorted(self.nodes.items()):
                sink.add_node(Node(id=i, version=1, location=(x, y), tags=tags))
            for i, (refs, tags) in sorted(self.ways.items()):
                sink.add_way(Way(id=i, version=1, nodes=refs, tags=tags))
        return path

    def shape(self, way: int) -> shapely.Polygon:
        return shapely.Polygon([self.nodes[r][:2] for r in self.ways[way][0]])

    def draw(self, number: int, corners: Any, tags: dict[str, str]) -> str:
        first = max(self.nodes) + 1
        for i, (x, y) in enumerate(list(corners)[:-1]):
            self.nodes[first + i] = (float(x), float(y), {})
        refs = list(range(first, first + len(list(corners)) - 1))
        self.ways[number] = ([*refs, refs[0]], tags)
        return f"way/{number}"


@pytest.fixture(scope="module")
def vaduz(reference: Path) -> Map:
    out = Map()
    west, south, east, north = BOX
    file = str(reference / "osm" / "liechtenstein_2022.osm.pbf")
    every: dict[int, tuple[float, float, dict[str, str]]] = {}
    for thing in osmium.FileProcessor(file, osmium.osm.NODE | osmium.osm.WAY):
        if thing.is_node():
            place = thing.location
            if west <= place.lon <= east and south <= place.lat <= north:
                every[thing.id] = (place.lon, place.lat, dict(thing.tags))
        else:
            refs = [n.ref for n in thing.nodes]
            if all(r in every for r in refs):
                out.ways[thing.id] = (refs, dict(thing.tags))
    used = {r for refs, _ in out.ways.values() for r in refs}
    out.nodes = {i: v for i, v in every.items() if i in used or v[2]}
    return out


def pick(ways: Map, **tags: str) -> Iterator[int]:
    for number, (refs, have) in ways.ways.items():
        if all(k in have and v in ("*", have[k]) for k, v in tags.items()):
            yield number if len(refs) > 1 else 0


def edited(before: Map) -> tuple[Map, dict[str, str]]:
    """Edit a map; return it and what happened: event → id."""
    after = Map(dict(before.nodes), {k: (list(r), dict(t)) for k, (r, t) in before.ways.items()})
    houses = [n for n in pick(before, building="*") if before.ways[n][1]["building"] != "no"
              and before.shape(n).is_valid and len(before.ways[n][0]) == 5]  # fmt: skip
    told: dict[str, str] = {}
    after.ways[houses[0]][1]["height"] = "77"
    told["buildings changed"] = f"way/{houses[0]}"
    del after.ways[houses[1]]
    told["buildings abolished"] = f"way/{houses[1]}"
    shape, tags = before.shape(houses[2]), before.ways[houses[2]][1]
    x0, y0, x1, y1 = shape.bounds
    middle = shape.centroid
    cut = shapely.LineString([(middle.x, y0 - 1e-4), (middle.x, y1 + 1e-4)])
    halves = [g for g in shapely.ops.split(shape, cut).geoms if g.area > shape.area / 5]
    assert len(halves) == 2
    del after.ways[houses[2]]
    for i, half in enumerate(halves):
        after.draw(9_000_000_001 + i, half.exterior.coords, tags)
    told["buildings split"] = f"way/{houses[2]}"
    pair = next(
        (a, b) for a in houses[3:] for b in houses[3:]
        if a < b and len(set(before.ways[a][0]) & set(before.ways[b][0])) == 2
    )  # fmt: skip
    joined = shapely.union(before.shape(pair[0]), before.shape(pair[1]))
    for number in pair:
        del after.ways[number]
    told["buildings merged"] = after.draw(9_000_000_003, joined.exterior.coords, tags)
    told["buildings created"] = after.draw(
        9_000_000_004,
        shapely.box(x0 + 9e-4, y0, x1 + 9e-4, y1).exterior.coords,
        {"building": "yes"},
    )
    streets = [n for n in pick(before, highway="*", name="*") if len(before.ways[n][0]) > 4]
    after.ways[streets[0]][1]["name"] = "Renamed"
    told["streets changed"] = f"way/{streets[0]}"
    refs, tags = after.ways[streets[1]]
    after.ways[streets[1]] = (refs[:3], tags)
    after.ways[9_000_000_010] = (refs[2:], tags)
    told["streets split"] = f"way/{streets[1]}"
    del after.ways[streets[2]]
    told["streets abolished"] = f"way/{streets[2]}"
    land = list(pick(before, landuse="residential")) or list(pick(before, landuse="*"))
    after.ways[land[0]][1]["landuse"] = "commercial"
    told["landuse changed"] = f"way/{land[0]}"
    green = next(n for n in pick(before, leisure="park") if before.ways[n][0][0] ==
                 before.ways[n][0][-1])  # fmt: skip
    del after.ways[green]
    told["green abolished"] = f"way/{green}"
    shops = [n for n, (_, _, t) in before.nodes.items() if "shop" in t or ("amenity" in t and
             t["amenity"] in ("restaurant", "bank", "cafe", "pharmacy"))]  # fmt: skip
    x, y, tags = after.nodes[shops[0]]
    after.nodes[shops[0]] = (x, y, {**tags, "name": "New name"})
    told["pois changed"] = f"node/{shops[0]}"
    after.nodes[9_000_000_020] = (x, y, {"highway": "bus_stop", "name": "New stop"})
    told["stops created"] = "node/9000000020"
    homes = [n for n, (_, _, t) in before.nodes.items() if "addr:housenumber" in t]
    homes = homes or list(pick(before, **{"addr:housenumber": "*", "building": "*"}))
    return after, told | {"home": str(homes[0]), "is_node": str(homes[0] in before.nodes)}


@pytest.fixture(scope="module")
def runs(vaduz: Map, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, str]]:
    where = tmp_path_factory.mktemp("history")
    after, told = edited(vaduz)
    home = int(told.pop("home"))
    if told.pop("is_node") == "True":
        x, y, tags = after.nodes[home]
        after.nodes[home] = (x, y, {**tags, "addr:housenumber": "999"})
        told["addresses changed"] = f"node/{home}"
    else:
        after.ways[home][1]["addr:housenumber"] = "999"
        told["addresses changed"] = f"way/{home}"
    first, second = where / "first", where / "second"
    city_flow(vaduz.write(where / "a.osm.pbf"), first, date="2026-01-01", name="Vaduz")
    later = after.write(where / "b.osm.pbf")
    found = CliRunner().invoke(
        app, ["city", "--osm", str(later), "all", "--since", str(first / "city.gpkg"),
              "--date", "2026-03-01", "-o", str(second)],
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    (where / "said.txt").write_text(found.output)
    return first, second, told


def test_every_edit_is_told_with_its_layer(runs: tuple[Path, Path, dict[str, str]]) -> None:
    _, second, told = runs
    changes = pyogrio.read_dataframe(second / "city.gpkg", layer="changes")
    found = {f"{r.layer} {r.change} {r.id}" for r in changes.itertuples()}
    for event, name in told.items():
        assert f"{event} {name}" in found, (event, name)
    row = changes[(changes["layer"] == "streets") & (changes["field"] == "name")].iloc[0]
    assert row["new"] == "Renamed"
    assert row["old"] not in (None, "Renamed")
    # nothing is told of what was not touched
    assert len(changes) < 60


def test_validity_is_closed_and_opened_in_every_layer(
    runs: tuple[Path, Path, dict[str, str]],
) -> None:
    first, second, told = runs
    for name, kind in pyogrio.list_layers(second / "city.gpkg"):
        if kind is None or name in ("issues",):
            continue
        table = gpd.read_file(second / "city.gpkg", layer=name)
        assert {"id", "valid_from", "valid_to"} <= set(table.columns), name
        ended = name.startswith("history")
        assert table["valid_to"].notna().all() if ended else table["valid_to"].isna().all(), name
        assert table["valid_from"].notna().all()
    streets = gpd.read_file(second / "city.gpkg", layer="streets").set_index("id")
    assert streets.loc[told["streets changed"], "valid_from"] == "2026-03-01"
    assert (streets["valid_from"] == "2026-01-01").mean() > 0.9
    gone = gpd.read_file(second / "city.gpkg", layer="history_streets").set_index("id")
    assert told["streets abolished"] in gone.index
    assert set(gone["valid_to"]) == {"2026-03-01"}
    old = gpd.read_file(first / "city.gpkg", layer="streets")
    # deleting nothing: every earlier street stands still, or in its history
    assert set(old["id"]) <= set(streets.index) | set(gone.index)


def test_the_terminal_counts_objects_by_layer(runs: tuple[Path, Path, dict[str, str]]) -> None:
    _, second, _ = runs
    said = (second.parent / "said.txt").read_text()
    for line in ("buildings", "streets", "landuse", "pois", "stops"):
        assert f"\n  {line}" in said
    assert "1 merged" in said
    assert "1 abolished" in said


def test_a_third_run_keeps_both_histories(
    runs: tuple[Path, Path, dict[str, str]], vaduz: Map, tmp_path: Path
) -> None:
    _, second, told = runs
    extract = vaduz.write(tmp_path / "back.osm.pbf")
    city_flow(extract, tmp_path / "third", since=second, date="2026-05-01", name="Vaduz")
    gone = gpd.read_file(tmp_path / "third" / "city.gpkg", layer="history_streets")
    changed = gone[gone["id"] == told["streets changed"]]
    assert sorted(changed["valid_to"]) == ["2026-03-01", "2026-05-01"]
    assert set(changed["valid_from"]) == {"2026-01-01", "2026-03-01"}
    changes = pyogrio.read_dataframe(tmp_path / "third" / "city.gpkg", layer="changes")
    assert set(changes["date"]) == {"2026-03-01", "2026-05-01"}
    check_twin(tmp_path / "third")
    with closing(sqlite3.connect(tmp_path / "third" / "city.gpkg")) as db:
        titles = [r[0] for r in db.execute("SELECT identifier FROM gpkg_contents")]
    assert "Earlier versions: Streets" in titles


def test_the_address_register_tells_events_and_keeps_imports(
    runs: tuple[Path, Path, dict[str, str]], vaduz: Map, tmp_path: Path
) -> None:
    first, second, told = runs
    rows = gpd.read_file(second / "registers.gpkg", layer="addresses")
    here = rows[rows["id"] == told["addresses changed"]].sort_values("valid_from")
    assert here["event"].tolist() == ["created", "renamed"]
    assert here["valid_to"].iloc[0] == "2026-03-01"
    assert here["housenumber"].iloc[1] == "999"
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    x, y = shapely.get_coordinates(rows.geometry.iloc[0])[0]
    file = tmp_path / "imported.csv"
    file.write_text(f"id,housenumber,street,x,y\nmine/1,5 б,Абай көшесі,{x},{y}\n")
    import_register(copy, "addresses", file, date="2026-02-01")
    city_flow(vaduz.write(tmp_path / "c.osm.pbf"), tmp_path / "next", since=copy,
              date="2026-06-01", name="Vaduz")  # fmt: skip
    kept = gpd.read_file(tmp_path / "next" / "registers.gpkg", layer="addresses").set_index("id")
    assert kept.loc["mine/1", "street"] == "Абай көшесі"
    assert kept.loc["mine/1", "source"] == "imported.csv"
    assert np.asarray(kept["valid_to"].isna()).all()
