"""Write the static STAC catalogs of the sources that qala knows.

Nothing is fetched. Addresses follow the publishers' public patterns; what could
not be read from the publisher itself stands in ``qala:unverified`` of each item.
Sizes and hashes are given only where they are known.

    python data/make_catalogs.py [--tiles ghsl_tiles.geojson] [--out catalogs]

``--tiles`` rebuilds ``ghsl_tiles.json`` from the GHSL tile scheme; without it
the one in the folder is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pystac
from pystac.layout import TemplateLayoutStrategy

ROOT = Path(__file__).resolve().parents[1] / "catalogs"
GHSL = "https://jeodpp.jrc.ec.europa.eu/ftp/jrc-opendata/GHSL"
MIRROR = "https://cidportal.jrc.ec.europa.eu/ftp/jrc-opendata/GHSL"
WORLD = [-180.0, -90.0, 180.0, 90.0]
KAZAKHSTAN = [46.49, 40.56, 87.32, 55.45]
EPOCHS = range(1975, 2031, 5)
JRC = pystac.Provider(
    "European Commission, Joint Research Centre",
    roles=[pystac.ProviderRole.PRODUCER, pystac.ProviderRole.LICENSOR, pystac.ProviderRole.HOST],
    url="https://human-settlement.emergency.copernicus.eu/",
)
NOTICE = "GHSL data: European Commission, Joint Research Centre, CC BY 4.0"


def main() -> None:
    """Write every collection below the output folder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=Path, help="GeoJSON of the GHSL tile scheme")
    parser.add_argument("--out", type=Path, default=ROOT)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.tiles:
        write_tiles(options.tiles, options.out / "ghsl_tiles.json")
    root = pystac.Catalog(
        "qala", "Sources of qala: what to fetch, from where, under which terms.", title="qala"
    )
    for made in (
        *ghsl_grids(), ghsl_functional_areas(), *ghsl_urban_centres(), terrain(), osm(),
        boundaries(), statistics(),
    ):  # fmt: skip
        root.add_child(made)
    layout = TemplateLayoutStrategy(
        catalog_template="${id}", collection_template="${id}", item_template=""
    )
    root.normalize_hrefs(str(options.out), strategy=layout)
    for item in root.get_items(recursive=True):
        # one folder a collection, one file an item
        item.set_self_href(str(options.out / str(item.collection_id) / f"{item.id}.json"))
    root.save(catalog_type=pystac.CatalogType.SELF_CONTAINED)


def write_tiles(source: Path, target: Path) -> None:
    """Reduce the tile scheme to names and edges in metres."""
    raw = json.loads(source.read_text(encoding="utf-8"))
    properties = [f["properties"] for f in raw["features"]]
    order = sorted(properties, key=lambda p: (-p["top"], p["left"]))
    tiles = {p["tile_id"]: [p[k] for k in ("left", "bottom", "right", "top")] for p in order}
    head = {
        "source": "GHSL tile scheme, ESRI:54009 (JRC), tiles that hold land",
        "crs": "ESRI:54009",
        "edges": "left, bottom, right, top in metres",
    }
    lines = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in tiles.items())
    text = json.dumps(head, indent=1)[:-2] + ',\n "tiles": {\n' + lines + "\n }\n}\n"
    target.write_text(text, encoding="utf-8")


def collection(
    id: str,
    title: str,
    description: str,
    *,
    licence: str,
    citation: str,
    doi: str | None = None,
    version: str,
    notice: str,
    about: str,
    providers: list[pystac.Provider],
    bbox: list[float],
    years: tuple[int, int] | None,
    licence_link: str,
) -> pystac.Collection:
    """Return a collection with its terms."""
    interval: list[datetime | None] = [None, None]
    if years:
        interval = [day(years[0]), day(years[1])]
    made = pystac.Collection(
        id,
        description,
        pystac.Extent(pystac.SpatialExtent([bbox]), pystac.TemporalExtent([interval])),
        title=title,
        license=licence,
        providers=providers,
        extra_fields={
            "version": version,
            "sci:citation": citation,
            **({"sci:doi": doi} if doi else {}),
            "qala:notice": notice,
        },
        stac_extensions=[
            "https://stac-extensions.github.io/scientific/v1.0.0/schema.json",
            "https://stac-extensions.github.io/version/v1.2.0/schema.json",
        ],
    )
    made.add_link(pystac.Link("about", about, "text/html"))
    made.add_link(pystac.Link("license", licence_link, "text/html"))
    return made


