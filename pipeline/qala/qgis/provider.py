"""The Processing provider ``qala``: toolbox, models, batch mode and ``qgis_process``."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qgis.core import (  # type: ignore[import-not-found]
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingLayerPostProcessorInterface,
    QgsProcessingOutputBoolean,
    QgsProcessingOutputString,
    QgsProcessingOutputVectorLayer,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingProvider,
    QgsProject,
    QgsVectorFileWriter,
)
from qgis.PyQt.QtGui import QIcon  # type: ignore[import-not-found]

from ..errors import InputError, QalaError
from ..export.arrangement import arrange
from . import console, layers, requests
from .worker import Outcome, Run

_ICON = str(Path(__file__).resolve().parents[1] / "icon.svg")
_LANGUAGES = ("", *requests.LANGUAGES)
_GPKG = "GeoPackage (*.gpkg)"
_TABLE = "Tables (*.csv)"
_MODES = ("car", "foot")
_KIND = QgsProcessing.SourceType
_NUMBER = QgsProcessingParameterNumber.Type.Double


class _StyledLayer(QgsProcessingLayerPostProcessorInterface):  # type: ignore[misc]
    """Gives a loaded result the default style its GeoPackage holds."""

    def postProcessLayer(self, layer: Any, context: Any, feedback: Any) -> None:
        """Load the style; Processing itself leaves it out."""
        _, found = layer.loadDefaultStyle()
        if found:
            layer.triggerRepaint()


#: Processing keeps no reference of its own, and calls them after the algorithm is gone;
#: the context that loads a layer deletes its processor, so that each layer has one
_styled: deque[Any] = deque(maxlen=200)


class _Algorithm(QgsProcessingAlgorithm):  # type: ignore[misc]
    """What all algorithms share: names, help, waiting for the worker, styled outputs."""

    NAME = ""
    TITLE = ""
    HELP = ""
    #: name of an output → names of layers in the file, the first that is there is taken
    LAYERS: dict[str, tuple[str, ...]] = {}  # noqa: RUF012
    TAGS: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self._scratch = ""

    def createInstance(self) -> Any:
        """Return a fresh instance, as Processing asks for each run."""
        return type(self)()

    def name(self) -> str:
        """Return the id."""
        return self.NAME

    def displayName(self) -> str:
        """Return the words shown in the toolbox."""
        return self.TITLE

    def shortHelpString(self) -> str:
        """Return the help shown beside the parameters."""
        return self.HELP

    def tags(self) -> list[str]:
        """Return words to search for."""
        return ["urban", "GHSL", "degurba", "city", *self.TAGS]

    def icon(self) -> Any:
        """Return the icon."""
        return QIcon(_ICON)

    # --- parameters

    def add(self, parameter: Any, text: str, *, advanced: bool = False) -> None:
        """Add a parameter with its help."""
        parameter.setHelp(text)
        if advanced:
            flag = QgsProcessingParameterDefinition.Flag.FlagAdvanced
            parameter.setFlags(parameter.flags() | flag)
        self.addParameter(parameter)

    def add_population(self) -> None:
        """Add the rasters that most algorithms take."""
        self.add(
            QgsProcessingParameterRasterLayer("POPULATION", "Population grid"),
            "People per cell of 1 km (100 m is summed), for instance GHS-POP, in Mollweide.",
        )

    def add_grounds(self) -> None:
        """Add built-up surface and land."""
        for name, words, text in (
            ("BUILT", "Built-up surface", "On the population's grid; m², share or percent."),
            ("LAND", "Land", "Permanent land on the population's grid; m², share or percent."),
        ):
            self.add(QgsProcessingParameterRasterLayer(name, words, optional=True), text)

    def add_units(self, optional: bool) -> None:
        """Add territorial units and their ids."""
        self.add(
            QgsProcessingParameterFeatureSource(
                "UNITS",
                "Territorial units",
                [_KIND.TypeVectorPolygon],
                optional=optional,
            ),
            "Polygons of districts, municipalities …, in any CRS.",
        )
        self.add(
            QgsProcessingParameterField(
                "ID", "Column of unit ids", parentLayerParameterName="UNITS", optional=optional
            ),
            "Each unit's own id; results are joined back by it.",
        )

    def add_language(self) -> None:
        """Add the language of words in the result."""
        self.add(
            QgsProcessingParameterEnum(
                "LANGUAGE", "Language", ["As QGIS", "English", "Русский", "Қазақша"],
                defaultValue=0,
            ),
            "Of legends, titles and column names in the result.",
            advanced=True,
        )  # fmt: skip

    def add_results(self) -> None:
        """Declare the layers of the result, for models."""
        for name in self.LAYERS:
            words = name.replace("_", " ").capitalize()
            self.addOutput(QgsProcessingOutputVectorLayer(name, words))

    # --- values

    def lang(self, parameters: Any, context: Any) -> str:
        """Return the language chosen."""
        chosen = _LANGUAGES[self.parameterAsEnum(parameters, "LANGUAGE", context)]
        return chosen or layers.language()

    def raster(self, parameters: Any, name: str, context: Any) -> str | None:
        """Return the file of a raster parameter, or None."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            if parameters.get(name) in (None, ""):
                return None
            raise InputError(f"{name}: {parameters[name]} cannot be opened", "a raster")
        return layers.raster_path(layer, name)

    def file(self, parameters: Any, name: str, context: Any) -> str | None:
        """Return the path of a file parameter, or None."""
        text = self.parameterAsFile(parameters, name, context)
        return layers.file_path(text, name, "a file") if text else None

    def number(self, parameters: Any, name: str, context: Any) -> float | None:
        """Return a number, or None where it was left empty."""
        if parameters.get(name) is None:
            return None
        return float(self.parameterAsDouble(parameters, name, context))

    def features(self, parameters: Any, name: str, context: Any, folder: Path) -> str | None:
        """Write a vector parameter (selection and filters applied) to a GeoPackage."""
        source = self.parameterAsSource(parameters, name, context)
        if source is None:
            if parameters.get(name) in (None, ""):
                return None
            raise InputError(f"{name}: {parameters[name]} cannot be opened", "a vector layer")
        if not source.sourceCrs().isValid():
            raise InputError(f"{name} has no CRS", "a layer with a CRS", "set it in QGIS")
        path = folder / f"{name.lower()}.gpkg"
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName = "GPKG"
        options.layerName = name.lower()
        options.layerOptions = ["FID=qala_fid", "GEOMETRY_NAME=geom", "SPATIAL_INDEX=NO"]
        writer = QgsVectorFileWriter.create(
            str(path), source.fields(), source.wkbType(), source.sourceCrs(),
            context.transformContext(), options,
        )  # fmt: skip
        if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
            raise InputError(f"{name} cannot be written ({writer.errorMessage()})", "plain columns")
        count = 0
        for feature in source.getFeatures():
            # a plain copy: feature ids of the source mean nothing in the new file
            copy = QgsFeature(feature)
            if not writer.addFeature(copy):
                raise InputError(
                    f"{name}: a feature cannot be written ({writer.errorMessage()})",
                    "one geometry type",
                )
            count += 1
        del writer
        if not count:
            raise InputError(f"{name} has no features", "at least one (is the selection empty?)")
        return str(path)

    # --- running

    def processAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> dict[str, Any]:
        """Run the worker; a failure is one sentence."""
        try:
            with tempfile.TemporaryDirectory(prefix="qala-") as folder:
                self._scratch = folder
                return self.work(parameters, context, feedback, Path(folder))
        except QalaError as error:
            raise QgsProcessingException(str(error)) from None

    def work(self, parameters: Any, context: Any, feedback: Any, folder: Path) -> dict[str, Any]:
        """Do the algorithm's own part; ``folder`` vanishes afterwards."""
        raise NotImplementedError

    def run_worker(self, arguments: Sequence[str], output: Path, feedback: Any) -> Outcome:
        """Run ``qala`` with progress and cancel."""
        python, _ = console.worker_python()
        feedback.pushCommandInfo("qala " + " ".join(arguments))
        return waiting(Run(python, arguments, output=output, scratch=self._scratch), feedback)

    def loaded(self, file: Path, context: Any, outputs: dict[str, Any]) -> dict[str, Any]:
        """Name the layers of the result, and load them styled where a project is open."""
        arranged = arrange(file)
        by_name = {entry.name: entry for entry in arranged}
        for output, names in self.LAYERS.items():
            match = next(
                (e for n in names for e in arranged if e.name == n or e.name.startswith(n + "_2")),
                None,
            )
            if match is not None:
                outputs[output] = f"{file}|layername={match.name}"
        loaded = [e for e in arranged if e.shown or e.name in ("units", "rates", "urban_share")]
        for entry in reversed([e for e in loaded if by_name[e.name].geometry]):
            source = f"{file}|layername={entry.name}"
            details = QgsProcessingContext.LayerDetails(entry.title, context.project(), entry.name)
            if Qgis.QGIS_VERSION_INT >= 33200:
                details.groupName = self.TITLE
            # QGIS 3.22 else takes the table's name
            details.forceName = True
            _styled.append(_StyledLayer())
            details.setPostProcessor(_styled[-1])
            context.addLayerToLoadOnCompletion(source, details)
        return outputs


