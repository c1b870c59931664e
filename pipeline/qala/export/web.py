"""A page that shows the twin in a browser without any network, and a server for it.

The page reads the 3D Tiles beside it; small cities are packed into the page's
folder too, so that ``index.html`` opens by a double click.
"""

from __future__ import annotations

import base64
import functools
import html
import http.server
import json
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qala.city.classes import COLOURS
from qala.city.relief import ground_box
from qala.city.styles import (
    GROUND_COLOURS,
    HEIGHT_BREAKS,
    HEIGHT_COLOURS,
    SOURCE_COLOURS,
    height_labels,
)  # fmt: skip
from qala.city.terrain import NOT_STATED
from qala.errors import InputError, TemporaryError
from qala.export._earth import ecef, enu, inverse
from qala.export.terrain3d import texture_places
from qala.export.tiles3d import pack_tiles
from qala.files import replace_file
from qala.messages import LANGUAGES, tr

if TYPE_CHECKING:
    from qala.city.model import Twin

log = logging.getLogger("qala")

Array = np.ndarray[Any, Any]
Box = tuple[float, float, float, float]

#: longest side of the picture on the ground, pixels (every WebGL 2 device takes 4096)
PICTURE = 4096
#: finest ground pixel, metres
FINEST = 0.5
#: points of the flat ground's grid along a side
FLAT_GRID = 33

_BACKGROUND = (233, 231, 224)
_LANDUSE: dict[str, tuple[int, int, int]] = {
    "residential": (222, 217, 208), "commercial": (226, 208, 200), "retail": (228, 206, 198),
    "industrial": (214, 207, 220), "railway": (212, 210, 212), "farmland": (228, 224, 196),
    "farmyard": (232, 222, 198), "construction": (222, 214, 196), "military": (228, 216, 208),
}  # fmt: skip


def write_web(
    twin: Twin, folder: str | Path, *, tiles: str | Path, picture: bytes | None = None,
    lang: str = "en",
) -> Path:  # fmt: skip
    """Write ``index.html`` and what it needs into a folder beside the tiles.

    Parameters
    ----------
    twin
        The twin.
    folder
        Folder of the page; the tiles must lie in ``../tiles``.
    tiles
        Folder of the tileset.
    picture
        PNG of the ground (:func:`ground_picture`); made here where None.
    lang
        Language in which the page opens: en, ru or kk; it can be changed there.

    Returns
    -------
    pathlib.Path
        ``index.html``.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    viewer = Path(__file__).parent / "viewer"
    box = ground_box(twin.buildings.total_bounds)
    frame, config = _config(twin, box, lang)
    ground = _ground(twin, box, frame, picture or ground_picture(twin))
    replace_file(
        target / "ground.js", b"window.QALA_GROUND=" + json.dumps(ground).encode() + b";\n"
    )
    for name in ("viewer.js", "LICENSES.txt"):
        replace_file(target / name, (viewer / "bundle" / name).read_bytes())
    pack_tiles(Path(tiles), target / "tiles.js")
    words = {"lang": lang, "title": tr("city.title", lang, name=twin.name)}
    page = (viewer / "page.html").read_text(encoding="utf-8")
    for key, text in words.items():
        page = page.replace("{" + key + "}", html.escape(text))
    # the configuration goes last, and can't end its own script
    data = json.dumps(config, ensure_ascii=False).replace("<", "\\u003c")
    page = page.replace("{config}", data)
    replace_file(target / "index.html", page.encode())
    return target / "index.html"


def _config(twin: Twin, box: Box, lang: str) -> tuple[Array, dict[str, Any]]:
    """Return the matrix from the page's axes to earth-centred ones, and the configuration."""
    from pyproj import Transformer

    move = Transformer.from_crs(twin.buildings.crs, "EPSG:4326", always_xy=True)
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    lon, lat = np.radians(move.transform(x, y))
    base = twin.buildings["base_z"].to_numpy(float)
    low = float(np.median(base)) + twin.vertical.to_ellipsoid
    frame = enu(float(lon), float(lat), low)
    # page: x east, y up, z south
    turn = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]])
    to_local = turn @ inverse(frame)
    centre, distance, start, near = _home(twin, (x, y))
    config = {
        "lang": lang,
        "toLocal": to_local.T.ravel().tolist(),
        "home": {"target": _target(twin, centre, (x, y), base), "distance": distance},
        "start": {"target": _target(twin, start, (x, y), base), "distance": near},
        "classes": COLOURS,
        "sources": SOURCE_COLOURS,
        "heightBreaks": HEIGHT_BREAKS,
        "heightColours": HEIGHT_COLOURS,
        "texts": {code: _texts(twin, code) for code in LANGUAGES},
        "shares": _shares(twin),
    }  # fmt: skip
    return frame, config


