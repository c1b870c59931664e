"""The page in a real browser: the city is seen, a click tells, nothing leaves the machine."""

from __future__ import annotations

import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from gltf import gltf_faults

from qala.city.twin import city_flow
from qala.errors import InputError, TemporaryError
from qala.export.web import open_server, serve_in_background
from qala.messages import LANGUAGES

FLAGS = (
    "--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist", "--disable-dev-shm-usage",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("web") / "monaco"
    city_flow(
        reference / "osm" / "monaco_2021.osm.pbf", out, bbox=(7.415, 43.728, 7.43, 43.74),
        name="Монако <b>", lang="ru", date="2026-01-01",
    )  # fmt: skip
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium found")
    sync = pytest.importorskip("playwright.sync_api")
    with sync.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=path, args=list(FLAGS))
        yield opened
        opened.close()


def settled(page: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if page.evaluate("window.qala ? [qala.ready, qala.busy] : []") == [True, False]:
            page.wait_for_timeout(500)
            return
        page.wait_for_timeout(200)
    raise AssertionError("the page did not settle")


def pixels(page: Any, file: Path) -> np.ndarray:
    from matplotlib.image import imread

    page.screenshot(path=str(file))
    return (imread(file)[..., :3] * 255).astype(int)


def artefacts(tmp_path: Path) -> Path:
    named = os.environ.get("QALA_TEST_ARTEFACTS")
    where = Path(named) if named else tmp_path
    where.mkdir(parents=True, exist_ok=True)
    return where


@pytest.mark.parametrize("opened_as", ["served", "file"])
def test_the_city_is_seen_and_tells_about_a_building(
    folder: Path, browser: Any, tmp_path: Path, opened_as: str
) -> None:
    server, address = serve_in_background(folder)
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    try:
        start = (folder / "web" / "index.html").as_uri() if opened_as == "file" else address
        page.goto(start)
        settled(page)
        seen = pixels(page, artefacts(tmp_path) / f"city_{opened_as}.png")
        view = seen[150:650, 450:950].reshape(-1, 3)
        # roofs, walls in light and shade, streets, green: many colours, not one background
        assert len(np.unique(view // 16, axis=0)) > 25
        page.evaluate("qala.setMode('height')")
        page.wait_for_timeout(800)
        by_height = pixels(page, artefacts(tmp_path) / f"height_{opened_as}.png")
        assert (np.abs(by_height - seen).sum(axis=2) > 40).mean() > 0.01
        row = None
        for x, y in [(600 + dx, 350 + dy) for dx in range(0, 300, 20) for dy in (0, 60, -60)]:
            page.mouse.click(x, y)
            if page.locator("#panel").is_visible():
                row = page.locator("#panel").inner_text()
                break
        assert row is not None
        assert "way/" in row or "relation/" in row
        assert "Высота" in row
        assert page.locator("h1").inner_text().endswith("Монако <b>")
        page.screenshot(path=str(artefacts(tmp_path) / f"picked_{opened_as}.png"))
        assert page.locator("#scale span").inner_text().split()[1] in ("м", "км")
        assert page.locator("#legend b").all_inner_texts()[0].endswith("%")
        assert "не задан" in page.locator("#foot").inner_text()
        page.locator("[data-lang=kk]").click()
        assert page.locator("h1").inner_text().startswith("Қаланың 3D моделі")
        assert "биіктігі" in page.locator("#panel").inner_text()
        page.locator("#panel .close").click()
        assert not page.locator("#panel").is_visible()
        before = page.evaluate("qala.controls.getAzimuthalAngle()")
        page.locator("#north").click()
        assert abs(page.evaluate("qala.controls.getAzimuthalAngle()")) < 1e-6 < abs(before)
    finally:
        page.close()
        server.shutdown()
    allowed = (address, "data:", "blob:", "file:")
    assert [u for u in asked if not u.startswith(allowed)] == []
    assert errors == []


def test_the_server_keeps_to_its_folder(folder: Path) -> None:
    server, address = serve_in_background(folder)
    try:
        with urllib.request.urlopen(address) as answer:
            assert answer.url.endswith("/web/index.html")
        for path in ("tiles/", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(address + path)
        port = server.server_address[1]
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(TemporaryError, match="cannot be used"):
            open_server(folder, port)
    finally:
        server.shutdown()
    with pytest.raises(InputError, match=r"no web/index\.html"):
        open_server(folder / "tiles")


def test_every_language_has_a_page(folder: Path) -> None:
    text = (folder / "web" / "index.html").read_text()
    assert 'lang="ru"' in text
    assert "<b>" not in text.split("<body>")[1].split("</h1>")[0]
    assert "http://" not in text.replace("http://packed", "")
    assert "https://" not in text
    assert len(LANGUAGES) == 3


def test_the_ground_follows_the_terrain(reference: Path, tmp_path: Path, browser: Any) -> None:
    import rasterio

    from qala.city.check import check_twin

    rows, columns, size = 80, 90, 0.0005
    y, x = np.mgrid[0:rows, 0:columns]
    hills = 60 + 40 * np.sin(x / 9) * np.cos(y / 8)
    terrain = tmp_path / "dem.tif"
    with rasterio.open(
        terrain, "w", driver="GTiff", dtype="float32", count=1, width=columns, height=rows,
        crs="EPSG:4326", transform=rasterio.Affine(size, 0, 7.40, 0, -size, 43.76),
    ) as sink:  # fmt: skip
        sink.write(hills.astype("float32"), 1)
    out = tmp_path / "twin"
    city_flow(reference / "osm" / "monaco_2021.osm.pbf", out, bbox=(7.415, 43.728, 7.425, 43.735),
              terrain=terrain, date="2026-01-01", lang="en")  # fmt: skip
    found = check_twin(out)
    assert found["terrain_triangles"] > 50
    assert found["terrain_triangles"] == len(gpd.read_file(out / "city.gpkg", layer="terrain"))
    streets = gpd.read_file(out / "city.gpkg", layer="streets")
    z = shapely.get_coordinates(streets.geometry.to_numpy(), include_z=True)[:, 2]
    assert 15 < z.min() < z.max() < 105
    page = browser.new_page(viewport={"width": 800, "height": 600})
    server, address = serve_in_background(out)
    try:
        page.goto(address)
        settled(page)
        page.screenshot(path=str(artefacts(tmp_path) / "terrain.png"))
        assert "vertical datum not stated" in page.locator("#foot").inner_text()
        heights = page.evaluate(
            "(() => { const p = qala.ground.geometry.attributes.position; const y = [];"
            " for (let i = 0; i < p.count; i++) y.push(p.getY(i)); return y; })()"
        )
        assert max(heights) - min(heights) > 20
    finally:
        page.close()
        server.shutdown()
    assert gltf_faults([out / "terrain" / "terrain.glb"]) == {}
