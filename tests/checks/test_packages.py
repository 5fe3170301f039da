"""Package conditions, each on machines that have it, and environments of every kind that are in order."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import workstation
from tests.machines.machine import Machine
from tests.machines.pythons import (
    bare,
    conda,
    installed_by,
    pip_tensorflow,
    pip_torch,
    poetry_venv,
    system_python,
    uv_venv,
    wheel,
)

PACKAGE_CODES = tuple(f"PKG{n:03}" for n in range(1, 12))
CONDA_2_15 = {
    "tensorflow": "2.15.0",
    "tensorflow-base": "2.15.0",
    "numpy": "1.26.4",
    "protobuf": "4.25.3",
    "keras": "2.15.0",
}


@pytest.fixture
def box(tmp_path: Path) -> Machine:
    """A machine without a GPU: only packages can be ill."""
    return Machine(tmp_path / "m").os("ubuntu", "24.04").kernel("6.8.0").cpus(2)


def ill(machine: Machine, code: str, severity: str = "error") -> dict[str, str]:
    """The one finding that is no note, which has this code."""
    report = machine.check().report
    loud = [f for f in report["findings"] if f["severity"] != "note"]
    assert [(f["code"], f["severity"]) for f in loud] == [(code, severity)]
    found: dict[str, str] = loud[0]
    return found


def silent(machine: Machine) -> None:
    report = machine.check().report
    assert [f for f in report["findings"] if f["severity"] != "note"] == []
    judged = {c["code"]: c for c in report["checks"]}
    assert {judged[code]["status"] for code in PACKAGE_CODES} <= {"ok", "skip"}


# --- environments in order --------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["2.8.0", "2.10.1", "2.14.1", "2.15.1", "2.17.1", "2.18.1", "2.21.0"])
def test_tensorflow_with_what_pip_installs_beside_it_is_silent(box: Machine, version: str) -> None:
    silent(pip_tensorflow(box.venv(), version))


def test_a_gpu_workstation_with_the_wheels_of_the_extra_is_silent(tmp_path: Path) -> None:
    machine = pip_tensorflow(workstation(tmp_path / "m").distribution("packaging", "24.0"))
    checked = machine.check()
    assert (checked.status, checked.codes) == (0, [])


def test_conda_with_what_its_solver_chose_is_silent_though_pips_metadata_wants_others(box: Machine) -> None:
    """conda-forge builds TensorFlow 2.17 against protobuf 5, which the METADATA of PyPI's build excludes."""
    conda(box, {"tensorflow-base": "2.17.1", "numpy": "2.0.2", "protobuf": "5.28.3", "keras": "3.6.0"})
    pip_tensorflow(box, "2.17.1", protobuf="5.28.3", numpy="2.0.2")
    silent(installed_by(box, "conda", "tensorflow"))


def test_uv_poetry_and_system_environments_are_silent(tmp_path: Path) -> None:
    for number, make in enumerate((uv_venv, poetry_venv, system_python)):
        machine = Machine(tmp_path / str(number)).os("debian", "12").cpus(2)
        silent(pip_tensorflow(make(machine)))


def test_torch_and_tensorflow_with_compatible_pins_are_silent(box: Machine) -> None:
    """TensorFlow 2.21 takes ranges, and the exact pins of PyTorch 2.9 (CUDA 12.8) lie in them."""
    pip_tensorflow(box.venv())
    pip_torch(box, "2.9.1", "12.8", requires=("nvidia-cudnn-cu12==9.10.2.21", "nvidia-nccl-cu12==2.27.7"))
    wheel(box, "nvidia-cudnn-cu12", "9.10.2.21")
    silent(wheel(box, "nvidia-nccl-cu12", "2.27.7"))


def test_a_newer_copy_in_the_environment_than_in_the_system_is_what_environments_are_for(
    box: Machine,
) -> None:
    box.venv().file(
        "/opt/venv/pyvenv.cfg", "home = /usr/bin\ninclude-system-site-packages = true\nversion = 3.11.9\n"
    )
    pip_tensorflow(box)
    bare(box, "numpy", "1.24.2", site="/usr/lib/python3/dist-packages")
    box.file("/usr/lib/python3/dist-packages/tensorflow-2.14.0.dist-info/METADATA", "Name: tensorflow\n")
    silent(box)


def test_tensorflow_for_aarch64_and_the_package_that_it_requires_are_no_duplicates(box: Machine) -> None:
    pip_tensorflow(box.venv(), "2.15.1")
    box.distribution("tensorflow-cpu-aws", "2.15.1")
    marker = 'platform_system == "Linux" and platform_machine == "aarch64"'
    box.distribution("tensorflow", "2.15.1", [f"tensorflow-cpu-aws (==2.15.1) ; {marker}"])
    silent(box)


