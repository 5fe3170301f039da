"""NumPy, protobuf and Keras beside the framework: of a version that it can work with?

What is asked for is read from the framework's own METADATA; where breaks are known that no metadata of the
time could tell (NumPy 2, protobuf 4), from rules that were measured on the wheels. In conda's packages
METADATA says what PyPI's build wants, not conda's: what conda has installed together is left to conda.
"""

from __future__ import annotations

from collections.abc import Iterator

from envdoctor.catalog import Severity
from envdoctor.checks.installing import Remedy, conda_owns, install, requirement
from envdoctor.checks.machine import title
from envdoctor.dependencies import allows, asked_of, below, bounds, imported
from envdoctor.facts.model import Distribution, Facts, Packages, known
from envdoctor.finding import Evidence, Finding, SkipError, Unknown
from envdoctor.knowledge.tables import release_key

NUMPY_2 = (2,)
# The first releases whose wheels work with NumPy 2. Measured: tensorflow 2.14.1 and 2.15.1, jaxlib 0.4.25,
# h5py 3.10.0 and ml_dtypes 0.3.2 fail at import with it; torch below 2.3 warns, and then has no NumPy.
TAKES_NUMPY_2 = {
    "tensorflow": (2, 18),
    "torch": (2, 3),
    "jax": (0, 4, 26),
    "h5py": (3, 11),
    "ml-dtypes": (0, 4),
}
# The last releases of the old series, by PyPI; each has a wheel for every Python that meets it here.
LAST_NUMPY_1 = ("1.26.4",)
LAST_PROTOBUF_3 = ("3.20.3", "3.19.6")
LEGACY_KERAS = {"true", "True", "1"}  # tensorflow/python/util/lazy_loader.py compares with exactly these


def check_numpy(facts: Facts) -> Iterator[Finding | Unknown]:
    packages = known(facts.packages)
    for framework, distribution in _frameworks(facts):
        numpy = imported("numpy", facts)
        asked = asked_of("numpy", distribution, facts, known(facts.interpreter))
        if numpy is None:
            if asked:
                yield _untold("PKG005", "numpy", packages)
            continue
        if conda_owns(distribution.name, packages) and conda_owns("numpy", packages):
            continue
        two = release_key(numpy.version) >= NUMPY_2
        if two and release_key(distribution.version) < TAKES_NUMPY_2[framework]:
            breaks = "has no NumPy then" if framework == "torch" else "fails at import"
            yield _finding(
                "PKG005",
                framework,
                numpy,
                f"{_named(framework, distribution)} was compiled for NumPy 1 and {breaks}: "
                f"NumPy {numpy.version} is installed",
                (Evidence("asked for", asked or "nothing", f"METADATA of {distribution.name}"),),
                install(facts, _last_of(LAST_NUMPY_1, "numpy", "<2", asked)),
                Severity.WARNING if framework == "torch" else None,
            )
        elif asked and allows(asked, numpy.version) is False:
            yield _out_of_range("PKG005", framework, distribution, numpy, asked, facts, Severity.WARNING)
    yield from _compiled_for_numpy_1(facts)


def _compiled_for_numpy_1(facts: Facts) -> Iterator[Finding]:
    """What TensorFlow and JAX import themselves."""
    packages = known(facts.packages)
    numpy = imported("numpy", facts)
    if numpy is None or release_key(numpy.version) < NUMPY_2:
        return
    for framework, users in (("tensorflow", ("h5py", "ml-dtypes")), ("jax", ("ml-dtypes",))):
        user = next((d for f, d in _frameworks(facts) if f == framework), None)
        if user is None or release_key(user.version) < TAKES_NUMPY_2[framework]:
            continue
        for name in users:
            found = imported(name, facts)
            first = TAKES_NUMPY_2[name]
            if found is None or release_key(found.version) >= first or conda_owns(name, packages):
                continue
            asked = asked_of(name, user, facts, known(facts.interpreter))
            enough = any(release_key(bound) >= first for bound in bounds(asked))
            wanted = asked if enough else ",".join(s for s in (asked, f">={_dotted(first)}") if s)
            yield _finding(
                "PKG005",
                framework,
                numpy,
                f"{found.name} {found.version}, which {_named(framework, user)} imports, "
                f"was compiled for NumPy 1: NumPy {numpy.version} is installed",
                (Evidence(found.name, found.version, found.location),),
                install(facts, requirement(name, wanted)),
            )


