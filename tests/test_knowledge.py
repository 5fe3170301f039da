"""The compatibility tables: they load, they keep their sources, their look-ups answer known cases and the
cases beside them, and they agree with an installed TensorFlow and with the facts that they were taken from.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from envdoctor.facts.frameworks import parse_build_info
from envdoctor.knowledge.capabilities import (
    Reach,
    architecture_name,
    compute_capabilities,
    compute_capability,
    cuda_toolkit,
    cuda_toolkits,
    parse_code,
    reach,
    toolkit_compiles_for,
)
from envdoctor.knowledge.cudnn import cudnn_exists_for, cudnn_release, cudnn_releases
from envdoctor.knowledge.drivers import (
    cuda_drivers,
    driver_floor,
    driver_serving,
    dropped_by_driver,
    ptx_too_new,
    runs_by_minor_compatibility,
    served_cuda,
    takes_compat_library,
)
from envdoctor.knowledge.flags import (
    TF_XLA_FLAGS,
    XLA_FLAGS,
    Kind,
    Verdict,
    judge_flag,
    parse_flag_text,
    parse_flags,
    tf_xla_flags,
    xla_flags,
)
from envdoctor.knowledge.frameworks import (
    and_cuda_pins,
    jax_plugin,
    jax_plugins,
    jax_release,
    jax_releases,
    newest_tensorflow,
    pytorch_architectures,
    pytorch_built_for,
    pytorch_release,
    pytorch_releases,
    tensorflow_pins,
    tensorflow_release,
    tensorflow_releases,
)
from envdoctor.knowledge.issues import all_known_issues, known_issue, known_issues
from envdoctor.knowledge.loading import matches, release_key
from envdoctor.knowledge.providers import (
    conda_hint,
    install_command,
    install_hint,
    pip_hint,
    providers,
    soname_providers,
    system_manager,
)
from envdoctor.knowledge.rules import rule, rules
from envdoctor.knowledge.sonames import cuda_sonames, toolkit_soname_rows, toolkit_sonames, toolkits_with
from envdoctor.knowledge.variables import environment_variable, environment_variables, wrong_value
from envdoctor.knowledge.xla_search import (
    CudaRoot,
    cuda_roots,
    ptxas_candidates,
    ptxas_problem,
    search_rows,
)
from tests.environments import installed

KNOWLEDGE = Path(__file__).resolve().parent.parent / "envdoctor" / "knowledge"
GIVEN = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
TABLES: dict[str, tuple[Callable[[], Any], Callable[[Any], object] | None]] = {
    "compute_capabilities": (compute_capabilities, lambda r: r.capability),
    "cuda_drivers": (cuda_drivers, lambda r: r.cuda),
    "cuda_sonames": (toolkit_soname_rows, lambda r: r.cuda),
    "cuda_toolkits": (cuda_toolkits, lambda r: r.cuda),
    "cudnn_releases": (cudnn_releases, lambda r: r.cudnn),
    "environment_variables": (lambda: tuple(environment_variables().values()), lambda r: r.name),
    "jax_plugins": (jax_plugins, lambda r: (r.plugin, r.version)),
    "jax_releases": (jax_releases, lambda r: (r.jax, r.variant)),
    "known_issues": (all_known_issues, lambda r: r.id),
    "pytorch_architectures": (pytorch_architectures, lambda r: (r.torch, r.cuda)),
    "pytorch_releases": (pytorch_releases, lambda r: r.torch),
    "rules": (rules, lambda r: r.id),
    "soname_providers": (
        soname_providers,
        lambda r: (r.soname, r.manager, r.repository, r.package, r.cuda),
    ),
    "tensorflow_pins": (tensorflow_pins, lambda r: r.tensorflow),
    "tensorflow_releases": (tensorflow_releases, lambda r: r.tensorflow),
    "tf_xla_flags": (lambda: tuple(tf_xla_flags().values()), lambda r: r.name),
    "xla_flags": (lambda: tuple(xla_flags().values()), lambda r: r.name),
    "xla_search": (search_rows, lambda r: (r.path, r.since)),
}
TF_221 = ("sm_60", "sm_70", "sm_80", "sm_89", "compute_90")


def given(name: str) -> Any:
    path = GIVEN / f"{name}.json"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return json.loads(path.read_text())


# Every table


def test_every_table_on_the_disk_is_tested() -> None:
    assert sorted(TABLES) == sorted(p.stem for p in KNOWLEDGE.glob("*.json"))


@pytest.mark.parametrize("name", TABLES)
def test_a_table_loads_whole_with_sources_and_without_repeating_itself(name: str) -> None:
    load, key = TABLES[name]
    rows: Sequence[Any] = load()
    raw = json.loads((KNOWLEDGE / f"{name}.json").read_text())
    assert raw["about"]
    assert len(rows) == len(raw["rows"]) > 0
    assert all(len(row.source) > 3 for row in rows)
    assert key is not None
    keys = [key(row) for row in rows]
    assert len(set(keys)) == len(keys)
    fields = set(type(rows[0]).__struct_fields__)
    assert all(set(row) <= fields for row in raw["rows"]), "a column that nothing reads"


@pytest.mark.parametrize("path", sorted(KNOWLEDGE.glob("*.json")), ids=lambda p: p.stem)
def test_a_table_has_one_row_a_line_and_names_no_host_or_path_of_a_workplace(path: Path) -> None:
    text = path.read_text()
    assert text.isascii()
    rows = json.loads(text)["rows"]
    assert len([line for line in text.splitlines() if line.startswith("  {")]) == len(rows)
    assert not re.search(r"https?://|[.](?:org|com)\b|/(?:root|home|work|tmp)/", text)


def test_every_specifier_in_the_tables_can_be_evaluated() -> None:
    specifiers = [r.torch for r in pytorch_architectures()]
    specifiers += [r.python for r in pytorch_releases()] + [r.python for r in jax_plugins()]
    specifiers += [s for r in jax_releases() for s in (r.jax, r.cuda, r.cudnn)]
    specifiers += [r.cudnn for r in cudnn_releases()]
    specifiers += [r.versions for r in all_known_issues()]
    for specifier in specifiers:
        SpecifierSet(specifier)
    plugins: Iterable[Any] = (*tensorflow_pins(), *pytorch_releases(), *jax_plugins())
    for requirement in (q for row in plugins for q in row.requires):
        Requirement(requirement)


def test_the_quick_check_pays_for_no_table_that_it_does_not_need() -> None:
    code = (
        "import builtins, os; opened = []; real = open\n"
        "def spy(f, *a, **k): opened.append(str(f)); return real(f, *a, **k)\n"
        "builtins.open = spy\n"
        "import envdoctor.facts.frameworks, envdoctor.knowledge.flags, envdoctor.knowledge.variables\n"
        "import sys; print([f for f in opened if f.endswith('.json')], 'packaging' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_versions_are_ordered_by_number_and_a_non_version_matches_nothing() -> None:
    assert release_key("12.10") > release_key("12.9.1")
    assert release_key("2.21.0rc1") == (2, 21, 0)
    assert release_key("latest") == ()
    assert matches("2.15.1", ">=2.15,<2.18")
    assert matches("2.18.0rc1", ">=2.15,<2.19")
    assert not matches("latest", ">=2.15")


# Frameworks


def test_releases_are_found_by_their_minor_version_and_others_are_not() -> None:
    row = tensorflow_release("2.21.0")
    assert row
    assert (row.cuda, row.cudnn, row.linked) == ("12.5", "9.3", False)
    assert tensorflow_release("3.0.0") is None
    assert tensorflow_release("") is None
    assert newest_tensorflow().tensorflow == "2.21"
    assert newest_tensorflow("3.9.1").tensorflow == "2.20"
    torch = pytorch_release("2.10.0+cu128")
    assert torch
    assert torch.cudnn == "9.10.2.21"
    near = pytorch_release("2.5.0")
    assert near
    assert near.torch == "2.5.1"
    assert pytorch_release("0.4.1") is None
    assert pytorch_release("2") is None


@pytest.mark.parametrize("row", tensorflow_releases(), ids=lambda r: r.tensorflow)
def test_the_naming_rule_gives_the_sonames_of_every_release(row: Any) -> None:
    ruled = set(cuda_sonames(row.cuda, row.cudnn, row.tensorflow))
    if row.linked:  # what is linked is read from the file; the dlopen rule may name more, never another
        assert set(row.required) <= ruled
    else:
        assert set(row.required) == ruled


def test_the_naming_rule_answers_for_no_cuda_that_tensorflow_was_never_built_for() -> None:
    assert cuda_sonames("13.0", "9", "2.22") == ()
    assert cuda_sonames("12", "9", "2.21") == ()


def test_and_cuda_pins_exist_from_2_14_on() -> None:
    pins = and_cuda_pins("2.21.0")
    assert pins
    assert "nvidia-cudnn-cu12<10.0,>=9.3.0.75" in pins.requires
    assert and_cuda_pins("2.13.1") is None
    broken = and_cuda_pins("2.15.0")
    repaired = and_cuda_pins("2.15.1")
    assert broken
    assert repaired
    assert any(q.startswith("tensorrt-libs") for q in broken.requires)
    assert not any(q.startswith("tensorrt") for q in repaired.requires)


def test_architectures_of_pytorch_depend_on_release_and_cuda() -> None:
    def of(version: str, cuda: str) -> tuple[str, ...]:
        row = pytorch_built_for(version, cuda)
        return row.architectures if row else ()

    assert "12.0" in of("2.7.1+cu128", "12.8")
    assert "12.0" not in of("2.7.1+cu126", "12.6")
    assert "7.0" not in of("2.9.1", "13.0")
    assert of("1.4.0", "10.1") == ()


def test_jax_variants() -> None:
    new, old = jax_release("0.10.2", 13), jax_release("0.4.30", 12)
    assert new
    assert (new.driver, new.minimum_capability) == ("580", "7.5")
    assert old
    assert "11.8 dropped" in old.note
    assert jax_release("0.10.2", 11) is None
    assert jax_release("0.7.1", 13) is None
    plugin = jax_plugin("jax-cuda12-plugin", "0.10.2")
    assert plugin
    assert "nvidia-cudnn-cu12<10.0,>=9.8" in plugin.requires
    assert jax_plugin("jax-cuda12-plugin", "0.0.1") is None


# GPUs


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ("7.5", Reach.CUBIN),  # through sm_70
        ("6.1", Reach.CUBIN),
        ("8.6", Reach.CUBIN),
        ("9.0", Reach.CUBIN),  # compute_90 stands for a binary too
        ("10.0", Reach.PTX_JIT),
        ("11.0", Reach.PTX_JIT),
        ("12.0", Reach.PTX_JIT),
        ("5.2", Reach.TOO_OLD),
        ("3.5", Reach.TOO_OLD),
    ],
)
def test_tensorflow_2_21_on_each_generation(capability: str, expected: Reach) -> None:
    assert reach(TF_221, capability) is expected


@pytest.mark.parametrize(
    ("built_for", "capability", "expected"),
    [
        (("8.0", "9.0"), "8.9", Reach.CUBIN),
        (("8.6", "9.0"), "8.0", Reach.TOO_OLD),
        (("7.0", "8.6", "9.0"), "8.0", Reach.UNSUPPORTED),  # between: the minor is too low, and no PTX
        (("7.0", "8.6", "9.0"), "10.0", Reach.UNSUPPORTED),
        (("7.0", "9.0+PTX"), "10.0", Reach.PTX_JIT),
        (("7.0+PTX", "9.0"), "8.0", Reach.PTX_JIT),
        (("sm_80", "sm_90a"), "9.0", Reach.CUBIN),
        (("sm_80", "compute_90a"), "10.0", Reach.UNSUPPORTED),  # architecture-specific PTX goes nowhere else
        (("sm_100f",), "10.3", Reach.CUBIN),
        (("sm_100a",), "10.3", Reach.UNSUPPORTED),
        (("compute_100f",), "12.0", Reach.UNSUPPORTED),
        (("sm_103f",), "10.0", Reach.TOO_OLD),
        (("9.0a",), "9.0", Reach.CUBIN),
        (("sm_120",), "12.1", Reach.CUBIN),
        ((), "9.0", None),
        (("gfx90a",), "9.0", None),
        (("sm_80",), "", None),
        (("sm_80",), "8", None),
    ],
)
def test_builds_reach_gpus(built_for: tuple[str, ...], capability: str, expected: Reach | None) -> None:
    assert reach(built_for, capability) is expected


@pytest.mark.parametrize(
    "entry", ["", "sm_", "80", "compute_9", "sm_90x", "8.0+ptxx", "gfx906", "sm_80,sm_90"]
)
def test_an_entry_that_is_no_architecture_is_no_code(entry: str) -> None:
    assert parse_code(entry) is None


def test_every_list_of_architectures_in_the_tables_can_be_read() -> None:
    lists = [r.compute_capabilities for r in tensorflow_releases()]
    lists += [r.architectures for r in pytorch_architectures()]
    lists += [r.built_for for r in jax_releases()]
    lists += [(r.minimum, r.maximum, *r.targets) for r in cuda_toolkits()]
    assert [entry for entries in lists for entry in entries if parse_code(entry) is None] == []


def test_architectures_and_toolkits() -> None:
    assert architecture_name("8.9") == "Ada"
    assert architecture_name("99.0") == ""
    assert toolkit_compiles_for("12.5", "8.9") is True
    assert toolkit_compiles_for("12.5", "12.0") is False
    assert toolkit_compiles_for("12.9", "6.1") is True
    assert toolkit_compiles_for("13.0", "6.1") is False
    assert toolkit_compiles_for("12.8", "10.3") is False  # within the range, first compiled for by 12.9
    assert toolkit_compiles_for("7.0", "3.5") is None
    assert toolkit_compiles_for("12.5", "") is None


@pytest.mark.parametrize("row", cuda_toolkits(), ids=lambda r: r.cuda)
def test_a_toolkit_and_the_capabilities_tell_the_same(row: Any) -> None:
    for capability in compute_capabilities():
        code = "sm_" + capability.capability.replace(".", "")
        if row.targets and capability.verified:
            last = release_key(capability.last_cuda) or (99,)
            within = release_key(capability.first_cuda) <= release_key(row.cuda) <= last
            assert (code in row.targets) == within, (row.cuda, code)


# Drivers


def test_the_floor_is_that_of_the_major_from_cuda_11_on() -> None:
    floors = {c: row.floor for c in ("10.1", "11.2", "12.5.1", "12.99", "13.1") if (row := driver_floor(c))}
    assert floors == {
        "10.1": "418.39",
        "11.2": "450.80.02",
        "12.5.1": "525.60.13",
        "12.99": "525.60.13",
        "13.1": "580",
    }
    assert driver_floor("10.9") is None
    assert driver_floor("") is None
    assert driver_floor("99.0") is None


def test_which_cuda_a_driver_serves() -> None:
    served = {d: served_cuda(d) for d in ("450.80.02", "470.256.02", "535.183.01", "550.54.14", "565.57.01")}
    assert served == {
        "450.80.02": "11.0",
        "470.256.02": "11.4",
        "535.183.01": "12.2",
        "550.54.14": "12.4",
        "565.57.01": "12.6",
    }
    assert served_cuda("580.65.06") == "13.0"
    assert served_cuda("600") == "13.2"
    assert served_cuda("340.108") == ""
    assert served_cuda("") == ""
    first = driver_serving("12.5.1")
    assert first
    assert first.driver == "555.42.02"


def test_every_driver_serves_the_cuda_that_it_came_with() -> None:
    for row in cuda_drivers():
        assert release_key(served_cuda(row.driver)) >= release_key(row.cuda)[:2], row
        assert release_key(row.floor) <= release_key(row.driver), row


def test_ptx_is_not_covered_by_minor_version_compatibility() -> None:
    assert runs_by_minor_compatibility("12.5", "535.183.01")
    assert not runs_by_minor_compatibility("12.5", "555.42.06")
    assert not runs_by_minor_compatibility("12.5", "470.57.02")
    assert not runs_by_minor_compatibility("10.1", "440.33")
    assert not runs_by_minor_compatibility("99.1", "440.33")
    assert ptx_too_new("12.5.1", "12.2")
    assert not ptx_too_new("12.5.1", "12.5")
    assert not ptx_too_new("12.5.1", "13.0")
    assert not ptx_too_new("", "12.2")
    assert not rule("ptx-not-covered").verified
    with pytest.raises(KeyError):
        rule("no-such-rule")


def test_drivers_drop_old_gpus_and_compat_libraries_refuse_geforce() -> None:
    assert dropped_by_driver("6.1", "590.44.01")
    assert not dropped_by_driver("6.1", "580.95.05")
    assert not dropped_by_driver("8.9", "610.10")
    assert not dropped_by_driver("9.9", "610.10")
    assert dropped_by_driver("3.5", "525.60.13")
    assert takes_compat_library("NVIDIA GeForce RTX 4090") is False
    assert takes_compat_library("NVIDIA A100-SXM4-40GB") is None


# Libraries


def test_cudnn_releases_and_their_parts() -> None:
    nine, eight = cudnn_release("9.3.0"), cudnn_release("8.1")
    assert nine
    assert "libcudnn_graph.so.9" in nine.sublibraries
    assert nine.cuda_majors == (11, 12)
    assert eight
    assert "libcudnn_ops_infer.so.8" in eight.sublibraries
    assert cudnn_release("5.1") is None
    assert cudnn_exists_for("9.12", 11) is False
    assert cudnn_exists_for("9.10.2", 11) is True
    assert cudnn_exists_for("8.6", 12) is False
    assert cudnn_exists_for("5.1", 8) is None
    for version in ("6.0", "7.6.5", "8.0", "8.2.4", "8.3.0", "8.9.7", "9.0", "9.10.2", "9.11.0", "9.28"):
        fitting = [r for r in cudnn_releases() if matches(version, r.cudnn)]
        assert len(fitting) == 1, version
        assert fitting[0].soname == f"libcudnn.so.{version[0]}"


def test_sonames_that_two_cuda_majors_share() -> None:
    assert {v.partition(".")[0] for v in toolkits_with("libcusparse.so.12")} == {"12", "13"}
    assert {v.partition(".")[0] for v in toolkits_with("libcufft.so.11")} == {"12"}
    assert toolkits_with("libcudart.so.10.2") == ("10.2",)
    assert toolkits_with("libcudart.so.99") == ()
    newer, exact = toolkit_sonames("12.99"), toolkit_sonames("11.0.3")
    assert newer
    assert newer.sonames["cublas"] == "libcublas.so.12"
    assert exact
    assert exact.sonames["cusolver"] == "libcusolver.so.10"
    assert toolkit_sonames("11.99") is None
    assert toolkit_sonames("12") is None


def test_the_naming_rule_and_the_toolkits_agree() -> None:
    for row in toolkit_soname_rows():
        if row.cuda.startswith(("12", "11", "10")):
            ruled = set(cuda_sonames(row.cuda, "8", "2.13")) - {"libcudnn.so.8"}
            assert ruled - {"libcublasLt.so.10.0"} <= set(row.sonames.values()), row.cuda


@pytest.mark.parametrize(
    ("soname", "cuda", "package", "directory"),
    [
        ("libcusolver.so.11", "12.5", "nvidia-cusolver-cu12", "nvidia/cusolver/lib"),
        ("libcusolver.so.11", "11.8", "nvidia-cusolver-cu11", "nvidia/cusolver/lib"),
        ("libcudnn.so.9", "12", "nvidia-cudnn-cu12>=9", "nvidia/cudnn/lib"),
        ("libcudnn.so.8", "12.2", "nvidia-cudnn-cu12<9", "nvidia/cudnn/lib"),
        ("libcurand.so.10", "13.0", "nvidia-curand>=13,<14", "nvidia/cu13/lib"),
        ("libcurand.so.10", "12.4", "nvidia-curand-cu12", "nvidia/curand/lib"),
        ("libcublas.so.13", "13.0", "nvidia-cublas>=13,<14", "nvidia/cu13/lib"),
        ("ptxas", "12.5", "nvidia-cuda-nvcc-cu12", "nvidia/cuda_nvcc/bin"),
        ("libdevice.10.bc", "12", "nvidia-cuda-nvcc-cu12", "nvidia/cuda_nvcc/nvvm/libdevice"),
    ],
)
def test_wheels(soname: str, cuda: str, package: str, directory: str) -> None:
    hint = pip_hint(soname, cuda)
    assert hint
    assert (hint.package, hint.directory) == (package, directory)


@pytest.mark.parametrize(
    ("soname", "system", "cuda", "packages"),
    [
        ("libcusolver.so.11", ("ubuntu", ("debian",)), "12.5", ["libcusolver-12-5", "libcusolver11"]),
        ("libcudart.so.12", ("debian", ()), "12.4.1", ["cuda-cudart-12-4", "libcudart12"]),
        ("libcublasLt.so.12", ("rocky", ("rhel", "centos", "fedora")), "12.5", ["libcublas-12-5"]),
        ("libcudnn.so.9", ("opensuse-leap", ("suse", "opensuse")), "12.5", ["libcudnn9-cuda-12"]),
        ("libcudart.so.10.1", ("opensuse-leap", ("suse", "opensuse")), "10.1", ["cuda-cudart-10-1"]),
        ("libcufft.so.10", ("ubuntu", ("debian",)), "10.1", ["cuda-cufft-10-1"]),
        ("libcufft.so.10", ("debian", ()), "11.2", ["libcufft-11-2", "libcufft10"]),
        ("libcufft.so.10", ("fedora", ()), "11.2", ["libcufft-11-2"]),
        ("libcublas.so.12", ("fedora", ()), "12", ["libcublas-12-9"]),
        ("libnvinfer.so.7", ("ubuntu", ("debian",)), "11.2", ["libnvinfer7"]),
    ],
)
def test_packages_of_distributions(
    soname: str, system: tuple[str, tuple[str, ...]], cuda: str, packages: list[str]
) -> None:
    manager = system_manager(*system)
    assert [h.package for h in providers(soname, cuda, manager)] == packages
    hint = install_hint(soname, *system, cuda)
    assert hint
    assert hint.package == packages[0]
    assert hint.command.startswith("sudo ")


def test_no_package_is_named_for_a_cuda_that_does_not_have_the_library() -> None:
    assert install_hint("libcusolver.so.11", "fedora", (), "13.0") is None
    assert install_hint("libcudart.so.10.1", "fedora", (), "10.2") is None
    assert pip_hint("libcudart.so.10.1", "10.1") is None
    assert install_hint("libcudart.so.12", "slackware", (), "12.5") is None
    assert install_hint("libfoo.so.1", "ubuntu", (), "12.5") is None
    assert install_hint("libcublas.so.12", "", (), "12.5") is None


def test_install_commands_can_be_pasted() -> None:
    hints = [h for s in ("libcublas.so.12", "libcublasLt.so.12", "libcudnn.so.9") if (h := pip_hint(s, "12"))]
    assert install_command(hints) == "python -m pip install nvidia-cublas-cu12 'nvidia-cudnn-cu12>=9'"
    assert install_command([]) == ""
    conda = conda_hint("libcudart.so.11.0", "11.2")
    assert conda
    assert conda.command == "conda install -c conda-forge cudatoolkit=11.2"


@pytest.mark.parametrize("row", tensorflow_releases(), ids=lambda r: r.tensorflow)
def test_every_library_of_every_release_since_2_1_can_be_had_somewhere(row: Any) -> None:
    if release_key(row.tensorflow) >= (2, 1):
        for soname in row.required:
            assert install_hint(soname, "ubuntu", ("debian",), row.cuda), soname
        if release_key(row.tensorflow) >= (2, 14):
            for soname in row.required:
                assert pip_hint(soname, row.cuda), soname


# XLA


@pytest.mark.parametrize(
    ("value", "texts", "ignored"),
    [
        ("--xla_a=1 --xla_b", ["--xla_a=1", "--xla_b"], ""),
        ("  --xla_a=1\t\n--xla_b=2  ", ["--xla_a=1", "--xla_b=2"], ""),
        ("--xla_a=1,--xla_b=2", ["--xla_a=1,--xla_b=2"], ""),
        ("--xla_d='/tmp/a b' --xla_b", ["--xla_d=/tmp/a b", "--xla_b"], ""),
        (r'--xla_d="a \"b\" \\c"', ['--xla_d=a "b" \\c'], ""),
        (r"--xla_d='a \"b'", ['--xla_d=a \\"b'], ""),
        ("--xla_d='open to the end", ["--xla_d=open to the end"], ""),
        ("--xla_d=''", ["--xla_d="], ""),
        ("--xla_d='x'--xla_b", ["--xla_d=x", "--xla_b"], ""),
        ("--xla_a 1 --xla_b", ["--xla_a"], "1 --xla_b"),
        ("--xla_a='1'rest --xla_b", ["--xla_a=1"], "rest --xla_b"),
        ("-xla_a=1", ["-xla_a=1"], ""),
        ('--xla_a=b"c d"', ['--xla_a=b"c'], 'd"'),
        ("--", ["--"], ""),
    ],
)
def test_flags_are_split_as_xla_splits_them(value: str, texts: list[str], ignored: str) -> None:
    parsed = parse_flags(value)
    assert [flag.text for flag in parsed.flags] == texts
    assert (parsed.ignored, parsed.file) == (ignored, "")


@pytest.mark.parametrize("value", ["xla_a=1", "/etc/xla flags", " ", "'--xla_a=1'", '"--xla_a"', "\n x"])
def test_what_does_not_begin_with_a_dash_is_a_file_name(value: str) -> None:
    assert parse_flags(value).file == value
    assert parse_flags(value).flags == ()
    assert parse_flags("").file == ""
    assert parse_flag_text("\n--xla_a=1\n--xla_b\n").flags[1].name == "xla_b"


def judged(text: str, variable: str = XLA_FLAGS, build: str = "tensorflow 2.21.0") -> tuple[Verdict, str]:
    (flag,) = parse_flags(text).flags
    judgement = judge_flag(flag, variable, build)
    return judgement.verdict, judgement.nearest


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--xla_gpu_cuda_data_dir=/usr/local/cuda", Verdict.OK),
        ("--xla_gpu_cuda_data_dir=", Verdict.OK),
        ("--xla_gpu_cuda_data_dir", Verdict.NO_VALUE),
        ("--xla_cpu_enable_fast_math", Verdict.OK),
        ("--xla_cpu_enable_fast_math=TRUE", Verdict.OK),
        ("--xla_cpu_enable_fast_math=0", Verdict.OK),
        ("--xla_cpu_enable_fast_math=yes", Verdict.WRONG_TYPE),
        ("--xla_cpu_enable_fast_math=", Verdict.WRONG_TYPE),
        ("--xla_backend_optimization_level=2", Verdict.OK),
        ("--xla_backend_optimization_level=-1", Verdict.OK),
        ("--xla_backend_optimization_level=' +2 '", Verdict.OK),
        ("--xla_backend_optimization_level=99999999999", Verdict.WRONG_TYPE),
        ("--xla_backend_optimization_level=", Verdict.WRONG_TYPE),
        ("--xla_backend_optimization_level=2.5", Verdict.WRONG_TYPE),
        ("--xla_backend_optimization_level=0x2", Verdict.WRONG_TYPE),
        ("--xla_backend_optimization_level=2,--xla_b", Verdict.WRONG_TYPE),
        ("--xla_gpu_autotune_gemm_rtol=1e-3", Verdict.OK),
        ("--xla_gpu_autotune_gemm_rtol=small", Verdict.WRONG_TYPE),
        ("--xla_gpu_shape_checks=IGNORE", Verdict.OK),
        ("--xla_gpu_enable_command_buffer=FUSION,+cublas,-WHILE", Verdict.OK),
        ("--xla_gpu_enable_command_buffer=", Verdict.OK),
        ("--xla_gpu_enable_command_buffer=NEW_THING", Verdict.NOT_JUDGED),
        ("--xla_gpu_disable_async_collectives=", Verdict.WRONG_VALUE),
        ("--xla_gpu_enable_libnvptxcompiler", Verdict.WRONG_VALUE),
        ("--xla_gpu_enable_libnvptxcompiler=false", Verdict.OK),
    ],
)
def test_values_of_xla_flags(text: str, expected: Verdict) -> None:
    assert judged(text)[0] is expected


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("--xla_gpu_cuda_dat_dir=/usr/local/cuda", "xla_gpu_cuda_data_dir"),
        ("--xla-gpu-cuda-data-dir=/x", "xla_gpu_cuda_data_dir"),
        ("-xla_gpu_cuda_data_dir=/x", "xla_gpu_cuda_data_dir"),
        ("--XLA_GPU_CUDA_DATA_DIR=/x", "xla_gpu_cuda_data_dir"),
        ("--noxla_cpu_enable_fast_math", "xla_cpu_enable_fast_math"),
        ("--no_such_thing_at_all", ""),
        ("--", ""),
    ],
)
def test_an_unknown_flag_and_the_name_that_was_meant(text: str, nearest: str) -> None:
    assert judged(text) == (Verdict.UNKNOWN, nearest)


def test_a_wrong_enum_value_and_the_value_that_was_meant() -> None:
    assert judged("--xla_gpu_shape_checks=ignore") == (Verdict.WRONG_VALUE, "IGNORE")
    (flag,) = parse_flags("--xla_gpu_shape_checks=never").flags
    assert judge_flag(flag).expected == "one of IGNORE, RUNTIME, COMPILE_TIME"
    assert judge_flag(flag).fatal


def test_a_flag_in_the_wrong_variable() -> None:
    (wrong,) = parse_flags("--tf_xla_auto_jit=2").flags
    assert judge_flag(wrong, XLA_FLAGS).belongs_to == TF_XLA_FLAGS
    assert judge_flag(wrong, TF_XLA_FLAGS).verdict is Verdict.OK
    (wrong,) = parse_flags("--xla_gpu_cuda_data_dir=/x").flags
    assert judge_flag(wrong, TF_XLA_FLAGS).belongs_to == XLA_FLAGS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--tf_xla_auto_jit=fusible", Verdict.OK),
        ("--tf_xla_auto_jit=single-gpu(2)", Verdict.OK),
        ("--tf_xla_auto_jit=' 2 '", Verdict.OK),
        ("--tf_xla_auto_jit=Fusible", Verdict.WRONG_TYPE),
        ("--tf_xla_auto_jit=single-gpu(x)", Verdict.WRONG_TYPE),
        ("--tf_xla_auto_jit=99999999999", Verdict.WRONG_TYPE),
        ("--tf_xla_auto_jit=on", Verdict.WRONG_TYPE),
        ("--tf_xla_auto_jit", Verdict.NO_VALUE),
        ("--tf_xla_cpu_global_jit", Verdict.OK),
        ("--tf_introduce_floating_point_jitter_amount=1", Verdict.UNKNOWN),  # removed
    ],
)
def test_flags_of_tensorflows_own(text: str, expected: Verdict) -> None:
    assert judged(text, TF_XLA_FLAGS)[0] is expected
    assert tf_xla_flags()["tf_xla_cpu_global_jit"].needs == "tf_xla_auto_jit"


def test_builds_know_different_flags_and_of_others_nothing_is_certain() -> None:
    only_jax = next(r.name for r in xla_flags().values() if r.known_to == ("jaxlib 0.10.2",))
    (flag,) = parse_flags(f"--{only_jax}=1").flags
    assert judge_flag(flag, build="tensorflow 2.21.1").verdict is Verdict.UNKNOWN
    assert judge_flag(flag, build="jaxlib 0.10.2").verdict is not Verdict.UNKNOWN
    (flag,) = parse_flags("--xla_of_another_time=1").flags
    assert judge_flag(flag, build="tensorflow 2.21.0").fatal
    assert not judge_flag(flag, build="tensorflow 2.1.4").fatal
    assert not judge_flag(flag, build="jaxlib 0.11.0").certain
    (flag,) = parse_flags("--xla_gpu_enable_libnvptxcompiler").flags
    assert judge_flag(flag, build="jaxlib 0.10.2").verdict is Verdict.OK


def test_every_default_and_every_listed_value_is_taken_by_its_own_flag() -> None:
    for row in xla_flags().values():
        values = [v for v in row.values if v not in row.rejected]
        if row.default and row.kind not in {Kind.ENUM, Kind.LIST}:
            values.append(row.default)
        for value in values:
            verdict, _ = judged(f"--{row.name}='{value}'", build=row.known_to[0])
            assert verdict is Verdict.OK, (row.name, value)
        for value in row.rejected:
            verdict, _ = judged(f"--{row.name}='{value}'", build=row.known_to[0])
            assert verdict is Verdict.WRONG_VALUE, (row.name, value)


def test_roots_of_each_era() -> None:
    package = "/venv/lib/python3.11/site-packages/tensorflow"

    def paths(roots: Iterable[CudaRoot]) -> list[str]:
        return [os.path.normpath(root.path) for root in roots]

    assert paths(cuda_roots("2.1.4", package, "10.1")) == [
        "cuda_sdk_lib",
        "/usr/local/cuda-10.1",
        "/usr/local/cuda",
        ".",
    ]
    assert paths(cuda_roots("2.15.1", package, "12.2.0")) == [
        "cuda_sdk_lib",
        "/usr/local/cuda-12.2",
        "/usr/local/cuda",
        "/venv/lib/python3.11/site-packages/nvidia/cuda_nvcc",
        "/venv/lib/python3.11/nvidia/cuda_nvcc",
        ".",
    ]
    assert paths(cuda_roots("2.21.0", package, "12.5.1", "/opt/mine")) == [
        "/opt/mine",
        "/usr/local/cuda",
        "/opt/cuda",
        "/venv/lib/python3.11/site-packages/nvidia/cuda_nvcc",
        "/venv/lib/python3.11/nvidia/cuda_nvcc",
        package + "/cuda",
        "/venv",
        "/",
        ".",
    ]
    assert "/usr/local/cuda-12.5" not in paths(cuda_roots("2.18.0", package, "12.5.1"))
    tried = paths(ptxas_candidates("2.21.0", package, "12.5.1", "/usr/bin::/bin", "/opt/mine"))
    assert tried[:5] == [
        "/opt/mine/bin/ptxas",
        "/usr/bin/ptxas",
        "ptxas",
        "/bin/ptxas",
        "/usr/local/cuda/bin/ptxas",
    ]


def test_which_ptxas_xla_takes() -> None:
    assert ptxas_problem("12.5.82") == ""
    assert ptxas_problem("11.8.89") == ""
    assert "older than 11.8" in ptxas_problem("11.5.119")
    assert "12.3.103" in ptxas_problem("12.3.103")
    assert ptxas_problem("12.3.107") == ""
    assert ptxas_problem("12.5.82", "8.9") == ""
    assert "12.0" in ptxas_problem("12.5.82", "12.0")
    assert ptxas_problem("13.0.88", "12.0") == ""


# Environment variables


@pytest.mark.parametrize(
    ("name", "value", "wrong"),
    [
        ("TF_FORCE_GPU_ALLOW_GROWTH", "true", ""),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "True", "is not true or false"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "1", "is not true or false"),
        ("TF_FORCE_GPU_ALLOW_GROWTH", "", ""),
        ("TF_GPU_ALLOCATOR", "cuda_malloc_async", ""),
        ("TF_GPU_ALLOCATOR", "CUDA_MALLOC_ASYNC", "is not cuda_malloc_async, cuda_malloc or memory_guard"),
        ("TF_ENABLE_ONEDNN_OPTS", "False", ""),
        ("TF_ENABLE_ONEDNN_OPTS", "off", "is not 0, 1, true or false"),
        ("TF_NUM_INTRAOP_THREADS", "4", ""),
        ("TF_NUM_INTRAOP_THREADS", "four", "is not an integer"),
        ("TF_NUM_INTRAOP_THREADS", "-2", "is below 0"),
        ("TF_CPP_MIN_LOG_LEVEL", "ERROR", "is not an integer"),
        ("TF_CPP_VMODULE", "dso_loader=1,gpu_device=1", ""),
        (
            "TF_CPP_VMODULE",
            "dso_loader=1, gpu_device=1",
            "is not file=level, separated by commas without spaces",
        ),
        ("CUDA_VISIBLE_DEVICES", "0,1", ""),
        ("CUDA_VISIBLE_DEVICES", "-1", ""),
        ("CUDA_VISIBLE_DEVICES", "GPU-5f0a1b2c", ""),
        ("CUDA_VISIBLE_DEVICES", "MIG-GPU-5f0a1b2c/7/0", ""),
        ("CUDA_VISIBLE_DEVICES", "[0]", "has '[0]', which is no index, GPU-… or MIG-… identifier"),
        ("CUDA_VISIBLE_DEVICES", "all", "has 'all', which is no index, GPU-… or MIG-… identifier"),
        ("NVIDIA_VISIBLE_DEVICES", "all", ""),
        ("NVIDIA_VISIBLE_DEVICES", "void", ""),
        ("NVIDIA_DRIVER_CAPABILITIES", "compute,utility", ""),
        ("NVIDIA_DRIVER_CAPABILITIES", "computer", None),
        ("CUDA_DEVICE_ORDER", "PCI_BUS", "is not FASTEST_FIRST or PCI_BUS_ID"),
        ("CUDA_CACHE_MAXSIZE", "4294967296", ""),
        ("CUDA_CACHE_MAXSIZE", "4294967297", "is above 4294967296"),
        ("CUDA_CACHE_MAXSIZE", "4G", "is not an integer"),
        ("OMP_NUM_THREADS", "4", ""),
        ("OMP_NUM_THREADS", "4,2", ""),
        ("OMP_NUM_THREADS", "0", "is below 1"),
        ("OMP_NUM_THREADS", "abc", "is not an integer"),
        ("OMP_NUM_THREADS", "4,", "has '', which is no integer"),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "false", ""),
        ("XLA_PYTHON_CLIENT_PREALLOCATE", "FALSE", None),
        ("XLA_PYTHON_CLIENT_ALLOCATOR", "Platform", ""),
        ("XLA_PYTHON_CLIENT_ALLOCATOR", "none", None),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", ".75", ""),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", "75%", "is not a number"),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", "nan", "is not a number of at least 0"),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb:128,expandable_segments:True", ""),
        ("PYTORCH_CUDA_ALLOC_CONF", "max_split_size_mb=128", "is not key:value, separated by commas"),
        ("XLA_FLAGS", "--anything", ""),
        ("KMP_AFFINITY", "granularity=fine,compact,1,0", ""),
    ],
)
def test_values_of_environment_variables(name: str, value: str, wrong: str | None) -> None:
    variable = environment_variable(name)
    assert variable
    found = wrong_value(variable, value)
    assert found == wrong if wrong is not None else found


def test_every_listed_value_and_default_is_taken_by_its_own_variable() -> None:
    for variable in environment_variables().values():
        for value in (*variable.values, variable.default):
            assert wrong_value(variable, value) == "", (variable.name, value)
    assert environment_variable("NO_SUCH_VARIABLE") is None


# Known issues


def test_issues_apply_to_their_versions_only() -> None:
    def ids(package: str, version: str) -> set[str]:
        return {issue.id for issue in known_issues(package, version)}

    assert "tf221-cusolver-runpath" in ids("tensorflow", "2.21.0")
    assert "tf221-cusolver-runpath" not in ids("tensorflow", "2.21.1")
    assert "tf2161-runpath" in ids("tensorflow", "2.16.1")
    assert "tf2161-runpath" not in ids("tensorflow", "2.16.2")
    assert "tf212-213-no-pip-runpath" in ids("tensorflow", "2.13.1")
    assert "tf212-213-no-pip-runpath" not in ids("tensorflow", "2.14.0")
    assert "tf24-cusolver10" in ids("tensorflow", "2.4.4")
    assert "cudnn-nvrtc-runpath" in ids("nvidia-cudnn-cu12", "9.3.0.75")
    assert ids("tensorflow", "garbage") == set()
    assert known_issue("tf-cu13").versions == "<2.22"
    with pytest.raises(KeyError):
        known_issue("tf-none")


# The installed TensorFlow


@pytest.fixture(scope="module")
def tensorflow() -> Path:
    place = installed("light")
    if place is None:
        pytest.skip("the TensorFlow environment is not installed: python tests/environments.py light")
    return next(place.glob("lib/python3*/site-packages"))


@pytest.mark.tensorflow
def test_the_tables_agree_with_the_build_info_of_the_wheel(tensorflow: Path) -> None:
    build = parse_build_info((tensorflow / "tensorflow/python/platform/build_info.py").read_text())
    row = tensorflow_release("2.21.0")
    assert row
    assert release_key(str(build["cuda_version"]))[:2] == release_key(row.cuda)
    assert row.cudnn.split(".")[0] == str(build["cudnn_version"]).split(".")[0]
    capabilities = build["cuda_compute_capabilities"]
    assert isinstance(capabilities, list)
    assert tuple(capabilities) == row.compute_capabilities == TF_221


@pytest.mark.tensorflow
def test_the_pins_agree_with_the_metadata_of_the_wheel(tensorflow: Path) -> None:
    metadata = next(tensorflow.glob("tensorflow-*.dist-info/METADATA")).read_text()
    lines = re.findall(r"^Requires-Dist: (.*); extra == ['\"]and-cuda['\"]$", metadata, re.MULTILINE)
    pins = and_cuda_pins("2.21.0")
    assert pins
    assert {str(Requirement(line)) for line in lines} == {str(Requirement(q)) for q in pins.requires}


@pytest.mark.tensorflow
def test_the_wheel_itself_names_the_libraries_and_variables_of_the_tables(tensorflow: Path) -> None:
    strings: set[bytes] = set()
    for name in ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2"):
        with (tensorflow / "tensorflow" / name).open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            strings.update(re.findall(rb"(?:xla|XLA|TF)_[A-Za-z0-9_]+", content))
            content.close()
    theirs = [v.name for v in environment_variables().values() if v.reader in {"TensorFlow", "XLA"}]
    assert [name for name in theirs if name.encode() not in strings] == []
    ours = [r.name for r in xla_flags().values() if "tensorflow 2.21" in r.known_to]
    assert [name for name in ours if name.encode() not in strings] == []


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    "value",
    [
        "--tf_xla_auto_jit=2 word --nonsense",  # reading stops at the word
        "--tf_xla_auto_jit=fusible",
        "--tf_xla_auto_jit=on",
        "--tf_xla_min_cluster_size='4'--nonsense",
    ],
)
def test_tensorflow_itself_dies_of_the_flags_that_are_called_fatal(tensorflow: Path, value: str) -> None:
    python = tensorflow.parent.parent.parent / "bin" / "python"
    code = "import tensorflow as tf; tf.config.list_physical_devices(); print('lives')"
    environment = {"PATH": os.environ["PATH"], "TF_XLA_FLAGS": value, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    fatal = any(judge_flag(flag, TF_XLA_FLAGS).fatal for flag in parse_flags(value).flags)
    assert ("lives" in done.stdout) is not fatal, done.stderr[-2000:]


# The facts that the tables were taken from


def test_given_releases() -> None:
    for row in given("tensorflow_releases")["releases"]:
        ours = tensorflow_release(row["tf"])
        assert ours, row["tf"]
        assert set(ours.required) == set(row["required_sonames"]) - {"libcuda.so.1"}, row["tf"]
        assert (ours.cuda, ours.cudnn) == (row["cuda"], row["cudnn"]), row["tf"]
        assert list(ours.python) == row["python"], row["tf"]
        assert ours.linked == (row["link_model"] == "DT_NEEDED")


def test_given_cubins() -> None:
    for row in given("tf_cubins")["rows"]:
        ours = tensorflow_release(row["tf"])
        assert ours
        assert list(ours.compute_capabilities) == (row["compute_capabilities"] or [])
        assert ours.minimum_capability == row["min_cc"]


def test_given_drivers() -> None:
    for row in given("cuda_driver"):
        ours = driver_floor(row["cuda"])
        assert ours
        assert release_key(ours.floor) <= release_key(row["minor_compat_floor_linux"]), row["cuda"]
        exact = next(r for r in cuda_drivers() if r.cuda == row["cuda"])
        assert exact.floor == row["minor_compat_floor_linux"]
        assert exact.driver == (row["toolkit_driver_linux"] or row["driver_branch"].lstrip("R"))


def test_given_capabilities_toolkits_and_sonames() -> None:
    for row in given("compute_capability"):
        ours = compute_capability(row["cc"])
        assert ours
        assert (ours.architecture, ours.first_cuda, ours.last_cuda) == (
            row["arch"],
            row["first_cuda"],
            row["last_cuda"] or "",
        )
    for row in given("cuda_toolkit_sm"):
        toolkit = cuda_toolkit(row["cuda"])
        assert toolkit
        assert (toolkit.minimum, toolkit.maximum) == (row["min_sm"], row["max_sm"])
    for row in given("cuda_sonames"):
        if row["cuda"] != "any" and row["soname"]:
            names = toolkit_sonames(row["cuda"])
            assert names
            assert names.sonames[row["component"]] == row["soname"]


def test_given_pins_flags_and_wheels() -> None:
    for row in given("tf_and_cuda_pins"):
        pins = and_cuda_pins(row["tf"])
        assert pins
        assert row["package"] + row["specifier"] in pins.requires
    for row in given("xla_flags"):
        ours = xla_flags()[row["name"]]
        assert ("tensorflow 2.21" in ours.known_to) == row["in_tf_2_21"]
        assert ("jaxlib 0.10.2" in ours.known_to) == row["in_jaxlib_0_10_2"]
    given_tf: Mapping[str, Any] = {row["name"]: row for row in given("tf_xla_flags")}
    assert set(given_tf) == set(tf_xla_flags())
    for row in given("soname_providers"):
        if row["kind"] == "pypi" and row["soname"].startswith("lib"):
            cuda = "11" if "cu11" in row["package"] else "12"
            assert row["package"] in {h.package for h in providers(row["soname"], cuda, "pip")}
    for row in given("pytorch_pypi"):
        torch = pytorch_release(row["torch"])
        assert torch
        assert (torch.torch, torch.cuda, list(torch.requires)) == (
            row["torch"],
            row["cuda"],
            row["nvidia_requirements"],
        )