# --- PKG003, PKG008: stubs, and Pythons without a wheel ---------------------------------------------


def test_the_empty_tensorflow_gpu_without_tensorflow_is_the_stub(box: Machine) -> None:
    found = ill(box.venv().distribution("tensorflow-gpu", "2.12.0"), "PKG003")
    assert "uninstall -y tensorflow-gpu && " in found["remedy"]


def test_a_package_that_requires_tensorflow_gpu_pulls_in_the_stub(box: Machine) -> None:
    box.venv().distribution("tensorflow-serving-api-gpu", "2.14.0", ["tensorflow-gpu (<3,>=2.11)"])
    assert "tensorflow-serving-api-gpu 2.14.0 requires tensorflow-gpu" in ill(box, "PKG003")["message"]


def test_the_real_tensorflow_gpu_of_2_11_and_a_stub_beside_tensorflow_are_no_stubs(tmp_path: Path) -> None:
    real = Machine(tmp_path / "real").os("debian", "12").cpus(2).venv()
    silent(real.tensorflow("2.11.0", distribution="tensorflow-gpu", cuda="11.2", requires=()))
    beside = pip_tensorflow(Machine(tmp_path / "beside").os("debian", "12").cpus(2).venv())
    silent(beside.distribution("tensorflow-gpu", "2.12.0"))


def test_a_python_that_no_release_has_a_wheel_for_is_an_error_where_a_gpu_is_required(box: Machine) -> None:
    checked = box.venv(version="3.19.0").check("--gpu")
    found = checked.finding("PKG008")
    assert (found["severity"], found["because"]) == ("error", [])
    assert "no wheel for Python 3.19" in found["message"]
    assert checked.finding("PKG001")["message"] == "no framework is installed for this Python (3.19.0)"


def test_a_new_python_without_frameworks_and_without_need_is_a_note(tmp_path: Path) -> None:
    for number, version in enumerate(("3.19.0", "3.5.2", "3.13.1")):
        machine = Machine(tmp_path / str(number)).os("debian", "12").cpus(2).venv(version=version)
        checked = machine.check()
        assert checked.status == 0
        assert ("PKG008" in checked.codes) is (version == "3.19.0")


def test_uv_fetches_the_python_that_is_missing(box: Machine) -> None:
    found = uv_venv(box, version="3.19.0").check("--gpu").finding("PKG008")
    assert found["remedy"].startswith("uv venv --python 3.1")
    assert (
        "uv pip install --python ~/venv-tensorflow/bin/python 'tensorflow[and-cuda]==2.21.0'"
        in found["remedy"]
    )


# --- PKG004: duplicates -----------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["tensorflow-cpu", "tf-nightly", "intel-tensorflow"])
def test_two_distributions_of_tensorflow_in_one_directory_are_duplicates(box: Machine, other: str) -> None:
    pip_tensorflow(box.venv(), "2.18.1").distribution(other, "2.18.0")
    found = ill(box, "PKG004")
    assert f"{other} 2.18.0" in found["message"]
    assert f"uninstall -y {' '.join(sorted(['tensorflow', other]))} && " in found["remedy"]


def test_two_names_of_the_same_wheel_are_only_fragile(box: Machine) -> None:
    ill(pip_tensorflow(box.venv(), "2.10.1").distribution("tensorflow-gpu", "2.10.1"), "PKG004", "warning")


def test_records_of_two_versions_are_a_botched_upgrade(box: Machine) -> None:
    pip_torch(box.venv(), "2.9.1", "12.8", requires=())
    wheel(box, "torch", "2.5.1")
    assert "left two records behind" in ill(box, "PKG004", "warning")["message"]


def test_a_user_site_that_hides_a_conda_environments_tensorflow_is_named_with_its_switch(
    box: Machine,
) -> None:
    conda(box, {})
    pip_tensorflow(box, "2.18.1")
    site = "/root/.local/lib/python3.11/site-packages"
    box.file(f"{site}/tensorflow_cpu-2.14.0.dist-info/METADATA", "Name: tensorflow-cpu\nVersion: 2.14.0\n\n")
    found = ill(box, "PKG004", "warning")
    assert found["remedy"] == "export PYTHONNOUSERSITE=1"
    box.export(PYTHONNOUSERSITE="1")
    silent(box)


