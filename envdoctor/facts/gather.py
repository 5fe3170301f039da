"""All facts of a target. Children start first and are collected last: reading hides behind them."""

from __future__ import annotations

from envdoctor.facts.driver import DriverProbes, ask_driver, gather_driver
from envdoctor.facts.editable import read_editable
from envdoctor.facts.frameworks import read_frameworks
from envdoctor.facts.frameworks_run import start_frameworks
from envdoctor.facts.host import gather_host
from envdoctor.facts.interfaces import read_interfaces
from envdoctor.facts.interpreter import program_of, read_interpreter
from envdoctor.facts.jupyter import library_paths, read_jupyter
from envdoctor.facts.libraries import read_libraries, writable_directories
from envdoctor.facts.model import Facts, Framework, Packages, TargetFacts, Unavailable
from envdoctor.facts.packages import read_packages
from envdoctor.facts.process import loaded_frameworks
from envdoctor.facts.surroundings import gather_surroundings
from envdoctor.facts.threads import read_threads
from envdoctor.facts.toolkits import read_installations
from envdoctor.facts.xla import read_xla
from envdoctor.target import Target

NOT_STARTED = Unavailable("a running process is examined; nothing is started for it")
DRIVER_SECONDS = 10.0
QUICK_DRIVER_SECONDS = 5.0  # a shell's start-up file waits for it


def gather(target: Target, *, quick: bool, driver_probes: DriverProbes | Unavailable | None = None) -> Facts:
    """Read everything; `quick` imports no framework, and neither does the look at a running process.

    `driver_probes` are those that the caller started before it imported this module.

    Raises:
        UsageError: the target's interpreter is none.

    """
    quick = quick or target.process is not None
    interpreter = read_interpreter(target)
    if driver_probes is None:
        driver_probes = ask_driver(target)
    packages: Packages | Unavailable
    frameworks: tuple[Framework, ...] | Unavailable
    if isinstance(interpreter, Unavailable):
        packages = frameworks = interpreter
    else:
        packages = read_packages(interpreter, target.root)
        frameworks = read_frameworks(interpreter, packages, target.root)
    installed = () if isinstance(frameworks, Unavailable) else frameworks
    process = loaded_frameworks(target.process, installed, target.root) if target.process else None
    started = (
        NOT_STARTED
        if process
        else Unavailable("--quick imports no framework")
        if quick
        else start_frameworks(target, [f.name for f in installed])
    )
    host = gather_host(target.root, process)
    program = program_of(interpreter, target.root)
    jupyter = read_jupyter(interpreter, target.environment, target.root)
    world, places, driver_libraries = read_libraries(
        target.root,
        target.environment,
        interpreter,
        program,
        installed,
        others=library_paths(jupyter, target.environment),
    )
    surroundings = gather_surroundings(
        target.root,
        host=host,
        frameworks=installed,
        packages=packages,
        world=world,
        driver_installed=bool(driver_libraries),
    )
    driver = gather_driver(
        target.root,
        target.environment,
        driver_probes,
        deadline_s=QUICK_DRIVER_SECONDS if quick else DRIVER_SECONDS,
        libraries=driver_libraries,
    )
    runs = started if isinstance(started, Unavailable) else started.finish()
    return Facts(
        target=TargetFacts(
            python=target.python,
            chosen_by=target.chosen_by,
            root=target.root.directory,
            gpu_required=target.gpu_required,
            pid=process.pid if process else None,
        ),
        host=host,
        environment=dict(target.environment),
        driver=driver,
        interpreter=interpreter,
        packages=packages,
        frameworks=frameworks,
        libraries=world,
        program=program,
        places=places,
        writable=writable_directories(target.root, world),
        editable=read_editable(target.root, interpreter, jupyter),
        xla=read_xla(target.root, target.environment, interpreter, packages, installed, run_tools=not quick),
        threads=read_threads(target.root, interpreter, packages, process),
        jupyter=jupyter,
        runs=runs,
        surroundings=surroundings,
        installations=read_installations(target.root, target.environment),
        process=process,
        interfaces=read_interfaces(target.root, target.environment, program, installed, world, places),
    )


def installed_versions(target: Target) -> dict[str, str]:
    """Distribution → version, read anew; what conda keeps besides is listed as `conda:name`."""
    interpreter = read_interpreter(target)
    if isinstance(interpreter, Unavailable):
        return {}
    packages = read_packages(interpreter, target.root)
    versions = {d.name: d.version for d in reversed(packages.distributions)}  # the first found is imported
    return {**versions, **{f"conda:{c.name}": c.version for c in packages.conda}}