def check_protobuf(facts: Facts) -> Iterator[Finding | Unknown]:
    packages = known(facts.packages)
    for framework, distribution in _frameworks(facts):
        if framework != "tensorflow":
            continue
        asked = asked_of("protobuf", distribution, facts, known(facts.interpreter))
        protobuf = imported("protobuf", facts)
        if protobuf is None:
            if asked:
                yield _untold("PKG006", "protobuf", packages)
            continue
        if conda_owns(distribution.name, packages) and conda_owns("protobuf", packages):
            continue
        # Generated code from before 3.19 fails on the parser of 4 and later, unless the slow one is chosen
        # (protobuf 4.21 release notes). TensorFlow is generated anew since 2.12.
        python = facts.environment.get("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION") == "python"
        old = release_key(distribution.version) < (2, 12) and release_key(protobuf.version) >= (4,)
        if old and not python:
            yield _finding(
                "PKG006",
                framework,
                protobuf,
                f"protobuf {protobuf.version} does not take the generated code of "
                f'{_named(framework, distribution)}: "Descriptors cannot be created directly"',
                (Evidence("asked for", asked or "any", f"METADATA of {distribution.name}"),),
                install(facts, _last_of(LAST_PROTOBUF_3, "protobuf", "<3.21", asked)),
            )
        elif asked and not old and allows(asked, protobuf.version) is False:
            # Older than the generated code: protobuf itself raises an error (measured: 2.21 with 5.29);
            # newer is not promised, and works (measured: 2.14 and 2.15 with 5 and 6).
            severity = None if below(asked, protobuf.version) else Severity.WARNING
            yield _out_of_range("PKG006", framework, distribution, protobuf, asked, facts, severity)


def check_keras(facts: Facts) -> Iterator[Finding | Unknown]:
    packages = known(facts.packages)
    for framework, distribution in _frameworks(facts):
        if framework != "tensorflow":
            continue
        if _legacy_keras(facts) and release_key(distribution.version) >= (2, 15):
            yield from _tf_keras(distribution, facts)
            continue
        asked = asked_of("keras", distribution, facts, known(facts.interpreter))
        if not asked:
            continue  # up to 2.5 Keras is a part of TensorFlow; nightly builds have keras-nightly
        keras = imported("keras", facts)
        if keras is None:
            yield _untold("PKG007", "keras", packages)
        elif conda_owns(distribution.name, packages) and conda_owns("keras", packages):
            continue
        elif allows(asked, keras.version) is False:
            yield _out_of_range(
                "PKG007", framework, distribution, keras, asked, facts, _keras_severity(distribution, keras)
            )


def _keras_severity(tensorflow: Distribution, keras: Distribution) -> Severity | None:
    """An error where tf.keras fails. Measured: 2.14 with Keras 3 (no keras.api), 2.21 with Keras 2.15. But
    2.15, whose loader knows both, works with Keras 3, and 2.21 with Keras 3.10 though it asks for 3.12.
    """
    third = release_key(keras.version)[:1] >= (3,)
    if release_key(tensorflow.version)[:2] == (2, 15):
        return Severity.WARNING
    return Severity.WARNING if third and release_key(tensorflow.version) >= (2, 16) else None


