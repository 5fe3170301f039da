"""Requires-Dist lines, judged as `packaging` judges them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from envdoctor.dependencies import allows, below, bounds, parse
from envdoctor.knowledge.frameworks import jax_plugins, pytorch_releases, tensorflow_pins
from tests.machines.pythons import TENSORFLOW_REQUIRES

REAL = sorted(
    {line for row in tensorflow_pins() for line in row.requires}
    | {line for row in pytorch_releases() for line in row.requires}
    | {line for row in jax_plugins() for line in row.requires}
    | {line for lines in TENSORFLOW_REQUIRES.values() for line in lines}
)
VERSIONS = (
    "0.3.9",
    "1.26.4",
    "2",
    "2.0.0",
    "3.20.3",
    "4.21.3",
    "5.0.0",
    "9.3.0.75",
    "12.9.86",
    "13.0",
    "2.1.0+cu121",
)

releases = st.lists(st.integers(0, 12), min_size=1, max_size=4).map(lambda n: ".".join(map(str, n)))
clauses = st.tuples(
    st.sampled_from(["==", "!=", ">=", "<=", ">", "<", "~="]),
    releases,
    st.sampled_from(["", "", ".*", "dev", "rc1"]),
).map("".join)


def test_the_lines_of_real_wheels_are_judged_as_packaging_judges_them() -> None:
    assert len(REAL) > 100
    for line in REAL:
        expected, found = Requirement(line), parse(line)
        assert found is not None
        assert SpecifierSet(found.specifier) == expected.specifier
        assert bool(found.marker) is bool(expected.marker)
        for version in VERSIONS:
            assert allows(found.specifier, version) is expected.specifier.contains(version, prereleases=True)


@given(st.lists(clauses, max_size=3).map(",".join), releases)
def test_any_specifier_is_judged_as_packaging_judges_it(specifier: str, version: str) -> None:
    try:
        expected = SpecifierSet(specifier).contains(version, prereleases=True)
    except InvalidSpecifier:
        assert allows(specifier, version) in {None, True, False}
    else:
        assert allows(specifier, version) is expected


@pytest.mark.parametrize("version", ["2.0.0rc1", "1.0.post1", "1!2.0", "not a version"])
def test_unusual_versions_are_left_to_packaging(version: str) -> None:
    found = allows(">=1.0,<2", version)
    assert found in {None, False} if " " in version else found is (version == "1.0.post1")


@pytest.mark.parametrize("line", ["", ";", "numpy @ https://example.org/numpy.whl", "[extra]", "a b c"])
def test_what_is_no_plain_requirement_is_none(line: str) -> None:
    assert parse(line) is None


def test_the_lowest_versions_and_what_is_below_them() -> None:
    assert bounds("<10.0,>=9.3.0.75") == ("9.3.0.75",)
    assert bounds("<2,!=1.5") == ()
    assert below("<10.0,>=9.3.0.75", "9.1.0.70")
    assert not below("<10.0,>=9.3.0.75", "9.3.0.75")
    assert below("==13.1.0.3.*", "13.0.0.19")
    assert not below("<2", "1.0")


def test_the_usual_lines_cost_no_import_of_packaging() -> None:
    code = (
        "import sys; from envdoctor.dependencies import allows, parse;"
        "d = parse('numpy<2.1.0,>=1.26.0'); allows(d.specifier, '2.0.2'); allows('<5.0.0dev,>=3', '4.25.3');"
        "sys.exit('packaging' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