def waiting(run: Run, feedback: Any) -> Outcome:
    """Wait for a worker with Processing's feedback; cancelling kills it."""
    try:
        while run.running:
            for event in run.events(0.1):
                if event.level == "warning":
                    feedback.pushWarning(event.text)
                elif event.level == "info":
                    feedback.setProgressText(event.text)
                else:
                    feedback.pushInfo(event.text)
                if event.share is not None:
                    feedback.setProgress(100 * event.share)
            if feedback.isCanceled():
                run.cancel()
                break
    except BaseException:
        run.cancel()
        raise
    return run.outcome()


class Urbanisation(_Algorithm):
    """Degree of Urbanisation and urban shares."""

    NAME = "urbanisation"
    TITLE = "Urbanisation"
    TAGS = ("degree of urbanisation", "urban centre", "rates")
    LAYERS = {  # noqa: RUF012
        "UNITS_CLASSES": ("units",),
        "URBAN_CENTRES": ("urban_centres",),
        "CELLS": ("cells",),
        "RATES": ("rates",),
    }
    HELP = (
        "Classifies grid cells and territorial units by the Degree of Urbanisation, delineates "
        "urban centres, and computes functional urban shares beside official ones.\n"
        "Without units, cells and centres alone are made. The result is a folder with one "
        "GeoPackage (styled), class rasters and tables.\n"
        "Source: Eurostat, UN-Habitat, OECD et al. (2021), doi:10.2785/706535."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add_population()
        self.add_units(optional=True)
        self.add_grounds()
        self.add(
            QgsProcessingParameterFile(
                "OFFICIAL", "Official urban shares", optional=True, fileFilter=_TABLE
            ),
            "Table unit, [epoch], urban_share (0–1), or counts of people.",
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "PLACES", "Named places", [_KIND.TypeVectorPoint], optional=True
            ),
            "Points with a column name; urban centres are named by them.",
        )
        self.add(
            QgsProcessingParameterEnum(
                "RULESET", "Ruleset of cells", list(requests.RULESETS), defaultValue=0
            ),
            "R2023A is that of GHSL's current release.",
        )
        self.add(
            QgsProcessingParameterEnum(
                "RULES", "Level-2 rules of units", list(requests.UNIT_RULES), defaultValue=0
            ),
            "The manual's revision of 2024, or that of 2021.",
            advanced=True,
        )
        for name, words, least in (
            ("CENTRE_DENSITY", "Density of urban centres, people per km²", 0.0),
            ("CENTRE_POPULATION", "People of an urban centre", 0.0),
            ("CLUSTER_DENSITY", "Density of urban clusters, people per km²", 0.0),
            ("CLUSTER_POPULATION", "People of an urban cluster", 0.0),
        ):
            self.add(
                QgsProcessingParameterNumber(name, words, _NUMBER, optional=True, minValue=least),
                "The ruleset's own where empty.",
                advanced=True,
            )
        for name, words, text in (
            ("REPORT", "Maps and report", "Also draw maps and write the page planners read."),
            ("SENSITIVITY", "Sensitivity", "Also vary the definition and compare."),
            ("REPAIR", "Repair units", "Repair invalid or overlapping units, not refuse them."),
        ):
            self.add(QgsProcessingParameterBoolean(name, words, False), text, advanced=True)
        self.add(
            QgsProcessingParameterString("TITLE", "Name of the region", "", optional=True),
            "Shown on maps and in the report.",
            advanced=True,
        )
        self.add_language()
        self.add(
            QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the result"),
            "Holds urbanisation.gpkg, rasters, tables and provenance.json.",
        )
        self.add_results()

    def checkParameterValues(self, parameters: Any, context: Any) -> Any:
        """Refuse units without ids before anything runs."""
        if parameters.get("UNITS") and not parameters.get("ID"):
            return False, "ID is empty: choose the column of unit ids."
        return super().checkParameterValues(parameters, context)

    def work(self, parameters: Any, context: Any, feedback: Any, folder: Path) -> dict[str, Any]:
        """Write a workflow and run it."""
        output = Path(self.parameterAsString(parameters, "OUTPUT", context)).resolve()

        def raster(name: str) -> dict[int | None, list[str]]:
            path = self.raster(parameters, name, context)
            return {} if path is None else {None: [path]}

        names = ("CENTRE_DENSITY", "CENTRE_POPULATION", "CLUSTER_DENSITY", "CLUSTER_POPULATION")
        thresholds = {n.lower(): self.number(parameters, n, context) for n in names}
        units = self.features(parameters, "UNITS", context, folder)
        workflow = requests.urbanisation_workflow(
            folder / "workflow.yaml",
            population=raster("POPULATION"),
            built=raster("BUILT"),
            land=raster("LAND"),
            units=units,
            layer=None if units is None else "units",
            id=_first(self.parameterAsFields(parameters, "ID", context)),
            official=self.file(parameters, "OFFICIAL", context),
            places=self.features(parameters, "PLACES", context, folder),
            ruleset=requests.RULESETS[self.parameterAsEnum(parameters, "RULESET", context)],
            rules=requests.UNIT_RULES[self.parameterAsEnum(parameters, "RULES", context)],
            thresholds={k: v for k, v in thresholds.items() if v is not None},
            lang=self.lang(parameters, context),
            title=self.parameterAsString(parameters, "TITLE", context),
            report=self.parameterAsBool(parameters, "REPORT", context),
            sensitivity=self.parameterAsBool(parameters, "SENSITIVITY", context),
            repair=self.parameterAsBool(parameters, "REPAIR", context),
        )
        self.run_worker(["run", str(workflow), "--out", str(output)], output, feedback)
        return self.loaded(output / "urbanisation.gpkg", context, {"OUTPUT": str(output)})