def _texts(twin: Twin, lang: str) -> dict[str, Any]:
    """Return every text of the page in a language."""
    count = int(twin.buildings["parent"].isna().sum())
    kinds = {"class": COLOURS, "source": SOURCE_COLOURS}
    return {
        "title": tr("city.title", lang, name=twin.name),
        "count": tr("city.page.of_buildings", lang, count=f"{count:,}".replace(",", "\u202f")),
        **{k: tr(f"city.page.{k}", lang)
           for k in ("colour_by", "class", "height", "source", "home", "hint", "unknown", "serve",
                     "north", "close", "building", "height_value", "floors_value")},
        "about": [
            tr("city.page.synthetic", lang) if twin.synthetic else twin.notice,
            tr("city.page.data_of", lang, date=str(twin.buildings["valid_from"].max())),
            _ground_text(twin, lang),
        ],
        "legends": {
            **{mode: [[tr(f"city.{mode}.{k}", lang), rgb, k] for k, rgb in table.items()]
               for mode, table in kinds.items()},
            "height": [[text, rgb, str(i)] for i, (text, rgb) in
                       enumerate(zip(height_labels(lang), HEIGHT_COLOURS, strict=True))],
        },
        "columns": {c: tr(f"city.column.{c}", lang) for c in _TOLD},
        "roofs": {k: tr(f"city.roof.{k}", lang) for k in
                  ("flat", "gabled", "hipped", "pyramidal", "skillion", "dome", "round")},
        "lods": {k: tr(f"city.lod.{k}", lang) for k in ("1.2", "2.0")},
    }  # fmt: skip


#: columns that the page tells of a building
_TOLD = ("id", "parent", "class", "kind", "height", "height_source", "roof_shape", "floor_area",
         "people", "lod")  # fmt: skip


def _ground_text(twin: Twin, lang: str) -> str:
    if twin.relief is None:
        return tr("city.page.flat", lang)
    datum = twin.relief.datum
    if datum == NOT_STATED:
        text = tr("city.page.datum_unknown", lang)
    elif datum.startswith("ellipsoidal"):
        text = tr("city.page.datum_ellipsoid", lang)
    else:
        text = tr("city.page.datum", lang, name=datum)
    return tr("city.page.terrain", lang, source=twin.relief.source, datum=text)


def _shares(twin: Twin) -> dict[str, dict[str, float]]:
    """Return the share of buildings of each colour of the legends."""
    import pandas as pd

    table = twin.buildings
    tops = table["parent"].isna().to_numpy()
    step = np.searchsorted(HEIGHT_BREAKS[1:-1], table["height"].to_numpy(float), side="right")
    columns = {"class": table["class"], "source": table["height_source"],
               "height": pd.Series(step)}  # fmt: skip
    out: dict[str, dict[str, float]] = {}
    for mode, values in columns.items():
        counts = values[tops].value_counts().sort_index()
        shares = (counts.to_numpy() / max(int(tops.sum()), 1)).round(4)
        out[mode] = dict(zip(map(str, counts.index), shares.tolist(), strict=True))
    return out


Place = tuple[float, float]


def _target(twin: Twin, place: Place, centre: Place, base: Array) -> list[float]:
    """Return a place on the ground in page axes."""
    height = 0.0
    if twin.relief is not None:
        there = np.array([centre[0] + place[0]]), np.array([centre[1] + place[1]])
        height = float(np.nan_to_num(twin.relief.at(*there)[0] - np.median(base)))
    return [place[0], height, -place[1]]


