"""Commands of operators: catalogs, fetching, and where numbers came from."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qala.cli_areas import parse_bbox
from qala.errors import InputError, Problems

if TYPE_CHECKING:
    import pystac

    from qala.catalog import Asset

catalog_app = typer.Typer(
    no_args_is_help=True, help="Sources: what there is, and under which terms."
)

CatalogOption = Annotated[
    list[Path] | None,
    typer.Option("--catalog", help="Further STAC catalog, or a run's folder; may be repeated."),
]
BoxOption = Annotated[
    str | None, typer.Option(help="west,south,east,north in degrees (write --bbox=-5,…).")
]
EpochOption = Annotated[int | None, typer.Option(help="Year.")]
ProductOption = Annotated[
    str | None, typer.Option(help="pop, built-s, built-h, land, smod, fua, ucdb, dem, osm, …")
]
ResolutionOption = Annotated[float | None, typer.Option(help="Cell size in metres.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the operators' commands to the command line."""
    app.add_typer(catalog_app, name="catalog")
    app.command()(fetch)
    app.command()(why)
    app.command()(diff)


@catalog_app.command("list")
def list_collections(catalog: CatalogOption = None) -> None:
    """List the collections: product, epochs, resolutions, licence."""
    from qala.catalog import open_catalogs

    groups: dict[str, list[pystac.Item]] = {}
    for item in open_catalogs(catalog or []):
        groups.setdefault(item.collection_id or item.id, []).append(item)
    rows = []
    for name, items in groups.items():
        terms = items[0].extra_fields.get("qala:terms", {})
        years = sorted({
            e for i in items
            for e in (i.properties.get("qala:epoch"), *i.properties.get("qala:epochs", []))
            if e
        })  # fmt: skip
        sizes = sorted({int(r) for i in items if (r := i.properties.get("qala:resolution"))})
        rows.append((
            name, items[0].properties.get("qala:product", ""),
            f"{years[0]}-{years[-1]}" if len(years) > 1 else str(years[0]) if years else "",
            ", ".join(map(str, sizes)), str(len(items)),
            str(terms.get("license") or items[0].properties.get("license", "")),
        ))  # fmt: skip
    _table(("collection", "product", "epochs", "metres", "items", "licence"), rows)


@catalog_app.command()
def show(
    name: Annotated[str, typer.Argument(help="A collection or item.")],
    catalog: CatalogOption = None,
) -> None:
    """Show all that is known of a collection or item."""
    from qala.catalog import open_catalogs
    from qala.identity import safe_url

    items = open_catalogs(catalog or [])
    found = [i for i in items if name in (i.id, i.collection_id)]
    if not found:
        raise InputError(f"no collection or item is called {name}", "one of `qala catalog list`")
    item = found[0]
    terms = item.extra_fields.get("qala:terms", {})
    own = item.properties
    if len(found) > 1:
        typer.echo(f"{name}: {len(found)} items; the terms, and the first item")
    lines = {
        "item": item.id,
        "title": own.get("title") or terms.get("title"),
        "version": own.get("version"),
        "licence": own.get("license") or terms.get("license"),
        "notice": terms.get("qala:notice"),
        "cite": own.get("sci:citation") or terms.get("sci:citation"),
        "product": own.get("qala:product"),
        "epoch": own.get("qala:epoch") or own.get("qala:epochs"),
        "resolution": f"{own['qala:resolution']} m" if own.get("qala:resolution") else None,
        "unit": own.get("qala:unit"),
        "CRS": own.get("proj:code"),
        "not verified": ", ".join(own.get("qala:unverified", [])),
    }
    for key, value in lines.items():
        if value:
            typer.echo(f"{key:13} {value}")
    for key, asset in item.assets.items():
        more = asset.extra_fields
        bands = more.get("bands") or [{}]
        notes = [
            f"{more['file:size']:,} bytes" if "file:size" in more else "",
            f"about {more['qala:size_seen'] / 1e6:.0f} MB" if "qala:size_seen" in more else "",
            f"nodata {bands[0]['nodata']}" if "nodata" in bands[0] else "",
            f"hash {more['file:checksum'][4:]}" if "file:checksum" in more else "no hash published",
        ]
        typer.echo(f"asset {key:7} {safe_url(asset.href)}")
        typer.echo(f"{'':13} {', '.join(n for n in notes if n)}")