class FunctionalAreas(_Algorithm):
    """Functional urban areas."""

    NAME = "functionalareas"
    TITLE = "Functional urban areas"
    TAGS = ("commuting", "zone", "FUA")
    WAYS = ("Straight distance", "Road network", "Commuter flows", "Isochrone")
    LAYERS = {"AREAS": ("areas",), "MEMBERSHIP": ("membership",)}  # noqa: RUF012
    HELP = (
        "Delineates cities and the zones that commute to them (EU-OECD), from commuter flows, or "
        "estimated by travel time on a road network or by straight distance.\n"
        "Source: Dijkstra, Poelman, Veneri (2019), The EU-OECD definition of a functional urban "
        "area, doi:10.1787/d58cb34d-en."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add_population()
        self.add_units(optional=False)
        self.add(
            QgsProcessingParameterEnum(
                "HOW", "How commuting is known", list(self.WAYS), defaultValue=0
            ),
            "Straight distance needs no data; the others need the input of their name.",
        )
        self.add(
            QgsProcessingParameterFile("NETWORK", "Road network", optional=True),
            "A file of qala network, or an OSM extract (.osm.pbf).",
        )
        self.add(
            QgsProcessingParameterFile("FLOWS", "Commuter flows", optional=True, fileFilter=_TABLE),
            "Table origin, destination, commuters.",
        )
        self.add(
            QgsProcessingParameterNumber(
                "ISOCHRONE", "Isochrone, minutes", _NUMBER, 90, minValue=1, maxValue=600
            ),
            "Only for the isochrone.",
        )
        self.add(
            QgsProcessingParameterNumber(
                "THRESHOLD", "Share of commuters", _NUMBER, 0.15, minValue=0, maxValue=1
            ),
            "A unit that sends at least this share belongs to the zone.",
        )
        for name, words, text in (
            ("EMPLOYED", "Employed residents", "Table unit, employed: the denominator."),
            ("CORES", "Given cores", "Table unit, city; found from the grid where empty."),
        ):
            self.add(
                QgsProcessingParameterFile(name, words, optional=True, fileFilter=_TABLE),
                text,
                advanced=True,
            )
        self.add_grounds()
        self.add_language()
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT", "Functional urban areas", _GPKG),
            "GeoPackage with areas, cores, zones and the table of membership.",
        )
        self.add_results()

    def checkParameterValues(self, parameters: Any, context: Any) -> Any:
        """Refuse a way without its input."""
        way = self.parameterAsEnum(parameters, "HOW", context)
        needed = {1: "NETWORK", 2: "FLOWS"}.get(way)
        if needed and not parameters.get(needed):
            return False, f"{needed} is empty: '{self.WAYS[way]}' needs it."
        return super().checkParameterValues(parameters, context)

    def work(self, parameters: Any, context: Any, feedback: Any, folder: Path) -> dict[str, Any]:
        """Run ``qala areas``."""
        output = _file_output(self.parameterAsFileOutput(parameters, "OUTPUT", context))
        way = self.parameterAsEnum(parameters, "HOW", context)
        network = None
        if way == 1:
            network = _network(self, parameters, context, feedback, folder)
        how = requests.how_of_areas(
            flows=self.file(parameters, "FLOWS", context) if way == 2 else None,
            network=network,
            distance=way == 0,
            isochrone=self.number(parameters, "ISOCHRONE", context) if way == 3 else None,
        )
        arguments = requests.options(
            population=self.raster(parameters, "POPULATION", context),
            units=self.features(parameters, "UNITS", context, folder),
            id=_first(self.parameterAsFields(parameters, "ID", context)),
            threshold=self.number(parameters, "THRESHOLD", context),
            employed=self.file(parameters, "EMPLOYED", context),
            cores=self.file(parameters, "CORES", context),
            built=self.raster(parameters, "BUILT", context),
            land=self.raster(parameters, "LAND", context),
            lang=self.lang(parameters, context),
        )
        self.run_worker(["areas", *arguments, *how, "-o", str(output)], output, feedback)
        return self.loaded(output, context, {"OUTPUT": str(output)})


