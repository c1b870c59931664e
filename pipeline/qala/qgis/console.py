"""Functions for QGIS's Python console. They run in the worker and bring layers back."""

from __future__ import annotations

import functools
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from qgis.core import (  # type: ignore[import-not-found]
    Qgis,
    QgsApplication,
    QgsMessageLog,
    QgsProject,
    QgsSettings,
)

from ..errors import InputError, QalaError
from . import environment, layers, requests
from .worker import Cancelled, Outcome, Run

_SETTING = "qala/python"
_Function = TypeVar("_Function", bound=Callable[..., Any])
#: the files of a folder that a planner looks at first
_MAIN = ("areas", "city", "indicators", "times", "urbanisation")
#: names that Python gives to what is typed at a prompt
_TYPED = frozenset({"<input>", "<stdin>", "<console>"})


def _in_a_sentence(function: _Function) -> _Function:
    """Make a mistake at the prompt one sentence; in scripts it stays an exception."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except QalaError as error:
            _tell(
                str(error),
                Qgis.MessageLevel.Info
                if isinstance(error, Cancelled)
                else Qgis.MessageLevel.Critical,
            )
            if sys._getframe(1).f_code.co_filename in _TYPED:
                print(f"qala: {error}", file=sys.stderr)
                return None
            # the frames of these helpers would only hide the sentence
            raise error.with_traceback(None) from None

    return wrapped  # type: ignore[return-value]


@_in_a_sentence
def urbanisation(
    population: Any,
    units: Any = None,
    id: str | None = None,
    *,
    built: Any = None,
    land: Any = None,
    official: Any = None,
    places: Any = None,
    ruleset: str = "R2023A",
    rules: str = "2024",
    selected_only: bool = False,
    join: bool = False,
    report: bool = False,
    sensitivity: bool = False,
    repair: bool = False,
    title: str = "",
    language: str | None = None,
    output: str | None = None,
    **thresholds: float,
) -> dict[str, Any]:
    """Degree of Urbanisation of cells and units, urban centres, and urban shares.

    The layers of the result are added to the project in a group of their own.

    Parameters
    ----------
    population
        People per cell: a raster layer of the project, its name, or a path.
        For several years ``{2015: a, 2020: b}``.
    units
        Territorial units: a vector layer, its name, or a path. Memory layers,
        unsaved edits and any CRS will do.
    id
        Column of unit ids; needed with ``units``.
    built, land
        Built-up surface and land on the population's grid, given likewise.
    official
        Table of official shares: ``unit, [epoch], urban_share``.
    places
        Named points, to name the urban centres.
    ruleset
        ``R2023A`` (GHSL, default), ``R2022A``, ``manual2021`` or ``2024``.
    rules
        Rules of level 2 for units: ``2024`` or ``2021``.
    selected_only
        Take the selected units alone.
    join
        Show the result on your own layer too, joined by id as ``qala_…``.
    report, sensitivity
        Also draw maps and write the report; also vary the definition.
    repair
        Repair invalid or overlapping units instead of refusing them.
    title
        Name of the region.
    language
        ``en``, ``ru`` or ``kk``; that of QGIS where None.
    output
        Folder of the result; a new one beside the project where None.
    **thresholds
        Thresholds of the classification, for instance ``centre_density=1500``.

    Returns
    -------
    dict
        Name → layer, for instance ``urbanisation(…)["units"]``.

    Examples
    --------
    ``urbanisation("GHS_POP_2020.tif")``

    ``urbanisation("population", units="Districts", id="code", selected_only=True)``
    """
    folder = _output_folder(output, "urbanisation")
    with tempfile.TemporaryDirectory(prefix="qala-") as work:
        source, name, layer = None, None, None
        if units is not None:
            source, name, layer = layers.vector_path(
                units, "units", Path(work), id=id, selected_only=selected_only
            )
        if join and layer is None:
            raise InputError("join needs units as a layer of the project", "a vector layer")
        given_places = None
        if places is not None:
            given_places = layers.vector_path(places, "places", Path(work))[0]
        workflow = requests.urbanisation_workflow(
            Path(work) / "workflow.yaml",
            population=_rasters(population, "population"),
            built=_rasters(built, "built"),
            land=_rasters(land, "land"),
            units=source, layer=name, id=id, official=_table(official, "official"),
            places=given_places, ruleset=ruleset, rules=rules, thresholds=thresholds,
            lang=language or layers.language(), title=title, report=report,
            sensitivity=sensitivity, repair=repair,
        )  # fmt: skip
        _work("urbanisation", ["run", str(workflow), "--out", str(folder)], folder, work)
    added = _open(folder, title or "Urbanisation")
    if join and layer is not None and "units" in added:
        layers.join_back(layer, added["units"], str(id))
    return added


@_in_a_sentence
def functional_areas(
    population: Any,
    units: Any,
    id: str,
    *,
    flows: Any = None,
    employed: Any = None,
    network: Any = None,
    distance: bool = False,
    isochrone: float | None = None,
    threshold: float = 0.15,
    beta: float | None = None,
    cores: Any = None,
    built: Any = None,
    land: Any = None,
    selected_only: bool = False,
    join: bool = False,
    language: str | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """Functional urban areas: cities and the zones that commute to them.

    Say how people commute in exactly one way: ``flows``, ``network``,
    ``distance`` or ``isochrone``.

    Parameters
    ----------
    population, built, land
        Rasters: layers of the project, their names, or paths.
    units, id
        Territorial units and their column of ids, as for :func:`urbanisation`.
    flows
        Table ``origin, destination, commuters``.
    employed
        Table ``unit, employed``, the denominator of the shares.
    network
        Road network: a file of ``qala network``, or an OSM extract.
    distance
        Estimate commuting by straight distance; needs no data.
    isochrone
        Minutes around each centre, the simple baseline; 90 is usual.
    threshold
        Share of commuters that makes a unit part of the zone (EU-OECD: 0.15).
    beta
        Decay of estimated flows; the default is calibrated on Belgium.
    cores
        Table ``unit, city`` of given cores.
    selected_only, join, language
        As for :func:`urbanisation`.
    output
        GeoPackage of the result; a new one beside the project where None.

    Returns
    -------
    dict
        Name → layer.

    Examples
    --------
    ``functional_areas("population.tif", "Districts", "code", distance=True)``
    """
    target = _output_file(output, "functional_areas", "areas.gpkg")
    lang = language or layers.language()
    with tempfile.TemporaryDirectory(prefix="qala-") as work:
        how = requests.how_of_areas(
            flows=_table(flows, "flows"),
            network=None if network is None else "",
            distance=distance,
            isochrone=isochrone,
        )
        source, name, layer = layers.vector_path(
            units, "units", Path(work), id=id, selected_only=selected_only
        )
        if network is not None:
            how = ["--network", _network(network, Path(work))]
        arguments = requests.options(
            population=_files(population, "population"), units=source, layer=name, id=id,
            threshold=threshold, beta=beta, employed=_table(employed, "employed"),
            cores=_table(cores, "cores"), built=_files(built, "built"),
            land=_files(land, "land"), lang=lang,
        )  # fmt: skip
        _work("functional areas", ["areas", *arguments, *how, "-o", str(target)], target, work)
    added = _open(target, "Functional urban areas")
    if join and layer is not None and "membership" in added:
        layers.join_back(layer, added["membership"], id)
    return added


@_in_a_sentence
def travel_times(
    network: Any,
    origins: Any,
    population: Any,
    *,
    max_minutes: float = 120.0,
    mode: str = "car",
    output: str | None = None,
) -> dict[str, Any]:
    """Travel time from every populated cell to the nearest centre, in seconds.

    Parameters
    ----------
    network
        A file of ``qala network``, or an OSM extract (``.osm.pbf``, ``.osm``).
    origins
        Points or urban centres: a vector layer, its name, or a path.
    population
        People per cell: a raster layer, its name, or a path.
    max_minutes
        Farther cells are told as not reached.
    mode
        ``car`` or ``foot``, where the network is made from an OSM extract.
    output
        GeoPackage of the result; a new one beside the project where None.

    Returns
    -------
    dict
        Name → layer.

    Examples
    --------
    ``travel_times("kazakhstan.osm.pbf", "Urban centres", "population")``
    """
    target = _output_file(output, "travel_times", "times.gpkg")
    with tempfile.TemporaryDirectory(prefix="qala-") as work:
        source, _, _ = layers.vector_path(origins, "origins", Path(work))
        arguments = [
            "times", "--network", _network(network, Path(work), mode), "--from", source,
            *requests.options(
                population=_files(population, "population"), max_minutes=float(max_minutes)
            ),
        ]  # fmt: skip
        _work("travel times", [*arguments, "-o", str(target)], target, work)
    return _open(target, "Travel times")


@_in_a_sentence
def city(
    osm: Any,
    *,
    area: Any = None,
    bbox: Sequence[float] | None = None,
    terrain: Any = None,
    heights: Any = None,
    population: Any = None,
    since: Any = None,
    language: str | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """The 3D layers of a city: buildings, streets, land use, networks, terrain.

    Parameters
    ----------
    osm
        OpenStreetMap extract (``.osm.pbf``, ``.osm``).
    area
        Polygons of the city: a vector layer, its name, or a path.
    bbox
        Or west, south, east, north in degrees. Without both, all of the extract.
    terrain, heights, population
        Rasters of ground height, building height and people, where at hand.
    since
        An older ``city.gpkg``; ids are kept, and changes are told.
    language
        ``en``, ``ru`` or ``kk``; that of QGIS where None.
    output
        Folder of the twin; a new one beside the project where None.

    Returns
    -------
    dict
        Name → layer.

    Examples
    --------
    ``city("kazakhstan.osm.pbf", bbox=(68.20, 43.27, 68.30, 43.33))``
    """
    folder = _output_folder(output, "city")
    if area is not None and bbox is not None:
        raise InputError("city: area and bbox are both given", "one of them, or none for all")
    with tempfile.TemporaryDirectory(prefix="qala-") as work:
        where = ["all"]
        if bbox is not None:
            where = ["--bbox", _box(bbox)]
        elif area is not None:
            source, name, _ = layers.vector_path(area, "area", Path(work))
            where = ["--area", f"{source}:{name}" if name else source]
        expected = "a file, or a raster layer of the project"
        arguments = requests.options(
            osm=layers.file_path(osm, "osm", "an OpenStreetMap extract"),
            terrain=None if terrain is None else layers.raster_path(terrain, "terrain"),
            heights=None if heights is None else layers.raster_path(heights, "heights"),
            population=_files(population, "population"),
            since=None if since is None else layers.file_path(since, "since", expected),
            lang=language or layers.language(),
        )
        _work("3D city", ["city", *arguments, *where, "-o", str(folder)], folder, work)
    return _open(folder, "3D city")


@_in_a_sentence
def indicators(
    population: Any,
    units: Any,
    id: str,
    *,
    built: Any = None,
    land: Any = None,
    areas: Any = None,
    city: Any = None,
    network: Any = None,
    osm: Any = None,
    points: Mapping[str, Any] | None = None,
    zones: Mapping[str, Any] | None = None,
    official: Any = None,
    selected_only: bool = False,
    join: bool = False,
    title: str = "",
    language: str | None = None,
    output: str | None = None,
) -> dict[str, Any]:
    """Indicators of SDG 11 and kin for territorial units and functional urban areas.

    What the inputs do not allow is listed as not computed, with what it needs.

    Parameters
    ----------
    population, built, land
        Rasters: layers of the project, their names, or paths; for several
        years ``{2015: a, 2020: b}``. Two years of people and of built-up
        surface give the land consumption of SDG 11.3.1.
    units, id
        Territorial units and their column of ids, as for :func:`urbanisation`.
    areas
        Functional urban areas: a layer, its name, or a GeoPackage.
    city
        Folder of a 3D city, or its ``city.gpkg``.
    network
        A file of ``qala network``, several in a list, or an OSM extract.
    osm
        OpenStreetMap extract, for stops, open space, services and ways.
    points
        Facilities by name, ``{"schools": layer}``, or with their reach in
        metres, ``{"schools": (layer, 800)}``.
    zones
        Areas of protection or risk by name, ``{"flood": layer}``.
    official
        Table of official shares: ``unit, [epoch], urban_share``.
    selected_only, join, language
        As for :func:`urbanisation`.
    title
        Title of the map.
    output
        GeoPackage of the result; a new one beside the project where None.

    Returns
    -------
    dict
        Name → layer.

    Examples
    --------
    ``indicators("population", "Districts", "code", osm="kazakhstan.osm.pbf")``
    """
    target = _output_file(output, "indicators", "indicators.gpkg")
    with tempfile.TemporaryDirectory(prefix="qala-") as work:
        source, name, layer = layers.vector_path(
            units, "units", Path(work), id=id, selected_only=selected_only
        )
        if join and layer is None:
            raise InputError("join needs units as a layer of the project", "a vector layer")
        files: dict[str, list[str]] = {"points": [], "zones": []}
        for kind, given in (("points", points), ("zones", zones)):
            if given is not None and not isinstance(given, Mapping):
                raise InputError(f"{kind} is {given!r}", "names and layers, {'name': layer}")
            for number, (what, item) in enumerate((given or {}).items()):
                part = Path(work) / f"{kind}{number}"
                part.mkdir()
                source_of, reach = item if isinstance(item, tuple) else (item, None)
                path = layers.single_layer(source_of, kind, part)
                files[kind].append(f"{what}={path}" + ("" if reach is None else f"@{reach:g}"))
        networks = network if isinstance(network, (list, tuple)) else [network]
        extract = "an OpenStreetMap extract"
        arguments = requests.options(
            population=requests.by_epoch(_rasters(population, "population")),
            built=requests.by_epoch(_rasters(built, "built")),
            land=requests.by_epoch(_rasters(land, "land")),
            units=source, layer=name, id=id,
            areas=None if areas is None else layers.single_layer(areas, "areas", Path(work)),
            city=None if city is None else layers.file_path(city, "city", "a 3D city"),
            network=[layers.file_path(n, "network", "a road network")
                     for n in networks if n is not None],
            osm=None if osm is None else layers.file_path(osm, "osm", extract),
            official=_table(official, "official"), title=title or None,
            lang=language or layers.language(), **files,
        )  # fmt: skip
        _work("indicators", ["indicators", *arguments, "-o", str(target)], target, work)
    added = _open(target, title or "Indicators")
    if join and layer is not None and "indicators_units" in added:
        result = added["indicators_units"]
        columns = [f.name() for f in result.fields() if f.isNumeric() and f.name() != "fid"]
        layers.join_back(layer, result, id, by="zone", columns=columns)
    return added


@_in_a_sentence
def check(*given: Any) -> bool:
    """Say what files and layers are, whether they are sound, and what to do if not.

    Parameters
    ----------
    *given
        Layers of the project, their names, or paths.

    Returns
    -------
    bool
        Whether all are sound. What was found is printed.

    Examples
    --------
    ``check("population", "districts.gpkg")``
    """
    with tempfile.TemporaryDirectory(prefix="qala-") as work:
        files = check_files(given, Path(work))
        text, sound = checked(files, lambda run: wait(run, "check"))
    print(text)
    return sound


@_in_a_sentence
def open_results(path: str, *, title: str | None = None) -> dict[str, Any]:
    """Add a GeoPackage or a folder of results to the project, styled and grouped.

    Parameters
    ----------
    path
        GeoPackage, or the output folder of a run.
    title
        Name of the group; that of the file where None.

    Returns
    -------
    dict
        Name → layer.

    Examples
    --------
    ``open_results("out/demo")``
    """
    place = Path(layers.file_path(path, "open_results", "a GeoPackage, or a folder of results"))
    return _open(place, title or place.stem)


@_in_a_sentence
def status() -> bool:
    """Say which worker is used and whether it works.

    Returns
    -------
    bool
        Whether it works.
    """
    python, named = worker_python()
    outcome = wait(Run(python, ["--version"]), "status")
    print(f"worker: {python} (from {named}), {outcome.output[0]}")
    return True


# --- shared with the Processing algorithms --------------------------------------------


def worker_python() -> tuple[str, str]:
    """Return the worker's Python, and where it was named.

    Raises
    ------
    InputError
        When there is none, with how to make it.
    """
    setting = str(QgsSettings().value(_SETTING, "") or "")
    profile = Path(QgsApplication.qgisSettingsDirPath())
    return environment.find_python(setting or None, profile=profile)


def check_files(given: Sequence[Any], work: Path) -> dict[str, str]:
    """Return files for layers, names and paths, each with the words to show for it."""
    if not given:
        raise InputError("nothing to check", "layers of the project or files")
    files: dict[str, str] = {}
    for number, item in enumerate(given):
        layer = layers.find_layer(item, "check")
        if layer is None:
            path = layers.file_path(item, "check", "a file, or a layer of the project")
            files[path] = path
        elif hasattr(layer, "bandCount"):
            files[layers.raster_path(layer, "check")] = f"layer {layer.name()!r}"
        else:
            part = work / str(number)
            part.mkdir()
            path = layers.vector_path(layer, "layer", part)[0]
            files[path] = f"layer {layer.name()!r}"
    return files


def checked(files: Mapping[str, str], waiting: Callable[[Run], Outcome]) -> tuple[str, bool]:
    """Return what ``qala check`` says of files, and whether all are sound."""
    python, _ = worker_python()
    run = Run(python, ["check", *files])
    sound = True
    try:
        waiting(run)
    except Cancelled:
        raise
    except InputError:
        sound = False
        if not any(e.level == "output" for e in run.said):
            raise
    text = "\n".join(e.text for e in run.said if e.level == "output")
    for path, words in files.items():
        text = text.replace(f"{path}:", f"{words}:")
    return text, sound


def wait(run: Run, title: str) -> Outcome:
    """Wait for a worker: with progress and cancel in a window, plainly without one."""
    from qgis.utils import iface  # type: ignore[import-not-found]

    try:
        if iface is None:
            while run.running:
                _log(run.events(0.2))
        else:
            _wait_in_window(run, title, iface)
    except BaseException:
        # Ctrl+C, or a window that closes: the worker must not outlive the wait
        run.cancel()
        raise
    return run.outcome()


def _wait_in_window(run: Run, title: str, iface: Any) -> None:
    """Show a progress bar with a button while the window lives on."""
    from qgis.PyQt.QtCore import QEventLoop, QTimer  # type: ignore[import-not-found]
    from qgis.PyQt.QtWidgets import QProgressBar, QPushButton  # type: ignore[import-not-found]

    bar = iface.messageBar()
    message = bar.createMessage("qala", f"{title} …")
    progress = QProgressBar()
    progress.setRange(0, 0)
    progress.setMaximumWidth(220)
    button = QPushButton("Cancel")
    message.layout().addWidget(progress)
    message.layout().addWidget(button)
    shown = bar.pushWidget(message, Qgis.MessageLevel.Info)
    loop = QEventLoop()
    state = {"cancel": False}

    def stop() -> None:
        state["cancel"] = True

    def look() -> None:
        events = run.events()
        _log(events)
        for event in events:
            if event.level == "info":
                message.setText(f"{title}: {event.text}")
            if event.share is not None:
                progress.setRange(0, 100)
                progress.setValue(round(100 * event.share))
        if state["cancel"] or not run.running:
            loop.quit()

    button.clicked.connect(stop)
    # closing the message means the same as the button
    shown.destroyed.connect(stop)
    timer = QTimer()
    timer.setInterval(50)
    timer.timeout.connect(look)
    timer.start()
    loop.exec()
    timer.stop()
    if not state["cancel"]:
        shown.destroyed.disconnect(stop)
        bar.popWidget(shown)
    else:
        run.cancel()
        bar.clearWidgets()


def _log(events: Sequence[Any]) -> None:
    levels = {"warning": Qgis.MessageLevel.Warning, "error": Qgis.MessageLevel.Critical}
    for event in events:
        QgsMessageLog.logMessage(
            event.text, "qala", levels.get(event.level, Qgis.MessageLevel.Info), False
        )


def _tell(text: str, level: Any) -> None:
    """Show a sentence in the window, where there is one, and keep it in the log."""
    from qgis.utils import iface

    QgsMessageLog.logMessage(text, "qala", level, False)
    if iface is not None:
        iface.messageBar().pushMessage(
            "qala", text, level, 0 if level == Qgis.MessageLevel.Critical else 6
        )


def _work(title: str, arguments: Sequence[str], output: Path, scratch: str) -> Outcome:
    python, _ = worker_python()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{output.parent} cannot be made ({error})", "a folder to write to", "name it: output="
        ) from error
    outcome = wait(Run(python, arguments, output=output, scratch=scratch), title)
    warned = f", {len(outcome.warnings)} warnings (Log Messages panel)" if outcome.warnings else ""
    _tell(f"{title}: done in {outcome.seconds:.1f} s{warned}: {output}", Qgis.MessageLevel.Success)
    return outcome


def _open(place: Path, title: str) -> dict[str, Any]:
    files = [place] if place.is_file() else sorted(place.glob("*.gpkg"))
    if not files:
        raise InputError(f"{place} holds no GeoPackage", "results of qala")
    added: dict[str, Any] = {}
    # the main file last, so that its group lies on top
    for file in sorted(files, key=lambda f: (f.stem in _MAIN, f.stem)):
        alone = len(files) == 1 or file.stem in _MAIN
        added.update(layers.add_results(file, title if alone else f"{title}: {file.stem}"))
    return added


def _output_folder(output: str | None, name: str) -> Path:
    """Return the folder of a result: the one named, else a new one."""
    home = QgsProject.instance().homePath()
    if output is not None:
        path = Path(output).expanduser()
        return path if path.is_absolute() else (Path(home) if home else Path.home()) / path
    base = Path(home) / "qala" if home else Path(tempfile.gettempdir())
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    path = base / f"{'' if home else 'qala-'}{name}-{stamp}"
    first, number = path, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}-{number}"), number + 1
    if not home:
        text = f"the project is not saved: the result goes to {path}; pass output= to keep it"
        QgsMessageLog.logMessage(text, "qala", Qgis.MessageLevel.Warning, False)
    return path


def _output_file(output: str | None, name: str, file: str) -> Path:
    if output is not None and output.lower().endswith(".gpkg"):
        return _output_folder(output, name)
    return _output_folder(output, name) / file


def _rasters(given: Any, what: str) -> dict[int | None, list[str]]:
    """Return epoch → files for a raster, tiles, or a mapping of epochs."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        wrong = [e for e in given if not isinstance(e, int)]
        if wrong:
            raise InputError(f"{what}: epoch {wrong[0]!r}", "a year in digits, {2020: layer}")
        return {e: _tiles(v, what) for e, v in given.items()}
    return {None: _tiles(given, what)}


