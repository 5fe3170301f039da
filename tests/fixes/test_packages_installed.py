"""What a plan foretells of package commands is what the real pip leaves behind."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from envdoctor.diagnose import diagnose
from envdoctor.facts.gather import gather
from envdoctor.facts.model import Facts, known
from envdoctor.facts.root import Root
from envdoctor.target import Target
from tests.fixes.test_packages import repair_of, the


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A real virtual environment with a real pip."""
    place = tmp_path / "real venv"
    venv.create(place, with_pip=True)
    return place


def built(place: Path, name: str, version: str, *requires: str) -> Path:
    """A real wheel of nothing but its metadata (and an empty package)."""
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    files = {
        f"{stem}/__init__.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + "".join(f"Requires-Dist: {r}\n" for r in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},{_digest(text)},{len(text)}" for path, text in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]) + "\n"
    place.mkdir(exist_ok=True)
    with zipfile.ZipFile(place / f"{stem}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return place


def _digest(text: str) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()


def run_for_real(argv: Sequence[str], wheels: Path) -> None:
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(wheels),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        **offline,
    }
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def real_facts(place: Path) -> Facts:
    return gather(
        Target(str(place / "bin/python"), "--python", Root(), {"PATH": "/usr/bin:/bin"}), quick=True
    )


def installed(facts: Facts) -> list[tuple[str, str]]:
    return sorted((d.name, d.version) for d in known(facts.packages).distributions)


def test_after_the_proven_commands_the_real_pip_leaves_what_was_foretold(real: Path, tmp_path: Path) -> None:
    wheels = built(tmp_path / "wheels", "jaxlib", "0.4.25", "numpy>=1.22")
    for name, version in (("numpy", "2.0.2"), ("numpy", "1.26.4"), ("jax", "0.4.25")):
        built(wheels, name, version)
    pip = [str(real / "bin/python"), "-m", "pip", "install"]
    run_for_real([*pip, "jaxlib==0.4.25", "jax", "numpy==2.0.2"], wheels)
    before = real_facts(real)
    foretold = repair_of("PKG005", before).after
    for argv in the("PKG005", before).commands:
        run_for_real(argv, wheels)
    assert installed(real_facts(real)) == installed(foretold) != installed(before)
    assert "PKG005" not in diagnose(real_facts(real)).codes()


def test_two_records_of_one_name_are_both_gone_before_one_is_installed(real: Path, tmp_path: Path) -> None:
    """Seen: pip removes one with the files of both, and then takes the other for what is asked for."""
    wheels = built(built(tmp_path / "wheels", "torch", "2.9.1"), "torch", "2.5.1")
    pip = [str(real / "bin/python"), "-m", "pip", "install", "torch==2.9.1"]
    run_for_real([*pip, "--no-deps"], wheels)
    site = next(real.glob("lib/python3*/site-packages"))
    with zipfile.ZipFile(wheels / "torch-2.5.1-py3-none-any.whl") as archive:
        archive.extractall(site)
    record = site / "torch-2.5.1.dist-info"
    (record / "INSTALLER").write_text("pip\n")
    (record / "RECORD").write_text((record / "RECORD").read_text() + f"{record.name}/INSTALLER,,\n")
    before = real_facts(real)
    assert [version for name, version in installed(before) if name == "torch"] == ["2.5.1", "2.9.1"]
    for argv in the("PKG004", before).commands:
        run_for_real(argv, wheels)
    assert ("torch", "2.9.1") in installed(real_facts(real))
    assert (site / "torch" / "__init__.py").exists()
    assert "PKG004" not in diagnose(real_facts(real)).codes()