class TravelTimes(_Algorithm):
    """Travel time to centres."""

    NAME = "traveltimes"
    TITLE = "Travel times"
    TAGS = ("isochrone", "network", "accessibility")
    LAYERS = {"TIMES": ("times", "nearest"), "ISOCHRONES": ("isochrones",)}  # noqa: RUF012
    HELP = (
        "Travel time from every populated cell to the nearest centre on the road network, in "
        "seconds, the way to the road included. Cells that are not reached are told.\n"
        "Roads: © OpenStreetMap contributors, ODbL 1.0."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add(
            QgsProcessingParameterFile("NETWORK", "Road network"),
            "A file of qala network, or an OSM extract (.osm.pbf).",
        )
        self.add(
            QgsProcessingParameterEnum("MODE", "Mode", list(_MODES), defaultValue=0),
            "Only where the network is made from an OSM extract.",
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "ORIGINS", "Centres",
                [_KIND.TypeVectorPoint, _KIND.TypeVectorPolygon],
            ),
            "Points, or urban centres as polygons.",
        )  # fmt: skip
        self.add_population()
        self.add(
            QgsProcessingParameterNumber(
                "MAX_MINUTES", "At most, minutes", _NUMBER, 120, minValue=1, maxValue=1440
            ),
            "Farther cells count as not reached.",
        )
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT", "Travel times", _GPKG),
            "GeoPackage of cells with seconds to the nearest centre.",
        )
        self.add_results()

    def work(self, parameters: Any, context: Any, feedback: Any, folder: Path) -> dict[str, Any]:
        """Run ``qala times``."""
        output = _file_output(self.parameterAsFileOutput(parameters, "OUTPUT", context))
        network = _network(self, parameters, context, feedback, folder)
        arguments = requests.options(
            population=self.raster(parameters, "POPULATION", context),
            max_minutes=self.number(parameters, "MAX_MINUTES", context),
        )
        origins = self.features(parameters, "ORIGINS", context, folder)
        self.run_worker(
            ["times", "--network", network, "--from", str(origins), *arguments, "-o", str(output)],
            output,
            feedback,
        )
        return self.loaded(output, context, {"OUTPUT": str(output)})