def item(
    id: str,
    *,
    product: str,
    epoch: int | None,
    resolution: float | None,
    unit: str | None,
    crs: str,
    version: str,
    bbox: list[float],
    unverified: list[str],
    title: str,
    **more: Any,
) -> pystac.Item:
    """Return an item without assets."""
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    properties: dict[str, Any] = {
        "title": title,
        "qala:product": product,
        "qala:epoch": epoch,
        "qala:resolution": resolution,
        "qala:unit": unit,
        "proj:code": crs,
        "version": version,
        "qala:unverified": unverified,
        **more,
    }
    return pystac.Item(
        id,
        {"type": "Polygon", "coordinates": [ring]},
        bbox,
        day(epoch) if epoch else None,
        {
            **properties,
            **({} if epoch else {"start_datetime": "1970-01-01T00:00:00Z",
                                 "end_datetime": "2100-01-01T00:00:00Z"}),
        },
        stac_extensions=[
            "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
            "https://stac-extensions.github.io/file/v2.1.0/schema.json",
            "https://stac-extensions.github.io/version/v1.2.0/schema.json",
        ],
    )  # fmt: skip


def day(year: int) -> datetime:
    """Return the first day of a year."""
    return datetime(year, 1, 1, tzinfo=UTC)


def asset(href: str, title: str, kind: str, **more: Any) -> pystac.Asset:
    """Return a data asset."""
    return pystac.Asset(href, title, media_type=kind, roles=["data"], extra_fields=more)


# --- GHSL -------------------------------------------------------------------------