@catalog_app.command()
def search(
    bbox: BoxOption = None,
    epoch: EpochOption = None,
    product: ProductOption = None,
    resolution: ResolutionOption = None,
    catalog: CatalogOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find what serves a place and an epoch, with the number of files it takes."""
    from qala.catalog import assets_of, open_catalogs
    from qala.catalog import search as find

    box = parse_bbox(bbox)
    found = find(
        open_catalogs(catalog or []), bbox=box, epoch=epoch, product=product, resolution=resolution
    )
    rows = []
    for item in found:
        try:
            files = len(assets_of(item, bbox=box))
        except InputError:
            files = 0
        own = item.properties
        rows.append((
            item.id, str(own.get("qala:product", "")), str(own.get("qala:epoch") or ""),
            str(own.get("qala:resolution") or ""), str(own.get("qala:unit") or ""), str(files),
        ))  # fmt: skip
    head = ("item", "product", "epoch", "metres", "unit", "files")
    if as_json:
        typer.echo(json.dumps([dict(zip(head, r, strict=True)) for r in rows], indent=1))
    elif rows:
        _table(head, rows)
    else:
        typer.echo("nothing serves this")


@catalog_app.command("check")
def check_catalogs(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Catalogs; default: qala's own.")
    ] = None,
) -> None:
    """Check catalogs offline: STAC's schema, paths, epochs, ids, hashes."""
    from qala.catalog import check_catalog, default_paths

    problems = Problems("catalogs")
    for path in paths or default_paths():
        try:
            for line in check_catalog(path):
                typer.echo(line)
        except InputError as error:
            problems.add_error(error)
    problems.raise_if_any()


def fetch(
    names: Annotated[
        list[str], typer.Argument(help="Products, items, catalog:// addresses, or workflows.")
    ],
    bbox: BoxOption = None,
    epoch: EpochOption = None,
    resolution: ResolutionOption = None,
    asset: Annotated[str | None, typer.Option(help="One asset of the item.")] = None,
    catalog: CatalogOption = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Touch no network; name what is missing.")
    ] = False,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Ask whether cached files changed at their source.")
    ] = False,
    allow_local: Annotated[
        bool, typer.Option("--allow-local", help="Allow file:// and addresses of this network.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be fetched, and from where.")
    ] = False,
) -> None:
    """Bring the files a place and epoch need into the shared cache, and print their paths."""
    from qala.catalog import assets_of, open_catalogs, resolve
    from qala.catalog import search as find
    from qala.fetch import Options, place_of, resolve_sources
    from qala.fetch import fetch as bring
    from qala.identity import safe_url

    box = parse_bbox(bbox)
    bar = _Bar()
    options = Options(
        offline=offline, allow_local=allow_local, refresh=refresh,
        progress=bar if sys.stderr.isatty() else None,
    )  # fmt: skip
    items = open_catalogs(catalog or [])
    wanted: list[Asset] = []
    problems = Problems("fetch")
    for name in names:
        try:
            if name.endswith((".yaml", ".yml")):
                from qala.config import input_files, load_workflow

                ready = resolve_sources(load_workflow(name), catalogs=catalog or [],
                                        options=options)  # fmt: skip
                for file in input_files(ready):
                    typer.echo(str(file))
                continue
            if name.startswith("catalog://"):
                wanted += resolve(name, items, bbox=box)
                continue
            found = find(items, bbox=box, epoch=epoch, product=name, resolution=resolution)
            if not found:
                problems.add(f"nothing serves {name!r} here", "a product of `qala catalog search`")
            if len(found) > 1 and not (epoch and resolution) and name not in {i.id for i in found}:
                listed = ", ".join(i.id for i in found[:4])
                problems.add(
                    f"{name} has {len(found)} items ({listed} …)", "one",
                    "pass --epoch and --resolution, or name an item",
                )  # fmt: skip
                continue
            for item in found:
                wanted += assets_of(item, bbox=box, key=asset)
        except InputError as error:
            problems.add_error(error)
    problems.raise_if_any()
    if dry_run:
        for one in wanted:
            place = place_of(one)
            state = "in the cache" if place.is_file() else "to fetch"
            size = one.size or one.size_seen
            told = f", {size / 1e6:,.1f} MB" if size else ""
            typer.echo(f"{one.filename}: {state}{told}\n  {safe_url(one.url)}\n  {place}")
        return
    got = bring(wanted, options=options)
    bar.close()
    for brought in got:
        if brought.path is not None:
            typer.echo(str(brought.path))
    fresh = [g for g in got if not g.cached and g.path is not None]
    absent = sum(g.path is None for g in got)
    typer.echo(
        f"{len(got)} files: {len(fresh)} fetched ({sum(g.bytes for g in fresh) / 1e6:,.1f} MB), "
        f"{len(got) - len(fresh) - absent} in the cache, {absent} not published",
        err=True,
    )


def why(
    target: Annotated[str, typer.Argument(help="An output folder or file; :layer may follow.")],
    as_json: JsonOption = False,
) -> None:
    """Tell where an output came from, back to its sources, and what to cite."""
    from qala import lineage

    node = lineage.why(target)
    if as_json:
        typer.echo(json.dumps(lineage.as_plain(node), ensure_ascii=False, indent=1))
    else:
        typer.echo("\n".join(lineage.text_of(node)))


def diff(
    first: Annotated[Path, typer.Argument(help="Output folder of a run.")],
    second: Annotated[Path, typer.Argument(help="Output folder of another.")],
    as_json: JsonOption = False,
) -> None:
    """Compare two runs: which units changed, by how much, and what explains it."""
    from qala import lineage

    found = lineage.diff_runs(first, second)
    if as_json:
        typer.echo(json.dumps(lineage.diff_plain(found), ensure_ascii=False, indent=1))
    else:
        typer.echo("\n".join(lineage.diff_text(found)))


class _Bar:
    """A bar of bytes on a terminal."""

    def __init__(self) -> None:
        self.bar: Any = None

    def __call__(self, done: int, total: int | None) -> None:
        from tqdm import tqdm

        if self.bar is None or done < self.bar.n or self.bar.total != total:
            self.close()
            self.bar = tqdm(total=total, unit="B", unit_scale=True, leave=False, initial=done)
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(str(r[n])) for r in [head, *rows]) for n in range(len(head))]
    for row in [head, *rows]:
        line = "  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True))
        typer.echo(line.rstrip())
