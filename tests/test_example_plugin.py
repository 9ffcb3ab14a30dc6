"""docs/example-plugin is a real distribution: built, installed beside us, and found."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "example-plugin"

INFO = "tgate_broken-1.0.dist-info"
BROKEN = {
    "broken_plugin.py": "import a_package_that_is_not_there\n",
    f"{INFO}/METADATA": "Metadata-Version: 2.1\nName: tgate-broken\nVersion: 1.0\n",
    f"{INFO}/entry_points.txt": "[tgate_sampling]\nbroken = broken_plugin\n",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example's wheel unpacked, as pip would install it."""
    wheels = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", wheels, FOLDER], check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(code: str, *folders: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, folders))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, **environment},
    )


def add_broken(folder: Path) -> Path:
    for name, text in BROKEN.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_example_plugin_is_found_and_gates(site: Path) -> None:
    """Its policy works by name, with its own options, in a run."""
    code = (
        "import tgate_sampling as tg\n"
        "from tgate_sampling.testing import tiny_unet, unet_inputs\n"
        "unet = tiny_unet()\n"
        "with tg.gate(unet, 'second_half', share=0.25, layout='uncond_first') as gating:\n"
        "    for t in gating.steps([901, 601, 301, 1]):\n"
        "        unet(**unet_inputs(rows=2), timestep=t)\n"
        "print(gating.report.closed)\n"
    )
    done = run(code, site)
    assert done.stderr.count("Error") == 0, done.stderr
    assert done.stdout.strip() == "{'guidance': (3,), 'cross': (3,)}"


def test_a_broken_plugin_is_named_and_stops_nothing(site: Path, tmp_path: Path) -> None:
    """A plugin that does not import is a warning and a record; the others work."""
    code = (
        "import tgate_sampling as tg\n"
        "from tgate_sampling._manager import manager\n"
        "assert 'second_half' in tg.policies()\n"
        "(failure,) = manager().failures\n"
        "print(failure.name, failure.distribution, failure.version, failure.reason)\n"
        "try:\n"
        "    tg.get_policy('borken')\n"
        "except tg.TGateError as error:\n"
        "    print(error)\n"
    )
    done = run(code, site, add_broken(tmp_path))
    first, second = done.stdout.splitlines()
    assert first.startswith("broken tgate-broken 1.0 ModuleNotFoundError: No module named")
    assert "Plugin 'broken' (tgate-broken) was left out" in second
    assert "PluginLoadWarning" in done.stderr


@pytest.mark.parametrize(
    "environment", [{"TGATE_DISABLE_PLUGINS": "second_half"}, {"TGATE_PLUGIN_AUTOLOAD": "0"}]
)
def test_plugins_can_be_left_out(site: Path, environment: dict[str, str]) -> None:
    """Two environment variables keep outsiders out."""
    done = run("import tgate_sampling as tg; print(tg.policies())", site, **environment)
    assert "second_half" not in done.stdout
    assert "fixed_step" in done.stdout


def test_hook_calls_can_be_traced(site: Path) -> None:
    """TGATE_TRACE_PLUGINS=1 prints each hook call to stderr."""
    done = run(
        "import tgate_sampling as tg\n"
        "from tgate_sampling.testing import tiny_unet, unet_inputs\n"
        "unet = tiny_unet()\n"
        "with tg.gate(unet, 'never') as gating:\n"
        "    for t in gating.steps([1]):\n"
        "        unet(**unet_inputs(rows=2), timestep=t)\n",
        site,
        TGATE_TRACE_PLUGINS="1",
    )
    assert done.returncode == 0, done.stderr
    assert "tgate_run_finished" in done.stderr
