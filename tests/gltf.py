"""Khronos' gltf-validator through node: installed by npm where it is absent."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from qala.export import tiles3d

VIEWER = Path(tiles3d.__file__).parent / "viewer"
VALIDATE = """
const validator = require('gltf-validator'); const fs = require('fs');
(async () => {
  const found = {};
  for (const file of process.argv.slice(1)) {
    const report = await validator.validateBytes(new Uint8Array(fs.readFileSync(file)));
    const told = report.issues.messages.filter(m => m.severity <= 1);
    if (told.length) found[file] = told.slice(0, 3);
  }
  console.log(JSON.stringify(found));
})();
"""


@cache
def _environment() -> tuple[dict[str, str], str]:
    """Return the environment that finds the validator, or why there is none."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        return {}, "no node here"
    cache_folder = user_cache_path("qala-tests")
    places = [VIEWER / "node_modules", cache_folder / "node_modules"]
    path = os.pathsep.join([*map(str, places), os.environ.get("NODE_PATH", "")])
    env = {**os.environ, "NODE_PATH": path}

    def there() -> bool:
        asked = [node, "-e", "require('gltf-validator')"]
        return not subprocess.run(asked, env=env, capture_output=True, check=False).returncode

    if there():
        return env, ""
    if npm is None:
        return {}, "no gltf-validator, and no npm to install it"
    version = json.loads((VIEWER / "package.json").read_text())["devDependencies"]["gltf-validator"]
    cache_folder.mkdir(parents=True, exist_ok=True)
    asked = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(cache_folder),
             f"gltf-validator@{version}"]  # fmt: skip
    try:
        subprocess.run(asked, capture_output=True, check=False, timeout=180)
    except subprocess.TimeoutExpired:
        return {}, "npm could not fetch gltf-validator within 3 minutes"
    return (env, "") if there() else ({}, "npm could not install gltf-validator")


def gltf_faults(files: Iterable[Path]) -> dict[str, list[object]]:
    """Return errors and warnings by file; skips the test where there is no validator."""
    env, why = _environment()
    if why:
        pytest.skip(why)
    asked = ["node", "-e", VALIDATE, *sorted(map(str, files))]
    found = subprocess.run(asked, env=env, capture_output=True, text=True, check=True)
    out: dict[str, list[object]] = json.loads(found.stdout)
    return out
