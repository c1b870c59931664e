#!/usr/bin/env bash
# Everything about QGIS, in QGIS itself: installs it where it is absent (Debian, Ubuntu),
# then runs the tests and keeps the screenshots in docs/images.
# Usage: tests/qgis/run.sh [PYTHON [PYTEST-OPTION…]], the Python of an environment with qala and pytest.
# QALA_QGIS_INSTALL_SECONDS bounds the installation; QALA_QGIS_ABSENT is the exit code where it fails.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${1:-.venv/bin/python}"
limit="${QALA_QGIS_INSTALL_SECONDS:-600}"

missing=()
for program in qgis qgis_process.bin xvfb-run xauth; do
  PATH=/usr/bin:/bin command -v "$program" >/dev/null || missing+=("$program")
done
/usr/bin/python3 -c 'import qgis.core' 2>/dev/null || missing+=(python3-qgis)
if [ "${#missing[@]}" -gt 0 ]; then
  echo "QGIS: missing ${missing[*]}; installing"
  sudo=$([ "$(id -u)" = 0 ] || echo sudo)
  if ! command -v apt-get >/dev/null || ! timeout "$limit" bash -c "
      $sudo apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends \
        qgis python3-qgis qgis-providers xvfb xauth" >/dev/null; then
    echo "QGIS could not be installed here within $limit s: its tests were NOT run"
    exit "${QALA_QGIS_ABSENT:-1}"
  fi
fi
QT_QPA_PLATFORM=offscreen PATH=/usr/bin:/bin qgis_process.bin --version 2>/dev/null | grep -i '^QGIS' || true
mkdir -p docs/images
QALA_QGIS_PICTURES="${QALA_QGIS_PICTURES:-$PWD/docs/images}" \
  "$python" -m pytest tests/test_qgis_setup.py tests/test_qgis_project.py tests/test_qgis_app.py "${@:2}"
