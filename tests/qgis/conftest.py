"""These scripts run inside QGIS; tests/test_qgis_*.py start them."""

collect_ignore_glob = ["*.py"]
