"""XLA: flags, libdevice, ptxas. The flags' behaviour is that of the real TensorFlow 2.21, tried with it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from envdoctor.facts.model import Framework
from envdoctor.facts.model_xla import Ptxas, Xla
from envdoctor.facts.root import Root
from envdoctor.facts.unavailable import Unavailable
from envdoctor.facts.xla import read_xla
from tests import environments
from tests.conftest import needs_overlay, workstation
from tests.machines.drivers import RTX_4090, RTX_5090
from tests.machines.machine import Checked, Machine
from tests.machines.overlay import check_inside

NVCC = "/opt/venv/lib/python3.11/site-packages/nvidia/cuda_nvcc"


def desk(root: Path) -> Machine:
    """TensorFlow 2.21 on a machine without a GPU."""
    return Machine(root).os("debian", "12").cpus(4).venv().tensorflow().nvidia_wheels()


def without_compiler(machine: Machine) -> Machine:
    """The wheel nvidia-cuda-nvcc lost what XLA takes from it."""
    for file in ("bin/ptxas", "nvvm/libdevice/libdevice.10.bc"):
        machine.path(f"{NVCC}/{file}").unlink()
    machine.path(f"{NVCC}/nvvm/libdevice").rmdir()
    return machine


def old(root: Path, version: str, cuda: str) -> Machine:
    machine = Machine(root).os("opensuse-leap", "15.1", like="suse").driver("440.33.01", supports="10.2")
    return machine.venv(version="3.7.6").tensorflow(version, cuda=cuda, cudnn="7", runpath="")


def said(checked: Checked, code: str) -> list[tuple[str, str]]:
    return [(f["subject"], f["severity"]) for f in checked.report["findings"] if f["code"] == code]


def status(checked: Checked, code: str) -> str:
    return next(str(c["status"]) for c in checked.report["checks"] if c["code"] == code)


# --- flags ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "subject", "repaired"),
    [
        (
            "--xla_gpu_cuda_dat_dir=/usr/local/cuda",
            "--xla_gpu_cuda_dat_dir",
            "--xla_gpu_cuda_data_dir=/usr/local/cuda",
        ),
        ("-xla_gpu_autotune_level=2", "-xla_gpu_autotune_level", "--xla_gpu_autotune_level=2"),
        ("--xla-gpu-autotune-level=2", "--xla-gpu-autotune-level", "--xla_gpu_autotune_level=2"),
        ("--XLA_GPU_AUTOTUNE_LEVEL=2", "--XLA_GPU_AUTOTUNE_LEVEL", "--xla_gpu_autotune_level=2"),
        ("--xla_gpu_autotune_level 2", "--xla_gpu_autotune_level", "--xla_gpu_autotune_level=2"),
        ("--xla_gpu_autotune_level", "--xla_gpu_autotune_level", ""),
        ("--xla_dump_to=/tmp/x --xla_nonsense_zz", "--xla_nonsense_zz", "--xla_dump_to=/tmp/x"),
    ],
)
def test_a_flag_that_tensorflow_2_21_does_not_know_is_named_with_the_right_spelling(
    machine: Machine, value: str, subject: str, repaired: str
) -> None:
    checked = machine.export(XLA_FLAGS=value).check()
    assert (checked.status, checked.codes) == (1, ["XLA004"])
    assert said(checked, "XLA004") == [(subject, "error")]
    remedy = checked.finding("XLA004")["remedy"]
    assert remedy.replace("'", "") == (f"export XLA_FLAGS={repaired}" if repaired else "unset XLA_FLAGS")
    if repaired:
        assert machine.export(XLA_FLAGS=repaired).check("--select", "XLA004,XLA005").codes == []


def test_xla_ends_the_process_on_a_machine_without_a_gpu_too(tmp_path: Path) -> None:
    machine = desk(tmp_path / "m").export(XLA_FLAGS="--xla_gpu_cuda_dat_dir=/usr/local/cuda")
    checked = machine.check()
    assert checked.codes == ["XLA004", "GPU001"]
    message = checked.finding("XLA004")["message"]
    assert "--xla_gpu_cuda_data_dir" in message
    assert "TensorFlow 2.21.0" in message


def test_flags_that_nobody_reads_are_not_judged(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("debian", "12").venv().export(XLA_FLAGS="--nonsense")
    checked = machine.check()
    assert status(checked, "XLA004") == status(checked, "XLA005") == "skip"
    assert "XLA004" not in checked.codes


def test_a_tensorflow_flag_in_xla_flags_is_sent_to_its_own_variable(machine: Machine) -> None:
    checked = machine.export(XLA_FLAGS="--tf_xla_auto_jit=2").check()
    assert checked.codes == ["XLA004"]
    assert "belongs in TF_XLA_FLAGS" in checked.finding("XLA004")["message"]
    assert "export TF_XLA_FLAGS=--tf_xla_auto_jit=2" in checked.finding("XLA004")["remedy"]


@pytest.mark.parametrize(
    ("flag", "severity"),
    [
        ("--xla_gpu_autotune_leve=2", "warning"),
        ("-xla_dump_to=/tmp", "warning"),
        ("--xla_zz_top=1", "note"),
        ("--xla_gpu_max_kernel_unroll_factor=4", "note"),
    ],
)
def test_flags_of_a_release_that_was_not_measured_are_doubted_with_care(
    tmp_path: Path, flag: str, severity: str
) -> None:
    machine = workstation(tmp_path / "m").tensorflow("2.20.0").export(XLA_FLAGS=flag)
    machine.path(f"{machine.site_packages}/tensorflow-2.21.0.dist-info/METADATA").unlink()
    machine.path(f"{machine.site_packages}/tensorflow-2.21.0.dist-info/INSTALLER").unlink()
    machine.path(f"{machine.site_packages}/tensorflow-2.21.0.dist-info").rmdir()
    checked = machine.check("--select", "XLA004")
    assert said(checked, "XLA004") == [(flag.partition("=")[0], severity)]
    assert "may differ" in checked.finding("XLA004")["message"]


def test_a_file_of_flags_is_read_as_xla_reads_it(machine: Machine) -> None:
    machine.file("/etc/xla.flags", "--xla_dump_to=/tmp/x\n--xla_gpu_autotune_levle=2\n")
    checked = machine.export(XLA_FLAGS="/etc/xla.flags").check()
    assert said(checked, "XLA004") == [("--xla_gpu_autotune_levle", "error")]
    assert "--xla_gpu_autotune_level=2" in checked.finding("XLA004")["remedy"]
    machine.file("/etc/xla.flags", "--xla_dump_to=/tmp/x\n--xla_gpu_autotune_level=2\n")
    assert machine.check().codes == []


def test_a_relative_file_of_flags_below_a_root_is_unknown(machine: Machine) -> None:
    checked = machine.export(XLA_FLAGS="xla.flags").check()
    assert status(checked, "XLA004") == status(checked, "XLA005") == "unknown"
    assert checked.codes == []


@pytest.mark.parametrize(
    ("value", "repaired"),
    [
        ("--xla_gpu_enable_triton_gemm=yes", "--xla_gpu_enable_triton_gemm=true"),
        ("--xla_gpu_autotune_level=high", ""),
        ("--xla_gpu_autotune_level=2,--xla_dump_to=/tmp/x", ""),
        ("--xla_gpu_shape_checks=RUNTIM", "--xla_gpu_shape_checks=RUNTIME"),
        ("--xla_gpu_autotune_level=0x2", ""),
    ],
)
def test_a_value_of_the_wrong_type_ends_the_process(machine: Machine, value: str, repaired: str) -> None:
    checked = machine.export(XLA_FLAGS=value).check()
    assert (checked.status, checked.codes) == (1, ["XLA005"])
    expected = f"export XLA_FLAGS={repaired}" if repaired else "unset XLA_FLAGS"
    assert checked.finding("XLA005")["remedy"] == expected


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        ("/etc/no-such-file", "unset XLA_FLAGS"),
        ("'--xla_dump_to=/tmp/x'", "export XLA_FLAGS=--xla_dump_to=/tmp/x"),
        ('"--xla_dump_to=/tmp/x"', "export XLA_FLAGS=--xla_dump_to=/tmp/x"),
    ],
)
@needs_overlay
def test_what_does_not_begin_with_a_dash_is_a_files_name(machine: Machine, value: str, remedy: str) -> None:
    checked = check_inside(machine.export(XLA_FLAGS=value), "--quick")
    assert checked.codes == ["XLA005"]
    assert checked.finding("XLA005")["remedy"] == remedy


@needs_overlay
def test_forgotten_dashes_make_a_flag_a_files_name(machine: Machine) -> None:
    checked = check_inside(machine.export(XLA_FLAGS="xla_dump_to=/tmp/x"), "--quick")
    assert "--xla_dump_to=/tmp/x is meant" in checked.finding("XLA005")["message"]


def test_what_follows_a_word_without_a_dash_is_lost(machine: Machine) -> None:
    checked = machine.export(XLA_FLAGS="--xla_dump_to=/tmp/x and --xla_gpu_autotune_level=2").check()
    assert said(checked, "XLA005") == [("XLA_FLAGS", "warning")]
    assert (
        checked.finding("XLA005")["remedy"]
        == "export XLA_FLAGS='--xla_dump_to=/tmp/x --xla_gpu_autotune_level=2'"
    )


@pytest.mark.parametrize(
    "value",
    [
        "",
        "--xla_gpu_autotune_level=2 --xla_dump_to=/tmp/x",
        " --xla_gpu_enable_triton_gemm\n--xla_gpu_enable_triton_gemm=FALSE ",
        "--xla_dump_to='/tmp/a b'",
        "--xla_gpu_shape_checks=RUNTIME",
    ],
)
def test_flags_as_xla_takes_them_are_silent(machine: Machine, value: str) -> None:
    checked = machine.export(XLA_FLAGS=value).check()
    assert (checked.status, checked.codes) == (0, [])


@pytest.mark.parametrize(
    ("value", "subject"),
    [
        ("--tf_xla_auto_jitt=2", "--tf_xla_auto_jitt"),
        ("--xla_gpu_autotune_level=2", "--xla_gpu_autotune_level"),
        ("--tf_xla_auto_jit=on", "--tf_xla_auto_jit"),
        ("--tf_xla_cpu_global_jit=yes --tf_xla_auto_jit=2", "--tf_xla_cpu_global_jit"),
        ("/etc/no-such-file", "TF_XLA_FLAGS"),
    ],
)
def test_tensorflow_ends_over_its_own_flags_when_it_lists_devices(
    machine: Machine, value: str, subject: str
) -> None:
    checked = machine.export(TF_XLA_FLAGS=value).check()
    assert (checked.status, checked.codes) == (1, ["XLA007"])
    assert said(checked, "XLA007") == [(subject, "error")]
    verdict = checked.report["verdicts"][0]
    assert (verdict["gpu"], verdict["cause"]) == ("unusable", "XLA007")


def test_cpu_jit_without_auto_jit_is_a_warning(machine: Machine) -> None:
    checked = machine.export(TF_XLA_FLAGS="--tf_xla_cpu_global_jit").check()
    assert said(checked, "XLA007") == [("--tf_xla_cpu_global_jit", "warning")]
    assert checked.report["verdicts"][0]["gpu"] == "usable"


@pytest.mark.parametrize(
    "value",
    [
        "--tf_xla_auto_jit=2",
        "--tf_xla_cpu_global_jit --tf_xla_auto_jit=2",
        "--tf_xla_auto_jit=fusible",
        "--tf_xla_cpu_global_jit=false",
    ],
)
def test_tensorflow_flags_as_they_should_be_are_silent(machine: Machine, value: str) -> None:
    assert machine.export(TF_XLA_FLAGS=value).check().codes == []


@pytest.mark.parametrize(
    "value",
    [
        "-",
        "--",
        "=",
        "'",
        '"',
        "--xla_dump_to='",
        "\udcff",
        "--\udcff=\udcff",
        "- a " * 20000,
        "--x=" + "9" * 5000,
    ],
)
def test_garbage_in_the_variables_costs_neither_the_report_nor_the_time(machine: Machine, value: str) -> None:
    checked = machine.export(XLA_FLAGS=value, TF_XLA_FLAGS=value).check("--select", XLA)
    assert checked.status in {1, 3}  # 4 would be a check's defect
    assert sum(c["ms"] for c in checked.report["checks"]) < 1000


# --- libdevice --------------------------------------------------------------------------------------


def test_a_wheel_without_its_files_leaves_xla_without_libdevice_and_ptxas(machine: Machine) -> None:
    checked = without_compiler(machine).check()
    assert sorted(checked.causes) == ["XLA001", "XLA002"]
    remedy = checked.finding("XLA001")["remedy"]
    assert remedy.endswith("install --force-reinstall --no-deps nvidia-cuda-nvcc-cu12==12.9.86")


def test_a_toolkit_that_nothing_links_to_is_named_for_the_data_directory(machine: Machine) -> None:
    without_compiler(machine).compiler("/usr/local/cuda-11.8", "11.8.89")
    machine.compiler("/usr/local/cuda-12.5", "12.5.82").export(XLA_FLAGS="--xla_dump_to=/tmp/x")
    checked = machine.check()
    remedy = "export XLA_FLAGS='--xla_dump_to=/tmp/x --xla_gpu_cuda_data_dir=/usr/local/cuda-12.5'"
    assert [checked.finding(code)["remedy"] for code in ("XLA001", "XLA002")] == [remedy, remedy]
    machine.export(XLA_FLAGS="--xla_gpu_cuda_data_dir=/usr/local/cuda-12.5")
    assert machine.check().codes == []


def test_usr_local_cuda_serves_where_the_wheel_is_missing(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m").compiler("/usr/local/cuda-12.5", "12.5.82")
    without_compiler(machine).link("/usr/local/cuda", "cuda-12.5")
    assert machine.check().codes == []


def test_the_first_directory_wins_though_the_file_is_not_in_it(machine: Machine) -> None:
    machine.path("/usr/local/cuda/nvvm/libdevice").mkdir(parents=True)
    checked = machine.check()
    assert checked.causes == ["XLA001"]
    assert "takes /usr/local/cuda/nvvm/libdevice" in checked.finding("XLA001")["message"]
    assert NVCC in checked.finding("XLA001")["message"]


def test_without_a_gpu_nobody_misses_libdevice(tmp_path: Path) -> None:
    assert without_compiler(desk(tmp_path / "m")).check().codes == ["GPU001"]


def test_missing_cuda_explains_missing_libdevice(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "m").os("ubuntu", "24.04").driver().venv().tensorflow()
    checked = machine.check()
    assert {"XLA001", "XLA002"} <= set(checked.codes)
    assert not {"XLA001", "XLA002"} & set(checked.causes)


def test_up_to_2_10_xla_runs_only_when_asked_for(tmp_path: Path) -> None:
    machine = old(tmp_path / "m", "2.10.1", "11.2")
    assert said(machine.check("--select", "XLA001"), "XLA001") == [("libdevice.10.bc", "note")]
    machine.export(TF_XLA_FLAGS="--tf_xla_auto_jit=2")
    assert said(machine.check("--select", "XLA001"), "XLA001") == [("libdevice.10.bc", "error")]


def test_tensorflow_2_13_does_not_look_into_the_wheel(tmp_path: Path) -> None:
    machine = old(tmp_path / "m", "2.13.1", "11.8").nvidia_wheel("cuda_nvcc")
    checked = machine.check("--select", "XLA001")
    site = machine.site_packages
    assert (
        checked.finding("XLA001")["remedy"]
        == f"export XLA_FLAGS=--xla_gpu_cuda_data_dir={site}/nvidia/cuda_nvcc"
    )


# --- the data directory -----------------------------------------------------------------------------


@pytest.mark.parametrize("directory", ["/usr/local/cuda-12.4", "/opt/nothing here"])
def test_a_data_directory_that_is_not_there_explains_missing_libdevice(
    machine: Machine, directory: str
) -> None:
    without_compiler(machine).export(XLA_FLAGS=f"--xla_gpu_cuda_data_dir='{directory}'")
    checked = machine.check()
    assert checked.causes == ["XLA006"]
    assert sorted(checked.codes) == ["XLA001", "XLA002", "XLA006"]
    assert f"{directory} is not a directory" in checked.finding("XLA006")["message"]


def test_a_data_directory_that_is_not_there_is_a_warning_where_the_wheel_serves(machine: Machine) -> None:
    checked = machine.export(XLA_FLAGS="--xla_gpu_cuda_data_dir=/usr/local/cuda-11.2").check()
    assert said(checked, "XLA006") == [("--xla_gpu_cuda_data_dir", "warning")]
    assert checked.codes == ["XLA006"]
    assert checked.finding("XLA006")["remedy"] == "unset XLA_FLAGS"


@pytest.mark.parametrize("below", ["bin", "nvvm/libdevice", "lib64"])
def test_a_directory_inside_the_toolkit_is_led_back_to_its_root(machine: Machine, below: str) -> None:
    without_compiler(machine).compiler("/sw/cuda/12.5", "12.5.82").path("/sw/cuda/12.5/lib64").mkdir()
    checked = machine.export(XLA_FLAGS=f"--xla_gpu_cuda_data_dir=/sw/cuda/12.5/{below}").check()
    assert checked.causes == ["XLA006"]
    assert checked.finding("XLA006")["remedy"] == "export XLA_FLAGS=--xla_gpu_cuda_data_dir=/sw/cuda/12.5"


def test_a_toolkit_as_data_directory_is_silent(machine: Machine) -> None:
    machine.compiler("/opt/nvidia/hpc/cuda", "12.6.20")
    assert machine.export(XLA_FLAGS="--xla_gpu_cuda_data_dir=/opt/nvidia/hpc/cuda/").check().codes == []


# --- ptxas ------------------------------------------------------------------------------------------


def test_a_ptxas_that_lost_its_mode_cannot_be_run(machine: Machine) -> None:
    machine.path(f"{NVCC}/bin/ptxas").chmod(0o644)
    checked = machine.check()
    assert said(checked, "XLA002") == [("ptxas", "warning")]
    assert checked.finding("XLA002")["remedy"].startswith(f"chmod +x {NVCC}/bin/ptxas")
    assert checked.status == 0


def test_the_ptxas_of_the_path_serves(machine: Machine) -> None:
    machine.path(f"{NVCC}/bin/ptxas").unlink()
    machine.compiler("/sw/cuda", "12.5.82").export(PATH="/sw/cuda/bin:/usr/bin")
    assert machine.check().codes == []


def test_tensorflow_2_1_asks_for_ptxas_below_bin_and_not_on_the_path(tmp_path: Path) -> None:
    machine = old(tmp_path / "m", "2.1.0", "10.1").compiler("/usr/local/cuda-10.2")
    machine.file("/usr/local/cuda-10.2/version.txt", "CUDA Version 10.2.89\n")
    machine.export(PATH="/usr/local/cuda-10.2/bin:/usr/bin")
    finding = machine.check("--select", "XLA002").finding("XLA002")
    assert finding["remedy"] == "export XLA_FLAGS=--xla_gpu_cuda_data_dir=/usr/local/cuda-10.2"
    machine.export(XLA_FLAGS="--xla_gpu_cuda_data_dir=/usr/local/cuda-10.2")
    assert machine.check("--select", "XLA001,XLA002,XLA003,XLA004,XLA005,XLA006").codes == []


def test_2_21_passes_over_a_ptxas_that_it_refuses(machine: Machine) -> None:
    machine.compiler("/usr/local/cuda-11.2", "11.2.152").export(PATH="/usr/local/cuda-11.2/bin:/usr/bin")
    assert machine.check().codes == []


@pytest.mark.parametrize("version", ["11.2.152", "12.3.103"])
def test_a_refused_ptxas_and_no_other(machine: Machine, version: str) -> None:
    without_compiler(machine).compiler("/usr/local/cuda", version)
    checked = machine.check()
    assert checked.causes == ["XLA003"]
    assert version in checked.finding("XLA003")["message"]


def test_a_release_that_takes_the_first_ptxas_takes_the_old_one_of_the_path(tmp_path: Path) -> None:
    machine = old(tmp_path / "m", "2.15.1", "12.2").nvidia_wheel("cuda_nvcc", "12.2.140")
    machine.compiler("/usr/local/cuda-10.2", "10.2.89").export(PATH="/usr/local/cuda-10.2/bin:/usr/bin")
    checked = machine.check("--select", "XLA003")
    assert said(checked, "XLA003") == [("ptxas", "warning")]
    assert "nvidia/cuda_nvcc/bin" in checked.finding("XLA003")["remedy"]
    machine.export(PATH="/usr/bin")
    assert machine.check("--select", "XLA003").codes == []


@needs_overlay
def test_a_ptxas_that_does_not_know_the_gpu(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", version="580.95.05", supports="13.0", gpus=(RTX_5090,))
    machine.hide("/usr/local/cuda").compiler("/sw/cuda-12.4", "12.4.131")
    machine.export(PATH="/sw/cuda-12.4/bin:/usr/bin:/bin")
    checked = check_inside(machine, "--quick", "--select", "XLA003")
    assert said(checked, "XLA003") == [("ptxas", "error")]
    assert "12.0" in checked.finding("XLA003")["message"]
    assert checked.finding("XLA003")["remedy"] == f'export PATH={NVCC}/bin:"$PATH"'
    machine.export(PATH="/usr/bin:/bin")
    assert check_inside(machine, "--quick", "--select", "XLA003").codes == []


@needs_overlay
def test_a_ptxas_that_knows_one_gpu_of_two_is_a_warning(tmp_path: Path) -> None:
    machine = workstation(tmp_path / "m", version="580.95.05", supports="13.0", gpus=(RTX_4090, RTX_5090))
    machine.hide("/usr/local/cuda").compiler("/sw/cuda-12.4", "12.4.131")
    machine.export(PATH="/sw/cuda-12.4/bin:/usr/bin:/bin")
    assert said(check_inside(machine, "--quick", "--select", "XLA003"), "XLA003") == [("ptxas", "warning")]


def test_a_ptxas_whose_version_no_file_tells_is_unknown_below_a_root(machine: Machine) -> None:
    machine.compiler("/sw/cuda").export(PATH="/sw/cuda/bin:/usr/bin")
    checked = machine.check()
    assert (status(checked, "XLA003"), checked.codes) == ("unknown", [])


def with_jax(machine: Machine, jaxlib: str = "0.10.2") -> Machine:
    """JAX with its CUDA 12 plugin."""
    site = machine.site_packages
    for name in ("jax", "jaxlib", "jax-cuda12-plugin", "jax-cuda12-pjrt"):
        machine.distribution(name, jaxlib)
    machine.file(f"{site}/jax/__init__.py").file(f"{site}/jax_cuda12_plugin/__init__.py")
    return machine.library(f"{site}/jax_plugins/xla_cuda12/xla_cuda_plugin.so")


XLA = "XLA001,XLA002,XLA003,XLA004,XLA005,XLA006,XLA007"


def test_a_flag_of_jaxs_ends_tensorflow_and_not_jax(machine: Machine) -> None:
    with_jax(machine).export(XLA_FLAGS="--xla_cpu_scheduler_type=x")
    found = machine.check("--select", XLA).report["findings"]
    assert [(f["code"], f["framework"]) for f in found] == [("XLA004", "tensorflow")]


def test_jax_without_libdevice(tmp_path: Path) -> None:
    machine = with_jax(Machine(tmp_path / "m").os("ubuntu", "24.04").driver().venv())
    checked = machine.check("--select", XLA)
    assert said(checked, "XLA001") == [("libdevice.10.bc", "error")]
    assert "jax[cuda12]==0.10.2" in checked.finding("XLA001")["remedy"]
    machine.nvidia_wheel("cuda_nvcc")
    assert machine.check("--select", XLA).codes == []


def test_conda_forges_tensorflow_looks_into_its_prefix(tmp_path: Path) -> None:
    machine = old(tmp_path / "m", "2.18.0", "12.6")
    assert machine.check("--select", "XLA001").codes == ["XLA001"]
    machine.compiler(machine.prefix)
    assert "XLA001" in machine.check("--select", "XLA001").codes  # pip's TensorFlow does not
    machine.file(f"{machine.site_packages}/tensorflow-2.18.0.dist-info/INSTALLER", "conda\n")
    assert machine.check("--select", "XLA001").codes == []


# --- the facts themselves ---------------------------------------------------------------------------


def facts(tool: Path, *, run_tools: bool) -> Xla:
    missing = Unavailable("not read")
    framework = Framework(
        name="tensorflow",
        distribution="tensorflow",
        version="2.21.0",
        location="/nonexistent/lib/python3.11/site-packages/tensorflow",
        cuda_build=True,
        cuda_version="12.5.1",
        cudnn_version="9",
        compute_capabilities=(),
        opener="",
        requirements=(),
        source="",
    )
    return read_xla(Root(), {"PATH": str(tool.parent)}, missing, missing, (framework,), run_tools=run_tools)


@pytest.mark.parametrize(
    ("script", "version"),
    [
        ("echo 'Cuda compilation tools, release 12.4, V12.4.131'", "12.4.131"),
        ("echo broken >&2; exit 3", "exit status 3: broken"),
        ("kill -SEGV $$", "SIGSEGV"),
    ],
)
def test_a_ptxas_that_no_file_describes_is_asked_in_a_child(
    tmp_path: Path, script: str, version: str
) -> None:
    tool = tmp_path / "ptxas"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    (found,) = facts(tool, run_tools=True).searches[0].on_path
    assert isinstance(found, Ptxas)
    said_version = found.version if isinstance(found.version, str) else found.version.reason
    assert said_version.endswith(version)
    (asleep,) = facts(tool, run_tools=False).searches[0].on_path
    assert isinstance(asleep.version, Unavailable)


def test_a_fifo_of_flags_does_not_hold_the_check_up(machine: Machine) -> None:
    os.mkfifo(machine.path("/etc/flags"))
    checked = machine.export(XLA_FLAGS="/etc/flags").check()
    assert status(checked, "XLA004") == "unknown"


def test_garbage_where_versions_stand_is_no_version(machine: Machine) -> None:
    machine.compiler("/usr/local/cuda").export(PATH="/usr/local/cuda/bin:/usr/bin")
    machine.file("/usr/local/cuda/version.json", b'{"cuda": [1, 2], \xff').file(
        "/usr/local/cuda/version.txt", b"\x00\xff CUDA Version x"
    )
    machine.file("/usr/share/doc/nvidia-cuda-toolkit/changelog.Debian.gz", b"\x1f\x8bgarbage")
    assert status(machine.check(), "XLA003") == "unknown"


def test_toolkits_are_found_where_xla_does_not_look(machine: Machine) -> None:
    machine.compiler("/usr/local/cuda-11.8", "11.8.89").compiler("/opt/cuda-12.6", "12.6.20")
    found = machine.check().report["facts"]["xla"]["toolkits"]
    assert [(t["path"], t["ptxas"]["version"]) for t in found] == [
        (NVCC, "12.9.86"),
        ("/usr/local/cuda-11.8", "11.8.89"),
        ("/opt/cuda-12.6", "12.6.20"),
    ]


# --- the real TensorFlow ----------------------------------------------------------------------------

ENVIRONMENT = environments.installed("light")
SAYS = {
    "--xla_gpu_cuda_dat_dir=/x": "Unknown flag in XLA_FLAGS",
    "--xla_gpu_enable_triton_gemm=yes": "Couldn't interpret value",
    "xla_dump_to=/x": "Could not open file",
    "--xla_dump_to=/tmp/x and more": "",
}
PROGRAM = """
import sys, tensorflow as tf
print("imported", flush=True)
print(len(tf.config.list_physical_devices("CPU")), "listed", flush=True)
if sys.argv[1] == "XLA_FLAGS":
    tf.function(lambda x: x + 1, jit_compile=True)(tf.ones([2]))
print("compiled", flush=True)
"""


@pytest.mark.tensorflow
@pytest.mark.skipif(ENVIRONMENT is None, reason="needs the real TensorFlow (tests/environments.py light)")
@pytest.mark.parametrize(
    ("variable", "value", "reached", "message"),
    [
        *(("XLA_FLAGS", value, "listed", message) for value, message in SAYS.items()),
        ("TF_XLA_FLAGS", "--tf_xla_auto_jitt=2", "imported", "Unknown flag in TF_XLA_FLAGS"),
        ("TF_XLA_FLAGS", "--tf_xla_cpu_global_jit", "compiled", ""),
    ],
)
def test_the_real_tensorflow_ends_where_the_messages_say(
    variable: str, value: str, reached: str, message: str
) -> None:
    assert ENVIRONMENT is not None
    done = subprocess.run(
        [str(ENVIRONMENT / "bin" / "python"), "-B", "-c", PROGRAM, variable],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", variable: value},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode != 0) == bool(message)
    assert message in done.stderr
    assert done.stdout.split()[-1] == (reached if message else "compiled")