class CityLayers(_Algorithm):
    """3D layers of a city."""

    NAME = "citylayers"
    TITLE = "3D city layers"
    TAGS = ("buildings", "3D", "CityJSON", "digital twin")
    LAYERS = {  # noqa: RUF012
        "BUILDINGS": ("buildings",),
        "STREETS": ("streets",),
        "LANDUSE": ("landuse",),
    }
    HELP = (
        "Buildings with heights and roofs, streets, land use, green, water, networks and stops of "
        "a city, as GeoPackage, CityJSON, 3D Tiles and a web page that works offline.\n"
        "Data: © OpenStreetMap contributors, ODbL 1.0."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add(
            QgsProcessingParameterFile("OSM", "OpenStreetMap extract"), "A file .osm.pbf or .osm."
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "AREA", "Area", [_KIND.TypeVectorPolygon], optional=True
            ),
            "Polygons of the city; wins over the extent.",
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", "Extent", optional=True),
            "A box instead of an area; all of the extract where both are empty.",
        )
        for name, words, text in (
            ("TERRAIN", "Terrain", "Ground height, m."),
            ("HEIGHTS", "Building heights", "For instance GHS-BUILT-H, m."),
            ("POPULATION", "Population grid", "Spread over floor area, mass conserved."),
        ):
            self.add(QgsProcessingParameterRasterLayer(name, words, optional=True), text)
        self.add(
            QgsProcessingParameterFile("SINCE", "Earlier city.gpkg", optional=True),
            "Ids are kept, and what changed since is told.",
            advanced=True,
        )
        self.add_language()
        self.add(
            QgsProcessingParameterFolderDestination("OUTPUT", "Folder of the city"),
            "Holds city.gpkg, CityJSON, tiles and web page.",
        )
        self.add_results()

    def work(self, parameters: Any, context: Any, feedback: Any, folder: Path) -> dict[str, Any]:
        """Run ``qala city``."""
        output = Path(self.parameterAsString(parameters, "OUTPUT", context)).resolve()
        area = self.features(parameters, "AREA", context, folder)
        where = ["all"]
        if area is not None:
            where = ["--area", f"{area}:area"]
        elif parameters.get("EXTENT"):
            degrees = QgsCoordinateReferenceSystem("EPSG:4326")
            box = self.parameterAsExtent(parameters, "EXTENT", context, degrees)
            edges = (box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum())
            where = ["--bbox", ",".join(f"{v:.7g}" for v in edges)]
        arguments = requests.options(
            osm=self.file(parameters, "OSM", context),
            terrain=self.raster(parameters, "TERRAIN", context),
            heights=self.raster(parameters, "HEIGHTS", context),
            population=self.raster(parameters, "POPULATION", context),
            since=self.file(parameters, "SINCE", context),
            lang=self.lang(parameters, context),
        )
        self.run_worker(["city", *arguments, *where, "-o", str(output)], output, feedback)
        return self.loaded(output / "city.gpkg", context, {"OUTPUT": str(output)})