def test_a_pythonpath_that_hides_the_environments_torch_is_named(box: Machine) -> None:
    pip_torch(box.venv(), "2.9.1", "12.8", requires=())
    bare(box, "torch", "1.13.1", site="/srv/shared").export(PYTHONPATH="/srv/shared")
    assert ill(box, "PKG004", "warning")["remedy"] == "unset PYTHONPATH"


def test_pip_over_conda_is_named_before_the_next_update_mixes_them(box: Machine) -> None:
    pip_tensorflow(conda(box, CONDA_2_15), "2.18.1")
    found = ill(box, "PKG004", "warning")
    assert "over conda's tensorflow" in found["message"]


# --- PKG005, PKG006, PKG007: NumPy, protobuf, Keras -------------------------------------------------


@pytest.mark.parametrize("version", ["2.10.1", "2.15.1", "2.17.1"])
def test_tensorflow_compiled_for_numpy_1_fails_with_numpy_2(box: Machine, version: str) -> None:
    found = ill(pip_tensorflow(box.venv(), version, numpy="2.0.2"), "PKG005")
    assert found["remedy"] == "/opt/venv/bin/python -m pip install numpy==1.26.4"


def test_torch_2_2_with_numpy_2_works_without_numpy(box: Machine) -> None:
    bare(pip_torch(box.venv(), "2.2.2", "12.1", requires=()), "numpy", "2.0.2")
    assert "has no NumPy then" in ill(box, "PKG005", "warning")["message"]


def test_jaxlib_before_0_4_26_fails_with_numpy_2_and_the_next_does_not(tmp_path: Path) -> None:
    for version, is_ill in (("0.4.25", True), ("0.4.26", False)):
        machine = Machine(tmp_path / version).os("debian", "12").cpus(2).venv().distribution("jax", version)
        machine.distribution("jaxlib", version, ["numpy>=1.22", "ml-dtypes>=0.2.0"])
        machine.file(f"{machine.site_packages}/jax/__init__.py")
        bare(bare(machine, "numpy", "2.0.2"), "ml-dtypes", "0.4.0")
        if is_ill:
            ill(machine, "PKG005")
        else:
            silent(machine)


@pytest.mark.parametrize(("name", "version"), [("h5py", "3.10.0"), ("ml-dtypes", "0.3.2")])
def test_what_tensorflow_imports_may_be_the_one_compiled_for_numpy_1(
    box: Machine, name: str, version: str
) -> None:
    pip_tensorflow(box.venv(), without=name)
    found = ill(bare(box, name, version), "PKG005")
    assert f"{name} {version}, which TensorFlow 2.21.0 imports" in found["message"]


def test_numpy_outside_the_range_within_its_major_version_is_a_warning(box: Machine) -> None:
    found = ill(pip_tensorflow(box.venv(), "2.18.1", numpy="2.3.5"), "PKG005", "warning")
    assert "numpy <2.1.0,>=1.26.0; 2.3.5 is installed" in found["message"]


def test_the_line_for_this_python_is_the_one_that_counts(tmp_path: Path) -> None:
    """TensorFlow 2.17 asks for NumPy 1.26 from Python 3.12 on, and for 1.23.5 before."""
    for python, is_ill in (("3.12.7", True), ("3.11.9", False)):
        machine = Machine(tmp_path / python).os("debian", "12").cpus(2).venv(version=python)
        pip_tensorflow(machine, "2.17.1", numpy="1.24.4")
        if is_ill:
            ill(machine, "PKG005", "warning")
        else:
            silent(machine)


@pytest.mark.parametrize("version", ["2.8.0", "2.10.1"])
def test_protobuf_4_does_not_take_old_generated_code(box: Machine, version: str) -> None:
    pip_tensorflow(box.venv(), version, protobuf="4.21.12")
    assert "Descriptors cannot be created directly" in ill(box, "PKG006")["message"]


def test_the_slow_parser_takes_it(box: Machine) -> None:
    box.export(PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION="python")
    silent(pip_tensorflow(box.venv(), "2.8.0", protobuf="4.21.12"))


def test_protobuf_older_than_the_generated_code_is_an_error_and_a_newer_one_a_warning(tmp_path: Path) -> None:
    older = Machine(tmp_path / "older").os("debian", "12").cpus(2).venv()
    found = ill(pip_tensorflow(older, protobuf="5.29.5"), "PKG006")
    assert found["remedy"].endswith("-m pip install 'protobuf<8.0.0,>=6.31.1'")
    newer = Machine(tmp_path / "newer").os("debian", "12").cpus(2).venv()
    ill(pip_tensorflow(newer, "2.15.1", protobuf="5.29.5"), "PKG006", "warning")