def ghsl_grids() -> list[pystac.Collection]:
    """Return the collections of GHSL's grids in Mollweide."""
    terms: dict[str, Any] = {
        "licence": "CC-BY-4.0",
        "licence_link": "https://human-settlement.emergency.copernicus.eu/GHSLhowToCite.php",
        "providers": [JRC],
        "bbox": WORLD,
        "notice": NOTICE,
    }
    pop = collection(
        "ghs-pop-r2023a", "GHS-POP R2023A, population grid",
        "Residential population, people per cell, 1975 to 2030 every five years.",
        citation="Schiavina M., Freire S., Carioli A., MacManus K. (2023): GHS-POP R2023A - GHS "
        "population grid multitemporal (1975-2030). European Commission, Joint Research Centre. "
        "doi:10.2905/2FF68A52-5B5B-4A22-8F40-C41DA8332CFE",
        doi="10.2905/2FF68A52-5B5B-4A22-8F40-C41DA8332CFE", version="R2023A V1-0",
        years=(1975, 2030), about="https://human-settlement.emergency.copernicus.eu/ghs_pop2023.php",
        **terms,
    )  # fmt: skip
    built = collection(
        "ghs-built-s-r2023a", "GHS-BUILT-S R2023A, built-up surface grid",
        "Built-up surface, square metres per cell, 1975 to 2030 every five years.",
        citation="Pesaresi M., Politis P. (2023): GHS-BUILT-S R2023A - GHS built-up surface grid, "
        "derived from Sentinel2 composite and Landsat, multitemporal (1975-2030). European "
        "Commission, Joint Research Centre. doi:10.2905/9F06F36F-4B11-47EC-ABB0-4F8B7B1D72EA",
        doi="10.2905/9F06F36F-4B11-47EC-ABB0-4F8B7B1D72EA", version="R2023A V1-0",
        years=(1975, 2030), about="https://human-settlement.emergency.copernicus.eu/ghs_buS2023.php",
        **terms,
    )  # fmt: skip
    height = collection(
        "ghs-built-h-r2023a", "GHS-BUILT-H R2023A, building height grid",
        "Average height of the built-up surface (ANBH) and of the building volume over the "
        "gross surface (AGBH), metres, 2018, 100 m.",
        citation="Pesaresi M., Politis P. (2023): GHS-BUILT-H R2023A - GHS building height, "
        "derived from AW3D30, SRTM30, and Sentinel2 composite (2018). European Commission, Joint "
        "Research Centre. doi:10.2905/85005901-3A49-48DD-9D19-6261354F56FE",
        doi="10.2905/85005901-3A49-48DD-9D19-6261354F56FE", version="R2023A V1-0",
        years=(2018, 2018), about="https://human-settlement.emergency.copernicus.eu/ghs_buH2023.php",
        **terms,
    )  # fmt: skip
    land = collection(
        "ghs-land-r2022a", "GHS-LAND R2022A, permanent land",
        "Permanent land surface, square metres per cell, 2018.",
        citation="Pesaresi M., Politis P. (2022): GHS-LAND R2022A - Land fraction as derived from "
        "Sentinel2 image composite (2018) and OpenStreetMap (OSM) data. European Commission, Joint "
        "Research Centre. doi:10.2905/AB7AD451-5ED5-44A6-A4D0-9F7A4E848CEE",
        doi="10.2905/AB7AD451-5ED5-44A6-A4D0-9F7A4E848CEE", version="R2022A V1-0",
        years=(2018, 2018), about="https://human-settlement.emergency.copernicus.eu/download.php?ds=land",
        **terms,
    )  # fmt: skip
    smod = collection(
        "ghs-smod-r2023a", "GHS-SMOD R2023A, settlement classes",
        "Degree of Urbanisation of cells, level 2 classes (30 23 22 21 13 12 11 10), 1 km.",
        citation="Schiavina M., Melchiorri M., Pesaresi M. (2023): GHS-SMOD R2023A - GHS "
        "settlement layers, application of the Degree of Urbanisation methodology (stage I) to "
        "GHS-POP R2023A and GHS-BUILT-S R2023A, multitemporal (1975-2030). European Commission, "
        "Joint Research Centre. doi:10.2905/A0DF7A6F-49DE-46EA-9BDE-563437A6E2BA",
        doi="10.2905/A0DF7A6F-49DE-46EA-9BDE-563437A6E2BA", version="R2023A V2-0",
        years=(1975, 2030), about="https://human-settlement.emergency.copernicus.eu/ghs_smod2023.php",
        **terms,
    )  # fmt: skip
    for epoch in EPOCHS:
        for resolution in (100, 1000):
            kind, none = ("uint16", 65535) if resolution == 100 else ("uint32", 4294967295)
            pop.add_item(grid("pop", "GHS_POP", "R2023A", epoch, resolution, "people",
                              "float64" if resolution == 1000 else "float32", -200))  # fmt: skip
            built.add_item(grid("built-s", "GHS_BUILT_S", "R2023A", epoch, resolution, "m2",
                                kind, none))  # fmt: skip
        smod.add_item(grid("smod", "GHS_SMOD", "R2023A", epoch, 1000, "class", "int16", -200,
                           version="V2-0"))  # fmt: skip
    for part, words in (("ANBH", "average net building height"),
                        ("AGBH", "average gross building height")):  # fmt: skip
        height.add_item(grid("built-h", "GHS_BUILT_H", "R2023A", 2018, 100, "m", "float32", None,
                             part=part, words=words))  # fmt: skip
    for resolution in (100, 1000):
        kind, none = ("uint16", 65535) if resolution == 100 else ("uint32", 4294967295)
        land.add_item(grid("land", "GHS_LAND", "R2022A", 2018, resolution, "m2", kind, none))
    return [pop, built, height, land, smod]