class PlanningIndicators(_Algorithm):
    """Indicators of units and functional areas."""

    NAME = "indicators"
    TITLE = "Indicators"
    TAGS = ("SDG 11", "planning", "land consumption", "public transport", "open space")
    LAYERS = {  # noqa: RUF012
        "UNITS_INDICATORS": ("indicators_units",),
        "AREAS_INDICATORS": ("indicators_areas",),
        "INDICATORS": ("indicators",),
    }
    HELP = (
        "Indicators of SDG 11 and kin for territorial units, and for functional urban areas where "
        "they are given: land consumption, people near public transport and open space, services, "
        "ways and more. What the inputs do not allow is listed as not computed, with what it "
        "needs.\n"
        "Source: UN-Habitat, metadata of SDG indicators 11.2.1, 11.3.1 and 11.7.1."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add_population()
        self.add_units(optional=False)
        self.add(
            QgsProcessingParameterFile("OSM", "OpenStreetMap extract", optional=True),
            "A file .osm.pbf or .osm: stops, open space, services and ways.",
        )
        self.add_grounds()
        year = QgsProcessingParameterNumber.Type.Integer
        self.add(
            QgsProcessingParameterNumber(
                "EPOCH", "Year of the population grid", year, optional=True, minValue=1900
            ),
            "Needed with an earlier grid.",
        )
        for name, words in (
            ("POPULATION_BEFORE", "Earlier population grid"),
            ("BUILT_BEFORE", "Earlier built-up surface"),
        ):
            self.add(
                QgsProcessingParameterRasterLayer(name, words, optional=True),
                "For land consumption and growth (SDG 11.3.1).",
            )
        self.add(
            QgsProcessingParameterNumber(
                "EPOCH_BEFORE", "Year of the earlier grids", year, optional=True, minValue=1900
            ),
            "Needed with an earlier grid.",
        )
        for name, words, text in (
            ("NETWORK", "Road network", "A file of qala network, or an OSM extract."),
            ("AREAS", "Functional urban areas", "GeoPackage of the algorithm of that name."),
            ("CITY", "3D city", "The city.gpkg of the algorithm 3D city layers."),
        ):
            self.add(QgsProcessingParameterFile(name, words, optional=True), text, advanced=True)
        self.add(
            QgsProcessingParameterFile(
                "OFFICIAL", "Official urban shares", optional=True, fileFilter=_TABLE
            ),
            "Table unit, [epoch], urban_share (0–1), or counts of people.",
            advanced=True,
        )
        for name, words, kind, text in (
            ("POINTS", "Facilities", _KIND.TypeVectorPoint,
             "Point layers; how many people have each in reach."),
            ("ZONES", "Zones of protection or risk", _KIND.TypeVectorPolygon,
             "Polygon layers; how many people live inside each."),
        ):  # fmt: skip
            self.add(
                QgsProcessingParameterMultipleLayers(name, words, kind, optional=True),
                text,
                advanced=True,
            )
        self.add_language()
        self.add(
            QgsProcessingParameterFileDestination("OUTPUT", "Indicators", _GPKG),
            "GeoPackage with the map of units and all values; the table lies beside it as CSV.",
        )
        self.add_results()

    def checkParameterValues(self, parameters: Any, context: Any) -> Any:
        """Refuse earlier grids without years."""
        earlier = parameters.get("POPULATION_BEFORE") or parameters.get("BUILT_BEFORE")
        for name in ("EPOCH", "EPOCH_BEFORE") if earlier else ():
            if not parameters.get(name):
                return False, f"{name} is empty: an earlier grid needs the years of both."
        return super().checkParameterValues(parameters, context)

    def prepareAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> bool:
        """Write the layers of points and zones while still in the thread they belong to."""
        self._folder = tempfile.TemporaryDirectory(prefix="qala-")
        self._named: dict[str, list[str]] = {}
        try:
            for kind in ("POINTS", "ZONES"):
                given = self.parameterAsLayerList(parameters, kind, context) or []
                for number, layer in enumerate(given):
                    part = Path(self._folder.name) / f"{kind.lower()}{number}"
                    part.mkdir()
                    path = layers.single_layer(layer, kind.lower(), part)
                    name = layer.name().replace("=", " ")
                    self._named.setdefault(kind.lower(), []).append(f"{name}={path}")
        except QalaError as error:
            self._folder.cleanup()
            raise QgsProcessingException(str(error)) from None
        return True

    def work(self, parameters: Any, context: Any, feedback: Any, folder: Path) -> dict[str, Any]:
        """Run ``qala indicators``."""
        output = _file_output(self.parameterAsFileOutput(parameters, "OUTPUT", context))
        years = [
            self.parameterAsInt(parameters, name, context) if parameters.get(name) else None
            for name in ("EPOCH", "EPOCH_BEFORE")
        ]

        def rasters(name: str, earlier: str | None = None) -> list[str]:
            found: dict[int | None, list[str]] = {}
            for year, each in zip(years, (name, earlier), strict=True):
                path = None if each is None else self.raster(parameters, each, context)
                if path is not None:
                    found[year] = [path]
            return requests.by_epoch(found)

        land = self.raster(parameters, "LAND", context)
        arguments = requests.options(
            population=rasters("POPULATION", "POPULATION_BEFORE"),
            built=rasters("BUILT", "BUILT_BEFORE"),
            land=land,
            units=self.features(parameters, "UNITS", context, folder),
            id=_first(self.parameterAsFields(parameters, "ID", context)),
            osm=self.file(parameters, "OSM", context),
            network=self.file(parameters, "NETWORK", context),
            areas=self.file(parameters, "AREAS", context),
            city=self.file(parameters, "CITY", context),
            official=self.file(parameters, "OFFICIAL", context),
            lang=self.lang(parameters, context),
            **self._named,
        )
        with self._folder:
            self.run_worker(["indicators", *arguments, "-o", str(output)], output, feedback)
        return self.loaded(output, context, {"OUTPUT": str(output)})


class CheckData(_Algorithm):
    """Whether data can be used."""

    NAME = "checkdata"
    TITLE = "Check data"
    TAGS = ("validate", "quality")
    HELP = (
        "Says what each file or layer is, whether it is sound, and what to do if not.\n"
        "Layers are checked as they are now, unsaved edits included."
    )

    def initAlgorithm(self, configuration: Any = None) -> None:
        """Declare the parameters."""
        self.add(
            QgsProcessingParameterMultipleLayers(
                "LAYERS", "Layers", _KIND.TypeMapLayer, optional=True
            ),
            "Rasters and vector layers of the project, or files.",
        )
        self.add(
            QgsProcessingParameterFile("FILE", "Or one file", optional=True),
            "A raster, vector layer, table, workflow or folder of results.",
        )
        self.add(
            QgsProcessingParameterBoolean("STRICT", "Fail when something is not sound", False),
            "For models and batch runs that must stop then.",
            advanced=True,
        )
        self.addOutput(QgsProcessingOutputBoolean("SOUND", "Whether all is sound"))
        self.addOutput(QgsProcessingOutputString("REPORT", "What was found"))

    def prepareAlgorithm(self, parameters: Any, context: Any, feedback: Any) -> bool:
        """Read the layers while still in the thread they belong to."""
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="qala-")
            given: list[Any] = list(self.parameterAsLayerList(parameters, "LAYERS", context) or [])
            file = self.parameterAsFile(parameters, "FILE", context)
            if file:
                given.append(file)
            self._files = console.check_files(given, Path(self._folder.name))
        except QalaError as error:
            raise QgsProcessingException(str(error)) from None
        return True

    def work(self, parameters: Any, context: Any, feedback: Any, folder: Path) -> dict[str, Any]:
        """Run ``qala check``."""
        with self._folder:
            text, sound = console.checked(self._files, lambda run: waiting(run, feedback))
        if not sound and self.parameterAsBool(parameters, "STRICT", context):
            raise InputError("not all data is sound", "sound data", "see the lines above")
        return {"SOUND": sound, "REPORT": text}