def test_a_requirement_without_a_record_is_unknown_and_no_failure(box: Machine) -> None:
    checked = pip_tensorflow(box.venv(), without="protobuf").check()
    judged = next(c for c in checked.report["checks"] if c["code"] == "PKG006")
    assert (checked.status, judged["status"]) == (3, "unknown")


@pytest.mark.parametrize(
    ("version", "keras", "severity"),
    [
        ("2.14.1", "3.15.1", "error"),
        ("2.15.1", "3.15.1", "warning"),
        ("2.21.0", "2.15.0", "error"),
        ("2.21.0", "3.10.0", "warning"),
    ],
)
def test_a_keras_of_another_generation_is_as_bad_as_it_was_measured(
    box: Machine, version: str, keras: str, severity: str
) -> None:
    ill(pip_tensorflow(box.venv(), version, keras=keras), "PKG007", severity)


def test_legacy_keras_without_tf_keras_cannot_be_imported(box: Machine) -> None:
    found = ill(pip_tensorflow(box.venv()).export(TF_USE_LEGACY_KERAS="1"), "PKG007")
    assert "'tf-keras~=2.21.0'" in found["remedy"]


def test_tf_keras_of_tensorflows_number_is_silent_and_of_another_is_not(tmp_path: Path) -> None:
    for number, is_ill in (("2.21.0", False), ("2.18.0", True)):
        machine = Machine(tmp_path / number).os("debian", "12").cpus(2).venv()
        pip_tensorflow(machine).export(TF_USE_LEGACY_KERAS="True")
        minor, following = number[:4], f"2.{int(number[2:4]) + 1}"
        machine.distribution("tf_keras", number, [f"tensorflow<{following},>={minor}"])
        if is_ill:
            ill(machine, "PKG007", "warning")
        else:
            silent(machine)


def test_a_value_that_tensorflow_does_not_read_as_true_asks_for_no_legacy_keras(box: Machine) -> None:
    checked = pip_tensorflow(box.venv()).export(TF_USE_LEGACY_KERAS="yes").check()
    assert "PKG007" not in checked.codes


# --- remedies in the tool's own words ---------------------------------------------------------------


def test_each_tool_installs_in_its_own_words(tmp_path: Path) -> None:
    def remedy(number: int, machine: Machine) -> str:
        made = pip_tensorflow(machine, "2.18.1", protobuf="6.33.2")
        said = str(made.check().finding("PKG006")["remedy"])
        return said.replace("!=4.21.0,!=4.21.1,!=4.21.2,!=4.21.3,", "")

    machines = [Machine(tmp_path / str(n)).os("debian", "12").cpus(2) for n in range(5)]
    asked = "'protobuf!=4.21.4,!=4.21.5,<6.0.0dev,>=3.20.3'"
    assert (
        remedy(0, uv_venv(machines[0]))
        == f"uv pip install --python /home/ada/project/.venv/bin/python {asked}"
    )
    assert remedy(1, poetry_venv(machines[1])) == f"poetry add {asked}    # in the project's directory"
    assert remedy(2, conda(machines[2], {})) == f"/opt/conda/envs/tf/bin/python -m pip install {asked}"
    assert remedy(3, system_python(machines[3])).startswith(
        "/usr/bin/python -m venv ~/venv-gpu && ~/venv-gpu/"
    )
    assert remedy(4, machines[4].venv()) == f"/opt/venv/bin/python -m pip install {asked}"


def test_what_conda_installed_conda_replaces(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").cpus(2).driver()
    conda(machine, CONDA_2_15)
    pip_tensorflow(machine, "2.15.1", gpu=False)
    for place in machine.path(machine.site_packages).glob("tensorflow-*.dist-info"):
        place.rename(place.with_name("tensorflow-2.15.0.dist-info"))
        (place.with_name("tensorflow-2.15.0.dist-info") / "METADATA").write_text(
            "Name: tensorflow\nVersion: 2.15.0\n\n"
        )
    installed_by(machine, "conda", "tensorflow")
    remedy = machine.check().finding("PKG002")["remedy"]
    assert remedy == "conda install -y -p /opt/conda/envs/tf -c conda-forge 'tensorflow=2.15.0=cuda*'"


# --- speed ------------------------------------------------------------------------------------------


def test_no_check_takes_20_ms_on_a_machine_with_500_distributions(tmp_path: Path) -> None:
    machine = pip_tensorflow(workstation(tmp_path / "m"))
    for number in range(500):
        bare(machine, f"package-{number}", f"1.{number}")
    report = machine.check().report
    assert len(report["facts"]["packages"]["distributions"]) > 500
    assert max(c["ms"] for c in report["checks"] if c["code"] in PACKAGE_CODES) < 20
