"""A synthetic Turkistan for demonstrations: an invented plan around one real monument.

Only the mausoleum of Khoja Ahmed Yasawi stands where it stands, in its published size
(UNESCO World Heritage List 1103: 45.8 by 62.7 m, 38.7 m high). Every street, house and line
around it is invented by a seeded generator, and every object says so in its tags.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from qala.errors import InputError

log = logging.getLogger("qala")

#: the mausoleum of Khoja Ahmed Yasawi, degrees east and north
MAUSOLEUM = (68.2710, 43.2978)
#: its plan (m) and height (m), UNESCO World Heritage List 1103
PLAN, HEIGHT = (45.8, 62.7), 38.7
#: attribution of a twin made from the file (in the page's languages: city.page.synthetic)
NOTICE = (
    "Synthetic plan, invented for demonstration; only the place and size of the mausoleum are real"
)
#: what every object of the file is tagged with
MARK = {"synthetic": "yes", "note": "invented for demonstration; not a real object"}

_BLOCK, _STREET = 96.0, 14.0


def demo_flow(
    out: str | Path, *, buildings: int = 10_000, lang: str = "en", name: str | None = None,
    **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """Make the twin of the invented Turkistan, with people from the sample's grid.

    Parameters
    ----------
    out
        Folder of the twin.
    buildings
        About how many buildings.
    lang
        Language of titles, styles, notices and the page: en, ru or kk.
    name
        Name of the city; "Turkistan (SYNTHETIC)" in the language where None.
    **options
        Further options of :func:`qala.city.twin.city_flow`.

    Returns
    -------
    dict
        As of :func:`qala.city.twin.city_flow`.

    Raises
    ------
    InputError
        As of :func:`qala.city.twin.city_flow`.
    """
    from qala.city.twin import city_flow

    with demo_sources(True, buildings) as sources:
        return city_flow(out=out, lang=lang, **sources, **demo_words(lang, name), **options)


@contextmanager
def demo_sources(wanted: bool = True, buildings: int = 10_000) -> Iterator[dict[str, Any]]:
    """Give extract and population of the invented city while it is made; nothing if unwanted."""
    from qala.resources import resource

    if not wanted:
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder:
        extract = Path(folder) / "turkistan.osm.pbf"
        write_synthetic_turkistan(extract, buildings=buildings)
        people = resource("sample", "GHS_POP_E2023_SYNTHETIC_54009_1000.tif")
        yield {"osm": extract, "population": people}


def demo_words(lang: str, name: str | None) -> dict[str, Any]:
    """Return what the invented city is called, in a language."""
    from qala.messages import tr

    return {
        "name": name or tr("city.demo.name", lang), "notice": tr("city.page.synthetic", lang),
        "synthetic": True,
    }  # fmt: skip


class _Writer:
    """Writes nodes and ways, numbered from 1; places are metres east and north of the monument."""

    def __init__(self, sink: Any) -> None:
        self.sink = sink
        self.node = self.way = 0
        self.ways: list[tuple[int, list[int], dict[str, str]]] = []
        self.east = 1 / (111_320.0 * math.cos(math.radians(MAUSOLEUM[1])))
        self.north = 1 / 110_950.0

    def point(self, x: float, y: float, tags: dict[str, str] | None = None) -> int:
        from osmium.osm.mutable import Node

        self.node += 1
        place = (MAUSOLEUM[0] + x * self.east, MAUSOLEUM[1] + y * self.north)
        self.sink.add_node(Node(id=self.node, version=1, location=place, tags=tags or {}))
        return self.node

    def line(self, corners: Any, tags: dict[str, str], *, closed: bool = False) -> None:
        refs = [self.point(float(x), float(y)) for x, y in corners]
        self.way += 1
        self.ways.append((self.way, refs + refs[:1] if closed else refs, tags))

    def box(self, x: float, y: float, width: float, depth: float, tags: dict[str, str]) -> None:
        self.line([(x, y), (x + width, y), (x + width, y + depth), (x, y + depth)],
                  {**tags, **MARK}, closed=True)  # fmt: skip

    def finish(self) -> None:
        from osmium.osm.mutable import Way

        for number, refs, tags in self.ways:  # nodes come before ways
            self.sink.add_way(Way(id=number, version=1, nodes=refs, tags=tags))


def write_synthetic_turkistan(
    path: str | Path, *, buildings: int = 10_000, seed: int = 1103
) -> int:
    """Write an invented city as an OpenStreetMap extract.

    Parameters
    ----------
    path
        ``.osm.pbf`` to write; replaced if it is there.
    buildings
        About how many buildings.
    seed
        Of the generator: equal seeds give equal cities.

    Returns
    -------
    int
        Number of buildings written.

    Raises
    ------
    InputError
        When fewer than 100 buildings are asked for.
    """
    import osmium

    if buildings < 100:
        raise InputError(f"{buildings} buildings", "at least 100")
    target = Path(path)
    work = target.with_name("." + target.name.replace(".osm.pbf", "") + ".part.osm.pbf")
    work.unlink(missing_ok=True)
    rng = np.random.default_rng(seed)
    sink = osmium.SimpleWriter(str(work))
    try:
        out = _Writer(sink)
        count = _monument(out)
        side = math.ceil(math.sqrt(buildings / 17.5)) + 1
        step = _BLOCK + _STREET
        half = side * step / 2
        _streets(out, side, step, half)
        for row in range(side):
            for column in range(side):
                x, y = column * step - half + _STREET / 2, row * step - half + _STREET / 2
                middle = math.hypot(x + _BLOCK / 2, y + _BLOCK / 2)
                if middle < 150:
                    out.box(x, y, _BLOCK, _BLOCK, {"leisure": "park"})
                elif count < buildings:
                    count += _block(out, rng, x, y, middle / half)
        _lines(out, half)
        out.finish()
        sink.close()
        work.replace(target)
    finally:
        work.unlink(missing_ok=True)
    return count


def _monument(out: _Writer) -> int:
    """The mausoleum: outline, walls, portal and domes as parts; heights of parts are rounded."""
    width, depth = PLAN
    corners = [(-width / 2, -depth / 2), (width / 2, -depth / 2), (width / 2, depth / 2),
               (-width / 2, depth / 2)]  # fmt: skip
    about = {"source": "UNESCO World Heritage List 1103", "note": "place and size are real, "
             "the parts are simplified"}  # fmt: skip
    out.line(corners, {"building": "mausoleum", "name": "Қожа Ахмет Ясауи кесенесі",
                       "height": str(HEIGHT), **about}, closed=True)  # fmt: skip

    def part(x0: float, y0: float, x1: float, y1: float, **tags: str) -> None:
        out.line([(x0, y0), (x1, y0), (x1, y1), (x0, y1)],
                 {"building:part": "yes", **{k.replace("__", ":"): v for k, v in tags.items()},
                  **about}, closed=True)  # fmt: skip

    portal = -depth / 2 + 14
    part(-width / 2, -depth / 2, width / 2, portal, height="37.5")
    part(-width / 2, portal, width / 2, depth / 2, height="15")

    def dome(y: float, radius: float, base: float, top: float, drum: float) -> None:
        ring = [(radius * math.cos(a), y + radius * math.sin(a))
                for a in np.linspace(0, 2 * math.pi, 17)[:-1]]  # fmt: skip
        out.line(ring, {"building:part": "yes", "min_height": f"{base:g}", "height": f"{top:g}",
                        "roof:shape": "dome", "roof:height": f"{top - drum:g}", **about},
                 closed=True)  # fmt: skip

    dome(0.0, 9.1, 15.0, HEIGHT, 26.0)
    dome(depth / 2 - 9, 5.5, 15.0, 28.0, 21.0)
    return 1


def _streets(out: _Writer, side: int, step: float, half: float) -> None:
    for i in range(side + 1):
        at = i * step - half
        kind = "primary" if i % 12 == 0 else "secondary" if i % 6 == 0 else "residential"
        lanes = {"primary": "4", "secondary": "2"}.get(kind)
        tags = {"highway": kind, **({"lanes": lanes} if lanes else {}), **MARK}
        # a node at every crossing, so that the net can be routed
        points = [j * step - half for j in range(side + 1)]
        out.line([(at, p) for p in points], tags)
        out.line([(p, at) for p in points], tags)
        if kind != "residential":
            for p in points[::4]:
                out.point(at + 5, p + 12, {"highway": "bus_stop", **MARK})


def _block(out: _Writer, rng: np.random.Generator, x: float, y: float, distance: float) -> int:
    """Fill a block: flats near the middle, courtyard houses farther out, now and then a service."""
    draw = rng.random()
    if draw < 0.03:
        out.box(x + 4, y + 4, _BLOCK - 8, _BLOCK - 8, {"leisure": "park"})
        return 0
    if draw < 0.06:
        kind = rng.choice(["school", "kindergarten", "hospital", "mosque"])
        floors = str(int(rng.integers(1, 4)))
        tags = {"building": kind, "building:levels": floors}
        if kind == "mosque":
            tags = {"building": kind, "height": "16", "roof:shape": "dome", "roof:height": "8",
                    "amenity": "place_of_worship", "religion": "muslim"}  # fmt: skip
            out.box(x + 30, y + 30, 30, 30, tags)
        else:
            out.box(x + 12, y + 20, 72, 18, {**tags, "amenity": kind})
        return 1
    if draw < 0.30 * max(0.0, 1.1 - distance) + 0.06:
        levels = int(rng.choice([4, 5, 5, 9, 12]))
        for dx, dy, long, deep in ((4, 4, 88, 13), (4, 79, 88, 13), (4, 24, 13, 48)):
            out.box(x + dx, y + dy, long, deep, {"building": "apartments",
                                           "building:levels": str(levels)})  # fmt: skip
        return 3
    count = 0
    for i in range(4):
        for j in range(4):
            if rng.random() < 0.06:
                continue
            w, d = rng.uniform(9, 14), rng.uniform(8, 11)
            tags = {"building": "house"}
            if rng.random() < 0.5:
                tags["building:levels"] = str(int(rng.choice([1, 1, 2])))
            if rng.random() < 0.6:
                tags["roof:shape"] = str(rng.choice(["gabled", "hipped"]))
            out.box(x + 24 * i + 2, y + 24 * j + 2, w, d, tags)
            count += 1
            if rng.random() < 0.3:
                out.box(x + 24 * i + 2, y + 24 * j + 16, 5, 4, {"building": "shed"})
                count += 1
    return count


def _lines(out: _Writer, half: float) -> None:
    """A power line, a heat main, a gas main and a canal across the town."""
    out.line(
        [(-half, -half - 60), (half, -half - 60)], {"power": "line", "voltage": "110000", **MARK}
    )
    out.line([(-half, 40), (half, 40)], {"man_made": "pipeline", "substance": "hot_water", **MARK})
    out.line([(60, -half), (60, half)], {"man_made": "pipeline", "substance": "gas", **MARK})
    out.line([(-half, half + 50), (half, half + 50)], {"waterway": "canal", **MARK})