def _tiles(given: Any, what: str) -> list[str]:
    items = given if isinstance(given, (list, tuple)) else [given]
    return [layers.raster_path(item, what) for item in items]


def _files(given: Any, what: str) -> list[str] | None:
    return None if given is None else _tiles(given, what)


def _table(given: Any, what: str) -> str | None:
    """Return the file of a table given as a path, or a delimited-text layer."""
    if given is None:
        return None
    layer = layers.find_layer(given, what)
    if layer is None:
        return layers.file_path(given, what, "a table (CSV)")
    source = str(layer.source()).split("|")[0]
    if source.startswith("file:"):
        from qgis.PyQt.QtCore import QUrl

        source = QUrl(source).toLocalFile()
    if not Path(source).exists():
        raise InputError(f"{what}: layer {layer.name()!r} is no file", "a table (CSV)")
    return source


def _network(given: Any, work: Path, mode: str = "car") -> str:
    """Return a network file; an OSM extract is made into one first."""
    path = layers.file_path(given, "network", "a file of qala network, or an OSM extract")
    if not path.lower().endswith((".pbf", ".osm", ".osm.bz2", ".osm.gz")):
        return path
    if mode not in ("car", "foot"):
        raise InputError(f"mode {mode!r}", "car or foot")
    network = work / "network"
    arguments = ["network", "--osm", path, "--mode", mode, "-o", str(network)]
    _work("road network", arguments, network, str(work))
    return str(network)


def _box(bbox: Sequence[float]) -> str:
    try:
        west, south, east, north = (float(v) for v in bbox)
    except (TypeError, ValueError) as error:
        raise InputError(f"bbox {bbox!r}", "west, south, east, north in degrees") from error
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise InputError(f"bbox {bbox!r}", "west < east and south < north in degrees")
    return f"{west:g},{south:g},{east:g},{north:g}"