#: sizes that public copies of the files report, bytes; the publisher gives no hashes
_SIZES = {
    "GHS_BUILT_S_E2020_GLOBE_R2023A_54009_1000": 152_527_564,
    "GHS_SMOD_E2020_GLOBE_R2023A_54009_1000": 35_853_870,
}


def grid(
    product: str,
    name: str,
    release: str,
    epoch: int,
    resolution: int,
    unit: str,
    dtype: str,
    nodata: float | None,
    *,
    version: str = "V1-0",
    part: str = "",
    words: str = "",
) -> pystac.Item:
    """Return one epoch and resolution of a grid: its tiles, and the whole world."""
    stem = f"{name}{'_' + part if part else ''}_E{epoch}_GLOBE_{release}_54009_{resolution}"
    suffix = version.replace("-", "_")
    folder = f"{name}_GLOBE_{release}/{stem}/{version}"
    unverified = ["data_type"]
    unverified += ["nodata"] if not (resolution == 1000 and product in ("pop", "built-s", "land"))\
        else []  # fmt: skip
    made = item(
        stem, product=product, epoch=epoch, resolution=resolution, unit=unit, crs="ESRI:54009",
        version=f"{release} {version}", bbox=WORLD, unverified=["address", *unverified],
        title=" ".join([name.replace("_", "-"), *words.split(), f"{epoch}, {resolution} m"]),
    )  # fmt: skip
    band: dict[str, Any] = {"name": product, "unit": unit, "data_type": dtype}
    if nodata is not None:
        band["nodata"] = nodata
    common: dict[str, Any] = {"bands": [band], "qala:member": f"{stem}_{suffix}*.tif"}
    tiled, whole = f"{folder}/tiles/{stem}_{suffix}_{{tile}}.zip", f"{folder}/{stem}_{suffix}.zip"
    made.add_asset(
        "tiles",
        asset(f"{GHSL}/{tiled}", "tiles of 1,000 km, zip with a GeoTIFF", "application/zip",
              **{"qala:tiles": "../ghsl_tiles.json", "qala:mirrors": [f"{MIRROR}/{tiled}"]},
              **common),
    )  # fmt: skip
    size = {"qala:size_seen": _SIZES[stem]} if stem in _SIZES else {}
    made.add_asset(
        "world",
        asset(f"{GHSL}/{whole}", "the whole world, zip with a GeoTIFF", "application/zip",
              **{"qala:mirrors": [f"{MIRROR}/{whole}"]}, **common, **size),
    )  # fmt: skip
    return made


def geopackage(path: str) -> pystac.Asset:
    """Return a zip with a GeoPackage on the servers of GHSL."""
    more = {"qala:member": "*.gpkg", "qala:mirrors": [f"{MIRROR}/{path}"]}
    return asset(f"{GHSL}/{path}", "zip with a GeoPackage", "application/zip", **more)


def ghsl_functional_areas() -> pystac.Collection:
    """Return GHS-FUA."""
    made = collection(
        "ghs-fua-r2019a", "GHS-FUA R2019A, functional urban areas",
        "Boundaries of functional urban areas of 2015, from travel time, population and income.",
        licence="CC-BY-4.0", licence_link="https://human-settlement.emergency.copernicus.eu/GHSLhowToCite.php",
        citation="Schiavina M., Moreno-Monroy A., Maffenini L., Veneri P. (2019): GHS-FUA R2019A - "
        "GHS functional urban areas, derived from GHS-UCDB R2019A (2015). European Commission, "
        "Joint Research Centre. doi:10.2905/347F0337-F2DA-4592-87B3-E25975EC2C95",
        doi="10.2905/347F0337-F2DA-4592-87B3-E25975EC2C95", version="R2019A V1-0", notice=NOTICE,
        about="https://human-settlement.emergency.copernicus.eu/ghs_fua.php", providers=[JRC],
        bbox=WORLD, years=(2015, 2015),
    )  # fmt: skip
    name = "GHS_FUA_UCDB2015_GLOBE_R2019A"
    one = item(
        f"{name}_54009_1K", product="fua", epoch=2015, resolution=1000, unit=None, crs="ESRI:54009",
        version="R2019A V1-0", bbox=WORLD, unverified=["address"],
        title="GHS-FUA 2015, functional urban areas",
    )  # fmt: skip
    path = f"{name}/V1-0/{name}_54009_1K_V1_0.zip"
    one.add_asset("data", geopackage(path))
    made.add_item(one)
    return made


