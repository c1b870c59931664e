"""Make the SYNTHETIC road network of the sample region, as an OpenStreetMap file.

No road of it is real. It links the settlements of ``settlements.csv`` as roads might:
neighbours in the relative-neighbourhood graph by local roads, district centres and
cities along shortest paths by better ones. See README.md beside this script.

    python data/sample/make_network.py [--out FILE]
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import osmium
import pandas as pd
import pyproj
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree
from scipy.spatial import Delaunay

log = logging.getLogger("qala.sample")

HERE = Path(__file__).resolve().parent
SEED = 2026
EPOCH = 2023
#: ESRI:54009 keeps areas; its metres are near enough to draw by
CRS = "ESRI:54009"
#: local roads no longer than this; settlements farther from all others hang on the nearest
LONGEST_LOCAL = 35_000.0
#: better roads are worth a detour: cost per metre of a path along each rank, and of a new road
#: through the land between two settlements
COST = {"trunk": 0.55, "primary": 0.75, "secondary": 0.9, "tertiary": 1.0}
#: vertices about every so many metres, and how far they stray: roads are longer than straight
STEP = 2000.0
STRAY = 0.055
#: trunk roads join these cities
TRUNK = (
    ("Shymkent", "Turkistan"),
    ("Turkistan", "Kentau"),
    ("Shymkent", "Aqsukent"),
    ("Shymkent", "Saryagash"),
    ("Shymkent", "Arys"),
)
TAGS = {
    "trunk": {"maxspeed": "110", "surface": "asphalt", "lanes": "2"},
    "primary": {"maxspeed": "90", "surface": "asphalt"},
    "secondary": {"maxspeed": "70", "surface": "asphalt"},
    "tertiary": {},
}
#: share of local roads without asphalt
UNPAVED = 0.4
RANKS = ("tertiary", "secondary", "primary", "trunk")
#: settlements from which their best way to a better road is secondary
SECONDARY_FROM = 3000


@dataclass(frozen=True)
class Roads:
    """Edges between places and the rank of each."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    metres: NDArray[np.float64]
    rank: NDArray[np.int64]


def read_settlements(path: Path) -> pd.DataFrame:
    """Return the settlements of the sample with metric coordinates."""
    table = pd.read_csv(path)
    table = table[(table["epoch"] == EPOCH) & (table["population"] > 0)]
    table = table.sort_values("id").drop_duplicates(["lon", "lat"]).reset_index(drop=True)
    x, y = pyproj.Transformer.from_crs(4326, CRS, always_xy=True).transform(
        table["lon"].to_numpy(), table["lat"].to_numpy()
    )
    return table.assign(x=x, y=y)


def neighbours(
    xy: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
    """Return Delaunay edges, their lengths, and which are local roads.

    Local are the relative neighbours (Toussaint 1980): no third place is nearer to both. The
    minimum spanning tree is among them, so that all places are joined.
    """
    triangles = Delaunay(xy).simplices
    pairs = np.sort(np.vstack([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [0, 2]]]))
    a, b = np.unique(pairs, axis=0).T.astype(np.int64)
    metres = np.hypot(*(xy[a] - xy[b]).T)
    apart = np.hypot(xy[:, None, 0] - xy[None, :, 0], xy[:, None, 1] - xy[None, :, 1])
    between = np.maximum(apart[a], apart[b]) < metres[:, None] - 1e-6
    local = ~between.any(axis=1) & (metres <= LONGEST_LOCAL)
    tree = minimum_spanning_tree(csr_matrix((metres, (a, b)), shape=(len(xy),) * 2)).tocoo()
    spanning = set(zip(tree.row.tolist(), tree.col.tolist(), strict=True))
    local |= np.array([pair in spanning for pair in zip(a.tolist(), b.tolist(), strict=True)])
    return a, b, metres, local