def _first(names: Sequence[str]) -> str | None:
    return names[0] if names else None


def _file_output(text: str) -> Path:
    path = Path(text).resolve()
    if path.suffix.lower() != ".gpkg":
        path = path.with_name(path.name + ".gpkg")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _network(
    algorithm: _Algorithm, parameters: Any, context: Any, feedback: Any, folder: Path
) -> str:
    """Return a network file; an OSM extract is made into one first."""
    path = algorithm.file(parameters, "NETWORK", context)
    if path is None:
        raise InputError("NETWORK is empty", "a file of qala network, or an OSM extract")
    if not path.lower().endswith((".pbf", ".osm", ".osm.gz", ".osm.bz2")):
        return path
    has_mode = algorithm.parameterDefinition("MODE") is not None
    mode = _MODES[algorithm.parameterAsEnum(parameters, "MODE", context)] if has_mode else "car"
    network = folder / "network"
    arguments = ["network", "--osm", path, "--mode", mode, "-o", str(network)]
    algorithm.run_worker(arguments, network, feedback)
    return str(network)


class QalaProvider(QgsProcessingProvider):  # type: ignore[misc]
    """qala's algorithms in the toolbox."""

    def id(self) -> str:
        """Return the prefix of the algorithms' ids."""
        return "qala"

    def name(self) -> str:
        """Return the name shown."""
        return "qala"

    def longName(self) -> str:
        """Return the long name."""
        return "qala: urbanisation and 3D cities from open data"

    def icon(self) -> Any:
        """Return the icon."""
        return QIcon(_ICON)

    def loadAlgorithms(self) -> None:
        """Add every algorithm."""
        for kind in (
            Urbanisation, FunctionalAreas, TravelTimes, CityLayers, PlanningIndicators, CheckData,
        ):  # fmt: skip
            self.addAlgorithm(kind())


