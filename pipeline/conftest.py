"""Doctests of modules that import QGIS are run by tests/qgis, inside QGIS."""

collect_ignore = [
    "qala/qgis/console.py",
    "qala/qgis/layers.py",
    "qala/qgis/provider.py",
    "qala/qgis/plugin/__init__.py",
]