def _home(twin: Twin, centre: Place) -> tuple[Place, float, Place, float]:
    """Return where the page looks: middle and distance of the whole, and of the first view.

    Places are metres from the ground's centre. The first view of a large area is its
    most densely built square of 3 km, since a whole country shows no houses.
    """
    box = twin.buildings.bounds
    x = ((box["minx"] + box["maxx"]) / 2).to_numpy() - centre[0]
    y = ((box["miny"] + box["maxy"]) / 2).to_numpy() - centre[1]
    (x0, x1), (y0, y1) = np.quantile(x, [0.05, 0.95]), np.quantile(y, [0.05, 0.95])
    span = max(float(x1 - x0), float(y1 - y0), 150.0)
    middle = (float(x0 + x1) / 2, float(y0 + y1) / 2)
    if span <= 4000:
        return middle, span * 1.5, middle, span * 1.5
    floor = np.nan_to_num(twin.buildings["floor_area"].to_numpy(float))
    cell = np.floor(np.column_stack([x, y]) / 1000.0).astype(np.int64)
    keys, where = np.unique(cell, axis=0, return_inverse=True)
    best = keys[np.bincount(where.ravel(), weights=floor).argmax()]
    start = (float(best[0] + 0.5) * 1000.0, float(best[1] + 0.5) * 1000.0)
    return middle, span * 1.5, start, 2400.0


def _ground(twin: Twin, box: Box, frame: Array, picture: bytes) -> dict[str, str]:
    """Return the ground's corners in page axes, its triangles, and its picture."""
    from pyproj import Transformer

    if twin.relief is not None:
        x, y, z = twin.relief.vertices.T
        triangles, uv = twin.relief.triangles, texture_places(twin.relief)
    else:  # flat, but bent as the Earth is
        steps = np.linspace(0.0, 1.0, FLAT_GRID)
        across, down = (v.ravel() for v in np.meshgrid(steps, steps))
        x = box[0] + across * (box[2] - box[0])
        y = box[3] - down * (box[3] - box[1])
        z = np.full(x.size, float(twin.buildings["base_z"].min()))
        first = (np.arange(FLAT_GRID - 1) + FLAT_GRID * np.arange(FLAT_GRID - 1)[:, None]).ravel()
        a, b, c, d = first, first + FLAT_GRID, first + 1, first + FLAT_GRID + 1
        triangles = np.vstack([np.column_stack([a, b, c]), np.column_stack([c, b, d])])
        uv = np.column_stack([across, down])
    move = Transformer.from_crs(twin.buildings.crs, "EPSG:4326", always_xy=True)
    lon, lat = move.transform(x, y)
    xyz = ecef(np.radians(lon), np.radians(lat), z + twin.vertical.to_ellipsoid - 0.05)
    local = (xyz - frame[:3, 3]) @ frame[:3, :3]
    place = np.column_stack([local[:, 0], local[:, 2], -local[:, 1]])

    def packed(values: Array, kind: str) -> str:
        return base64.b64encode(np.ascontiguousarray(values).astype(kind).tobytes()).decode()

    return {
        "positions": packed(place, "<f4"),
        "triangles": packed(triangles, "<u4"),
        "uv": packed(uv, "<f4"),
        "image": base64.b64encode(picture).decode(),
    }


def ground_picture(twin: Twin) -> bytes:
    """Return a PNG of land use, green, water and streets as seen from above, north up."""
    return _picture(twin, ground_box(twin.buildings.total_bounds))