def ghsl_urban_centres() -> list[pystac.Collection]:
    """Return both editions of the urban centre database."""
    terms: dict[str, Any] = {
        "licence": "CC-BY-4.0",
        "licence_link": "https://human-settlement.emergency.copernicus.eu/GHSLhowToCite.php",
        "notice": NOTICE, "providers": [JRC], "bbox": WORLD,
    }  # fmt: skip
    old = collection(
        "ghs-ucdb-r2019a", "GHS-UCDB R2019A, urban centre database 2015",
        "Urban centres of 2015 with their population, area and attributes since 1975.",
        citation="Florczyk A. et al. (2019): GHS Urban Centre Database 2015, multitemporal and "
        "multidimensional attributes, R2019A. European Commission, Joint Research Centre. "
        "doi:10.2905/53473144-b88c-44bc-b4a3-4583ed1f547e",
        doi="10.2905/53473144-b88c-44bc-b4a3-4583ed1f547e", version="R2019A V1-2",
        about="https://human-settlement.emergency.copernicus.eu/ghs_stat_ucdb2015mt_r2019a.php",
        years=(2015, 2015), **terms,
    )  # fmt: skip
    path = "GHS_STAT_UCDB2015MT_GLOBE_R2019A/V1-2/GHS_STAT_UCDB2015MT_GLOBE_R2019A.zip"
    first = item(
        "GHS_STAT_UCDB2015MT_GLOBE_R2019A", product="ucdb", epoch=2015, resolution=1000, unit=None,
        crs="EPSG:4326", version="R2019A V1-2", bbox=WORLD, unverified=["address", "crs"],
        title="Urban centre database 2015",
    )  # fmt: skip
    first.add_asset("data", geopackage(path))
    old.add_item(first)
    new = collection(
        "ghs-ucdb-r2024a", "GHS-UCDB R2024A, urban centre database 2025",
        "Urban centres of 2025 with their population, area and attributes since 1975.",
        citation="Mari Rivero I., Melchiorri M., Florio P., Schiavina M. et al. (2024): GHS-UCDB "
        "R2024A - GHS Urban Centre Database 2025. European Commission, Joint Research Centre. "
        "doi:10.2905/1A338BE6-7EAF-480C-9664-3A8ADE88CBCD",
        doi="10.2905/1A338BE6-7EAF-480C-9664-3A8ADE88CBCD", version="R2024A V1-2",
        about="https://human-settlement.emergency.copernicus.eu/ghs_ucdb_2024.php",
        years=(2025, 2025), **terms,
    )  # fmt: skip
    path = "GHS_UCDB_GLOBE_R2024A/GHS_UCDB_GLOBE_R2024A/V1-2/GHS_UCDB_GLOBE_R2024A_V1_2.zip"
    second = item(
        "GHS_UCDB_GLOBE_R2024A", product="ucdb", epoch=2025, resolution=1000, unit=None,
        crs="ESRI:54009", version="R2024A V1-2", bbox=WORLD, unverified=["address", "crs"],
        title="Urban centre database 2025",
    )  # fmt: skip
    second.add_asset("data", geopackage(path))
    new.add_item(second)
    return [old, new]


# --- other sources ----------------------------------------------------------------