class QalaPlugin:
    """What QGIS starts: the provider, and a menu where there is a window."""

    def __init__(self, iface: Any) -> None:
        self.iface = iface
        self.provider: Any = None
        self.actions: list[Any] = []

    def initProcessing(self) -> None:
        """Register the algorithms; all that ``qgis_process`` calls."""
        from qgis.core import QgsApplication

        self.provider = QalaProvider()
        QgsApplication.processingRegistry().addProvider(self.provider)

    def initGui(self) -> None:
        """Register the algorithms and the menu."""
        self.initProcessing()
        if self.iface is None:
            return
        from qgis.PyQt.QtWidgets import QAction  # type: ignore[import-not-found]

        for words, action in (
            ("Open results…", self.open_results),
            ("Set-up: is the worker there?", self.check_set_up),
            ("Set-up: choose the worker's Python…", self.choose_worker),
        ):
            entry = QAction(QIcon(_ICON), words, self.iface.mainWindow())
            entry.triggered.connect(action)
            self.iface.addPluginToMenu("qala", entry)
            self.actions.append(entry)

    def unload(self) -> None:
        """Take everything away again."""
        from qgis.core import QgsApplication

        for entry in self.actions:
            self.iface.removePluginMenu("qala", entry)
        self.actions.clear()
        if self.provider is not None:
            QgsApplication.processingRegistry().removeProvider(self.provider)
            self.provider = None

    def open_results(self, *_: Any) -> None:
        """Ask for a GeoPackage and add it, styled and grouped."""
        from qgis.PyQt.QtWidgets import QFileDialog

        window, home = self.iface.mainWindow(), QgsProject.instance().homePath()
        path, _kind = QFileDialog.getOpenFileName(window, "Results of qala", home, _GPKG)
        if path:
            try:
                console.open_results(path)
            except QalaError as error:
                self._said(str(error), Qgis.MessageLevel.Critical)

    def check_set_up(self, *_: Any) -> None:
        """Say whether the worker works."""
        try:
            python, named = console.worker_python()
            outcome = console.wait(Run(python, ["--version"]), "set-up")
            self._said(
                f"{outcome.output[0]} works: {python} (from {named})", Qgis.MessageLevel.Success
            )
        except QalaError as error:
            self._said(str(error), Qgis.MessageLevel.Critical)

    def choose_worker(self, *_: Any) -> None:
        """Ask for the Python of qala's environment and keep it if it works."""
        from qgis.core import QgsSettings
        from qgis.PyQt.QtWidgets import QFileDialog

        window = self.iface.mainWindow()
        path, _kind = QFileDialog.getOpenFileName(window, "Python of qala's environment")
        if path:
            before = QgsSettings().value("qala/python", "")
            QgsSettings().setValue("qala/python", path)
            try:
                python, _named = console.worker_python()
                outcome = console.wait(Run(python, ["--version"]), "set-up")
                self._said(f"{outcome.output[0]} works: {python}", Qgis.MessageLevel.Success)
            except QalaError as error:
                QgsSettings().setValue("qala/python", before)
                self._said(str(error), Qgis.MessageLevel.Critical)

    def _said(self, text: str, level: Any) -> None:
        self.iface.messageBar().pushMessage(
            "qala", text, level, 0 if level == Qgis.MessageLevel.Critical else 8
        )