def _picture(twin: Twin, box: Box) -> bytes:
    """Return a PNG of land use, green, water and streets as seen from above."""
    import shapely
    from rasterio.features import rasterize
    from rasterio.io import MemoryFile
    from rasterio.transform import from_bounds

    span = max(box[2] - box[0], box[3] - box[1])
    pixel = max(span / PICTURE, FINEST)
    width, height = (max(round((box[i + 2] - box[i]) / pixel), 1) for i in (0, 1))
    transform = from_bounds(*box, width, height)
    palette = [_BACKGROUND]

    def colour(rgb: tuple[int, int, int]) -> int:
        if rgb not in palette:
            palette.append(rgb)
        return palette.index(rgb)

    shapes: list[tuple[Any, int]] = []
    land = twin.layers["landuse"]
    for kind, rgb in _LANDUSE.items():
        shapes += [(g, colour(rgb)) for g in land.geometry[land["kind"] == kind]]
    for name in ("green", "water"):
        shapes += [(g, colour(GROUND_COLOURS[name])) for g in twin.layers[name].geometry]
    least = pixel * 0.75
    for name, default in (("waterways", 3.0), ("streets", 5.0), ("railways", 2.5)):
        lines = twin.layers[name]
        if not len(lines):
            continue
        wide = (lines["width"] if name == "streets" else np.full(len(lines), default)) / 2
        hidden = np.zeros(len(lines), bool)
        if "tunnel" in lines:
            hidden = (lines["tunnel"].notna() & (lines["tunnel"] != "no")).to_numpy()
        if name == "streets":
            minor = lines["kind"].isin(
                ["footway", "path", "steps", "track", "corridor", "bridleway"]
            )
            hidden = hidden | (minor & (pixel > 2)).to_numpy()
        bands = shapely.buffer(
            lines.geometry.to_numpy()[~hidden], np.maximum(np.asarray(wide)[~hidden], least),
            quad_segs=2,
        )  # fmt: skip
        shapes += [(g, colour(GROUND_COLOURS[name])) for g in bands]
    index = (
        rasterize(shapes, (height, width), transform=transform, dtype="uint8")
        if shapes
        else np.zeros((height, width), np.uint8)
    )
    with MemoryFile() as memory:
        with memory.open(driver="PNG", width=width, height=height, count=1, dtype="uint8",
                         zlevel=6, transform=transform) as sink:  # fmt: skip
            sink.write(index, 1)
            sink.write_colormap(1, {i: (*c, 255) for i, c in enumerate(palette)})
        return bytes(memory.read())


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves one folder, without listings, and logs to the package's logger."""

    extensions_map = {  # noqa: RUF012  (as in the base class)
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".glb": "model/gltf-binary",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".gpkg": "application/geopackage+sqlite3",
    }

    def do_GET(self) -> None:
        """Answer, sending the bare address to the page."""
        if self.path in ("", "/", "/index.html"):
            self.send_response(302)
            self.send_header("Location", "/web/index.html")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        super().do_GET()

    def list_directory(self, path: Any) -> None:
        """Refuse listings."""
        self.send_error(404, "no listing")

    def end_headers(self) -> None:
        """Let the browser ask again: a new run may have changed the tiles."""
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Write to the log at debug level."""
        log.debug("serve: " + format, *args)


def open_server(
    folder: str | Path, port: int = 0, *, host: str = "127.0.0.1"
) -> http.server.ThreadingHTTPServer:
    """Return a server of a twin folder that listens; run its ``serve_forever``.

    Parameters
    ----------
    folder
        A twin folder.
    port
        Port, or 0 for a free one.
    host
        Address to listen on; by default only this machine can reach it.

    Raises
    ------
    InputError
        When the folder has no page, or the port is not one.
    TemporaryError
        When the port is in use.
    """
    where = Path(folder)
    if not (where / "web" / "index.html").is_file():
        raise InputError(
            f"{where} has no web/index.html", "a twin folder",
            "make one with qala city --osm X.osm.pbf all -o DIR",
        )  # fmt: skip
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}", "a number from 0 to 65535")
    handler = functools.partial(_Handler, directory=str(where))
    try:
        return http.server.ThreadingHTTPServer((host, port), handler)
    except OSError as error:
        raise TemporaryError(
            f"port {port} of {host} cannot be used ({error.strerror})", "a free port",
            "choose another with --port",
        ) from error  # fmt: skip


def serve(
    folder: str | Path, port: int = 8000, *, host: str = "127.0.0.1",
    ready: Any = None,
) -> None:  # fmt: skip
    """Serve a twin folder until interrupted; only this machine can reach it by default.

    Parameters
    ----------
    folder
        A twin folder.
    port
        Port, or 0 for a free one.
    host
        Address to listen on.
    ready
        Called with the page's address once it can be opened.
    """
    with open_server(folder, port, host=host) as server:
        address = f"http://{host}:{server.server_address[1]}/"
        if ready is not None:
            ready(address)
        else:
            log.info("the city is at %s (stop with Ctrl-C)", address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("stopped")


def serve_in_background(folder: str | Path, port: int = 0) -> tuple[Any, str]:
    """Serve from a thread; return the server (call its ``shutdown``) and the address."""
    server = open_server(folder, port)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_address[1]}/"