def terrain() -> pystac.Collection:
    """Return Copernicus GLO-30."""
    made = collection(
        "copernicus-glo-30", "Copernicus DEM GLO-30 Public, terrain surface",
        "Heights of the surface (roofs and trees included) above EGM2008, tiles of one degree; "
        "tiles without land are not published.",
        licence="other",
        licence_link="https://dataspace.copernicus.eu/explore-data/data-collections/copernicus-contributing-missions/collections-description/COP-DEM",
        citation="Copernicus DEM GLO-30 Public, European Space Agency (2021). "
        "doi:10.5270/ESA-c5d3d65", doi="10.5270/ESA-c5d3d65", version="2021",
        notice="© DLR e.V. 2010-2014 and © Airbus Defence and Space GmbH 2014-2018 provided under "
        "COPERNICUS by the European Union and ESA; all rights reserved",
        about="https://registry.opendata.aws/copernicus-dem/",
        providers=[pystac.Provider("European Space Agency", roles=[pystac.ProviderRole.LICENSOR])],
        bbox=WORLD, years=(2021, 2021),
    )  # fmt: skip
    one = item(
        "copernicus-glo-30", product="dem", epoch=2021, resolution=30, unit="m", crs="EPSG:4326",
        version="2021", bbox=WORLD, unverified=["address", "nodata"],
        title="Copernicus GLO-30 surface heights", **{"qala:vertical_crs": "EPSG:3855"},
    )  # fmt: skip
    name = "Copernicus_DSM_COG_10_{tile}_DEM"
    one.add_asset("tiles", asset(
        f"https://copernicus-dem-30m.s3.amazonaws.com/{name}/{name}.tif",
        "tiles of one degree, cloud-optimised GeoTIFF",
        "image/tiff; application=geotiff; profile=cloud-optimized",
        **{"qala:tiles": "degree", "qala:sparse": True,
           "qala:mirrors": [f"https://copernicus-dem-30m.s3.eu-central-1.amazonaws.com/{name}/{name}.tif"],
           "bands": [{"name": "height", "unit": "m", "data_type": "float32"}]},
    ))  # fmt: skip
    made.add_item(one)
    return made


def osm() -> pystac.Collection:
    """Return OpenStreetMap extracts."""
    made = collection(
        "osm-extracts", "OpenStreetMap extracts (Geofabrik)",
        "Roads, places, buildings and boundaries of a country, renewed every day; the MD5 stands "
        "beside each file.",
        licence="ODbL-1.0", licence_link="https://opendatacommons.org/licenses/odbl/1-0/",
        citation="© OpenStreetMap contributors, ODbL 1.0; extract by Geofabrik GmbH",
        version="latest", notice="© OpenStreetMap contributors, ODbL 1.0",
        about="https://download.geofabrik.de/asia/kazakhstan.html",
        providers=[
            pystac.Provider("OpenStreetMap contributors", roles=[pystac.ProviderRole.LICENSOR]),
            pystac.Provider("Geofabrik GmbH", roles=[pystac.ProviderRole.HOST]),
        ],
        bbox=[46.0, 35.0, 88.0, 56.0], years=None,
    )  # fmt: skip
    for country, box in (("kazakhstan", KAZAKHSTAN), ("kyrgyzstan", [69.2, 39.1, 80.3, 43.3]),
                         ("uzbekistan", [55.9, 37.1, 73.2, 45.6])):  # fmt: skip
        one = item(
            f"osm-{country}", product="osm", epoch=None, resolution=None, unit=None,
            crs="EPSG:4326", version="latest", bbox=box, unverified=["address"],
            title=f"OpenStreetMap, {country.capitalize()}",
        )  # fmt: skip
        url = f"https://download.geofabrik.de/asia/{country}-latest.osm.pbf"
        more = {"qala:md5_href": f"{url}.md5", "qala:changes": "daily"}
        kind = "application/vnd.openstreetmap.data+pbf"
        one.add_asset("data", asset(url, "OSM PBF", kind, **more))
        made.add_item(one)
    return made


