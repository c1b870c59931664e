"""qala for QGIS: start of the plugin. The rest lies in ``qgis``."""

__version__ = "@VERSION@"


def classFactory(iface):
    """Return the plugin; QGIS calls this."""
    from .qgis.provider import QalaPlugin

    return QalaPlugin(iface)