def _tf_keras(tensorflow: Distribution, facts: Facts) -> Iterator[Finding]:
    """TF_USE_LEGACY_KERAS: tf.keras is tf-keras, of TensorFlow's own number, or an ImportError."""
    found = known(facts.packages).named("tf-keras")
    minor = ".".join(tensorflow.version.split(".")[:2])
    variable = Evidence("TF_USE_LEGACY_KERAS", facts.environment["TF_USE_LEGACY_KERAS"], "env | grep KERAS")
    cure = install(facts, f"tf-keras~={minor}.0")  # 2.20 began with 2.20.1
    if not found:
        yield Finding(
            code="PKG007",
            subject="tf-keras",
            framework="tensorflow",
            message="TF_USE_LEGACY_KERAS asks for tf-keras, which is not installed: tf.keras is unusable",
            evidence=(variable, Evidence("tf-keras", "not installed", tensorflow.location)),
            remedy=cure.remarked("or: unset TF_USE_LEGACY_KERAS").text,
            commands=cure.commands,
        )
        return
    asked = asked_of("tensorflow", found[0], facts, known(facts.interpreter))
    if asked and allows(asked, tensorflow.version) is False:
        yield Finding(
            code="PKG007",
            subject="tf-keras",
            framework="tensorflow",
            severity_here=Severity.WARNING,
            message=f"tf-keras {found[0].version} is for TensorFlow {asked}, not for {tensorflow.version}",
            evidence=(variable, Evidence("tf-keras", found[0].version, found[0].location)),
            remedy=cure.text,
            commands=cure.commands,
        )


def _last_of(known_last: tuple[str, ...], name: str, below_that: str, asked: str) -> str:
    """The last release of an old series, where its own metadata lets a framework have it; else a range."""
    fitting = (version for version in known_last if not asked or allows(asked, version))
    version = next(fitting, "")
    return f"{name}=={version}" if version else f"{name}{','.join(s for s in (asked, below_that) if s)}"


def _out_of_range(
    code: str,
    framework: str,
    distribution: Distribution,
    found: Distribution,
    asked: str,
    facts: Facts,
    severity: Severity | None,
) -> Finding:
    return _finding(
        code,
        framework,
        found,
        f"{_named(framework, distribution)} asks for {found.name} {asked}; {found.version} is installed",
        (Evidence("asked for", f"{found.name} {asked}", f"METADATA of {distribution.name}"),),
        install(facts, requirement(found.name, asked)),
        severity,
    )


def _finding(
    code: str,
    framework: str,
    found: Distribution,
    message: str,
    evidence: tuple[Evidence, ...],
    cure: Remedy,
    severity: Severity | None = None,
) -> Finding:
    return Finding(
        code=code,
        subject=found.name,
        framework=framework,
        severity_here=severity,
        message=message,
        evidence=(Evidence(found.name, found.version, found.location), *evidence),
        remedy=cure.text,
        commands=cure.commands,
    )


def _untold(code: str, name: str, packages: Packages) -> Unknown:
    """No record of it, or several: a directory that a .pth file adds may have it, and is not read."""
    versions = sorted({d.version for d in packages.named(name)})
    if versions:
        return Unknown(code, f"several records of {name} in one directory: {', '.join(versions)}")
    return Unknown(code, f"{name} has no record in site-packages")


def _frameworks(facts: Facts) -> list[tuple[str, Distribution]]:
    """The distributions that the frameworks here come from; JAX's compiled part is jaxlib."""
    packages = known(facts.packages)
    found = []
    for framework in known(facts.frameworks):
        if framework.name == "tensorflow":
            here = (
                d for d in packages.named(framework.distribution) if framework.location.startswith(d.location)
            )
            tensorflow = next(here, None)
            if tensorflow is not None:
                found.append(("tensorflow", tensorflow))
    for name, distribution in (("torch", "torch"), ("jax", "jaxlib")):
        installed = imported(distribution, facts)
        if installed is not None:
            found.append((name, installed))
    if not found:
        raise SkipError("no framework is installed")
    return found


def _legacy_keras(facts: Facts) -> bool:
    return facts.environment.get("TF_USE_LEGACY_KERAS") in LEGACY_KERAS


def _named(framework: str, distribution: Distribution) -> str:
    return f"{title(framework)} {distribution.version}"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