def boundaries() -> pystac.Collection:
    """Return administrative units of Kazakhstan."""
    made = collection(
        "geoboundaries-kaz", "geoBoundaries, administrative units of Kazakhstan",
        "Country, regions (boundaries before the regions of 2022) and districts.",
        licence="ODbL-1.0", licence_link="https://www.geoboundaries.org/",
        citation="Runfola D. et al. (2020): geoBoundaries: A global database of political "
        "administrative boundaries. PLoS ONE 15(4): e0231866. doi:10.1371/journal.pone.0231866",
        doi="10.1371/journal.pone.0231866", version="commit 9469f09",
        notice="Boundaries: geoBoundaries and © OpenStreetMap contributors, ODbL 1.0",
        about="https://www.geoboundaries.org/api/current/gbOpen/KAZ/ALL/",
        providers=[pystac.Provider("William & Mary geoLab", roles=[pystac.ProviderRole.PRODUCER])],
        bbox=KAZAKHSTAN, years=(2017, 2017),
    )  # fmt: skip
    for level, words in enumerate(("country", "regions", "districts")):
        one = item(
            f"geoboundaries-kaz-adm{level}", product="units", epoch=2017, resolution=None,
            unit=None, crs="EPSG:4326", version="commit 9469f09", bbox=KAZAKHSTAN,
            unverified=["address", *(["licence", "epoch"] if level else [])],
            title=f"Kazakhstan, {words}",
        )  # fmt: skip
        path = f"gbOpen/KAZ/ADM{level}/geoBoundaries-KAZ-ADM{level}.geojson"
        one.add_asset("data", asset(
            f"https://github.com/wmgeolab/geoBoundaries/raw/9469f09/releaseData/{path}",
            "GeoJSON", "application/geo+json",
            **{"qala:mirrors": [
                f"https://media.githubusercontent.com/media/wmgeolab/geoBoundaries/9469f09/releaseData/{path}"
            ]},
        ))  # fmt: skip
        made.add_item(one)
    return made


def statistics() -> pystac.Collection:
    """Return tables of Kazakhstan that travel with qala."""
    made = collection(
        "kazakhstan-statistics", "Kazakhstan, units and their names in official statistics",
        "Matching tables of the Bureau of National Statistics' names and OpenStreetMap boundaries. "
        "Counts are published by the Bureau as tables without a lasting address: bring them as CSV "
        "with the columns unit, epoch, population, urban, rural.",
        licence="other", licence_link="https://stat.gov.kz/en/description/",
        citation="Bureau of National Statistics, Agency for Strategic Planning and Reforms of the "
        "Republic of Kazakhstan, population by type of settlement, 1 January 2023",
        version="2023", notice="Statistics: Bureau of National Statistics of Kazakhstan",
        about="https://stat.gov.kz/",
        providers=[pystac.Provider("Bureau of National Statistics of Kazakhstan",
                                   roles=[pystac.ProviderRole.PRODUCER], url="https://stat.gov.kz/")],
        bbox=KAZAKHSTAN, years=(2023, 2023),
    )  # fmt: skip
    for name, words in (("oblasts", "regions and cities of republican significance"),
                        ("units", "units of Turkistan region"),
                        ("settlements", "cities and towns of Turkistan region")):  # fmt: skip
        one = item(
            f"kazakhstan-{name}", product="statistics", epoch=2023, resolution=None, unit=None,
            crs="EPSG:4326", version="2023", bbox=KAZAKHSTAN, unverified=[],
            title=f"Kazakhstan: {words}",
        )  # fmt: skip
        data = (ROOT / "kazakhstan" / f"{name}.csv").read_bytes()
        one.add_asset("data", asset(
            f"../kazakhstan/{name}.csv", "CSV", "text/csv",
            **{"file:size": len(data), "file:checksum": "1220" + hashlib.sha256(data).hexdigest()},
        ))  # fmt: skip
        made.add_item(one)
    return made


if __name__ == "__main__":
    main()