def rank_roads(places: pd.DataFrame, xy: NDArray[np.float64]) -> Roads:
    """Give edges their ranks: trunk between cities, then primary, secondary, local."""
    a, b, metres, local = neighbours(xy)
    size = len(xy)
    number = {(int(i), int(j)): k for k, (i, j) in enumerate(zip(a, b, strict=True))}
    rank = np.where(local, 0, -1)

    def lift(goals: list[int], start: int, level: int) -> None:
        """Raise the cheapest path from a place to the nearest of the goals."""
        price = np.array([1.15, *(COST[r] for r in RANKS)])[rank + 1] * metres
        graph = csr_matrix((price, (a, b)), shape=(size, size))
        cost, before = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
        at = min(goals, key=lambda g: cost[g])
        while at != start:
            edge = number[min(at, before[at]), max(at, before[at])]
            rank[edge] = max(rank[edge], level)
            at = before[at]

    def on(level: int) -> list[int]:
        edges = rank >= level
        return sorted({*a[edges].tolist(), *b[edges].tolist()})

    by_name = {n: i for i, n in enumerate(places["name_en"]) if isinstance(n, str)}
    for start, end in TRUNK:
        lift([by_name[end]], by_name[start], 3)
    people = places["population"].to_numpy()
    # the largest place of a unit stands for its centre
    centres = places.groupby("unit")["population"].idxmax().tolist()
    for place in sorted(centres, key=lambda i: -people[i]):
        lift(on(2), place, 2)
    for place in np.flatnonzero(people >= SECONDARY_FROM)[
        np.argsort(-people[people >= SECONDARY_FROM], kind="stable")
    ].tolist():
        lift(on(1), place, 1)
    kept = rank >= 0
    return Roads(a[kept], b[kept], metres[kept], rank[kept])


def draw(
    start: NDArray[np.float64], end: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Return inner vertices of a road that strays a little from the straight line."""
    way = end - start
    length = float(np.hypot(*way))
    count = int(length // STEP)
    if count == 0:
        return np.empty((0, 2))
    t = np.linspace(0, 1, count + 2)[1:-1]
    # a bridge of random steps: it starts and ends on the line
    walk = np.cumsum(rng.normal(0, 1, count + 1))
    bridge = (walk - np.linspace(0, 1, count + 2)[1:] * walk[-1])[:-1]
    aside = np.array([-way[1], way[0]]) / length
    stray = STRAY * length * bridge / np.sqrt(count + 1)
    return start + t[:, None] * way + stray[:, None] * aside


def write_osm(places: pd.DataFrame, roads: Roads, xy: NDArray[np.float64], path: Path) -> None:
    """Write the roads; every way and the file itself say SYNTHETIC."""
    rng = np.random.default_rng(SEED)
    back = pyproj.Transformer.from_crs(CRS, 4326, always_xy=True)
    names = places["name_en"].fillna(places["name_ru"]).fillna(places["name_kk"]).tolist()
    lon, lat = places["lon"].tolist(), places["lat"].tolist()
    nodes = [
        osmium.osm.mutable.Node(id=i + 1, location=(lon[i], lat[i]), version=1)
        for i in range(len(places))
    ]
    ways = []
    order = np.lexsort((roads.b, roads.a))
    for number, k in enumerate(order.tolist()):
        a, b, rank = int(roads.a[k]), int(roads.b[k]), RANKS[roads.rank[k]]
        inner = draw(xy[a], xy[b], rng)
        first = len(nodes) + 1
        if len(inner):
            at = np.column_stack(back.transform(inner[:, 0], inner[:, 1])).round(6)
            nodes += [
                osmium.osm.mutable.Node(id=first + j, location=tuple(p), version=1)
                for j, p in enumerate(at.tolist())
            ]
        tags = {
            "highway": rank,
            "name": f"{names[a]} - {names[b]} (SYNTHETIC)",
            "synthetic": "yes",
            "note": "SYNTHETIC: not a road of OpenStreetMap",
            **TAGS[rank],
        }
        if rank == "tertiary":
            tags["surface"] = "gravel" if rng.random() < UNPAVED else "asphalt"
            tags["maxspeed"] = "50" if tags["surface"] == "gravel" else "60"
        refs = [a + 1, *range(first, first + len(inner)), b + 1]
        ways.append(osmium.osm.mutable.Way(id=number + 1, nodes=refs, tags=tags, version=1))
    header = osmium.io.Header()
    header.set("generator", "qala make_network.py, SYNTHETIC")
    path.unlink(missing_ok=True)
    with osmium.SimpleWriter(str(path), header=header) as sink:
        for node in nodes:
            sink.add_node(node)
        for way in ways:
            sink.add_way(way)


def main() -> None:
    """Make the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "roads_SYNTHETIC.osm.pbf")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    places = read_settlements(HERE / "settlements.csv")
    xy = places[["x", "y"]].to_numpy()
    roads = rank_roads(places, xy)
    write_osm(places, roads, xy, arguments.out)
    for code, name in enumerate(RANKS):
        log.info("%-10s %8.0f km straight", name, roads.metres[roads.rank == code].sum() / 1000)
    log.info("%s: %d bytes", arguments.out, arguments.out.stat().st_size)


if __name__ == "__main__":
    main()
