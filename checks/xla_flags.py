"""XLA_FLAGS and TF_XLA_FLAGS: what would XLA end the process over?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from envdoctor.catalog import Severity
from envdoctor.checks.machine import title
from envdoctor.facts.model import Facts, Framework, known
from envdoctor.facts.model_xla import FlagFile
from envdoctor.finding import Evidence, Finding, SkipError, Unknown
from envdoctor.shell import quoted

if TYPE_CHECKING:
    from envdoctor.knowledge.flags import Flag, Judgement, ParsedFlags

XLA_FLAGS, TF_XLA_FLAGS = "XLA_FLAGS", "TF_XLA_FLAGS"
MOST = 100  # flags; and 80 bytes for each of them. Nobody sets more, and each may take 3 ms to look up
SLIP = 2  # letters: more, and it may be a flag that another release has
DIES = {
    XLA_FLAGS: "XLA ends the process over it, at the first use of XLA",
    TF_XLA_FLAGS: "TensorFlow ends the process over it as soon as it lists its devices",
}
_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "t": "true", "no": "false", "off": "false"} | {
    "n": "false",
    "f": "false",
}


def check_xla_flags(facts: Facts) -> Iterator[Finding | Unknown]:
    """XLA004 and XLA005."""
    for framework, build in _builds(facts, XLA_FLAGS):
        yield from _judge(facts, framework, build, XLA_FLAGS, unknown="XLA004", invalid="XLA005")


def check_tf_xla_flags(facts: Facts) -> Iterator[Finding | Unknown]:
    """XLA007."""
    for framework, build in _builds(facts, TF_XLA_FLAGS):
        yield from _judge(facts, framework, build, TF_XLA_FLAGS, unknown="XLA007", invalid="XLA007")


def _builds(facts: Facts, variable: str) -> list[tuple[Framework, str]]:
    """The installed frameworks that read a variable, and the name under which their flags are known."""
    if not facts.environment.get(variable):
        raise SkipError(f"{variable} is not set")
    found = []
    for framework in known(facts.frameworks):
        if framework.name == "tensorflow":
            found.append((framework, f"tensorflow {framework.version}"))
        elif framework.name == "jax" and variable == XLA_FLAGS:
            jaxlib = known(facts.packages).named("jaxlib")
            found.append((framework, f"jaxlib {jaxlib[0].version}" if jaxlib else "jaxlib"))
    if not found:
        raise SkipError(f"no framework that reads {variable} is installed")
    return found


def _judge(
    facts: Facts, framework: Framework, build: str, variable: str, *, unknown: str, invalid: str
) -> Iterator[Finding | Unknown]:
    from envdoctor.knowledge.flags import (  # noqa: PLC0415  costs 5 ms, and is needed where one is set
        Verdict,
        parse_flag_text,
    )

    value = facts.environment[variable]
    source, place = f'printf "[%s]\\n" "${variable}"', variable
    if variable in facts.xla.flag_files:
        file = facts.xla.flag_files[variable]
        if not isinstance(file, FlagFile):
            yield from (Unknown(code, file.reason) for code in sorted({unknown, invalid}))
            return
        if file.missing:
            yield _no_file(framework, variable, file, invalid)
            return
        value, source, place = file.text, f"cat {quoted(file.path)}", file.path
    if len(value) > MOST * 80 or value.count("-") > MOST * 4:
        yield from (Unknown(code, f"{place} holds more than {MOST} flags") for code in {unknown, invalid})
        return
    parsed = parse_flag_text(value)
    corrected = _corrected(parsed, variable, build)
    corrected = _corrected(parse_flag_text(corrected), variable, build)  # a value that moved may be wrong too
    remedy = (
        f"in {quoted(place)} write: {corrected or 'nothing'}"
        if place != variable
        else f"export {variable}={quoted(corrected)}"
        if corrected
        else f"unset {variable}"
    )
    for flag in parsed.flags:
        judgement = _judged(flag, variable, build)
        missing_value = judgement.verdict is Verdict.NO_VALUE
        if judgement.verdict in {Verdict.OK, Verdict.NOT_JUDGED}:
            if judgement.row and judgement.row.needs:
                yield from _without_effect(framework, flag, judgement.row.needs, parsed, source)
            continue
        no_flag = judgement.verdict is Verdict.UNKNOWN or missing_value
        moved = judgement.belongs_to
        yield Finding(
            code=unknown if no_flag else invalid,
            subject=flag.text.partition("=")[0],
            framework=framework.name,
            severity_here=_severity(flag, judgement),
            message=_message(framework, flag, judgement, variable, parsed),
            evidence=(
                Evidence(variable, facts.environment[variable], source),
                Evidence("read as", flag.text, source),
                Evidence("flags known of", build if judgement.certain else "TensorFlow 2.21, jaxlib 0.10.2"),
            ),
            remedy=f"{remedy}{', and' if place != variable else ' &&'} export {moved}={quoted(flag.text)}"
            if moved
            else remedy,
        )
    if parsed.ignored and not _takes_next_word(parsed, variable, build):
        word = parsed.ignored.split()[0]
        yield Finding(
            code=invalid,
            subject=variable,
            framework=framework.name,
            severity_here=Severity.WARNING,
            message=f"XLA reads {place} only up to {word!r}, which does not begin with a dash; "
            "what stands from there on is ignored without a message",
            evidence=(
                Evidence(variable, facts.environment[variable], source),
                Evidence("ignored", parsed.ignored),
            ),
            remedy=remedy,
        )


@cache
def _judged(flag: Flag, variable: str, build: str) -> Judgement:
    """Asked for several times, and the search for the nearest of 300 names takes milliseconds."""
    from envdoctor.knowledge.flags import judge_flag  # noqa: PLC0415

    return judge_flag(flag, variable, build)


def _severity(flag: Flag, judgement: Judgement) -> Severity:
    """An error where this very build was measured; of others a note, but for what none can have meant."""
    from envdoctor.knowledge.flags import Verdict  # noqa: PLC0415

    if judgement.certain:
        return Severity.ERROR
    if judgement.verdict is Verdict.UNKNOWN:
        sure = _misspelt(flag) or bool(judgement.belongs_to) or _slip_of(flag.name, judgement.nearest)
    else:
        sure = judgement.verdict is Verdict.WRONG_TYPE
    return Severity.WARNING if sure else Severity.NOTE


def _misspelt(flag: Flag) -> bool:
    """No flag of any release is written so: one dash, or capitals or dashes in the name."""
    return not flag.text.startswith("--") or flag.name != flag.name.lower().replace("-", "_")


def _slip_of(name: str, nearest: str) -> bool:
    from difflib import SequenceMatcher  # noqa: PLC0415

    if not nearest:
        return False
    same = sum(
        block.size for block in SequenceMatcher(None, name, nearest, autojunk=False).get_matching_blocks()
    )
    return len(name) + len(nearest) - 2 * same <= SLIP


def _message(
    framework: Framework, flag: Flag, judgement: Judgement, variable: str, parsed: ParsedFlags
) -> str:
    from envdoctor.knowledge.flags import Verdict  # noqa: PLC0415

    name, dies = flag.text.partition("=")[0], DIES[variable]
    if not judgement.certain:
        dies = f"the flags of {title(framework)} may differ; where it is wrong, {dies}"
    if judgement.verdict is Verdict.NO_VALUE:
        word = parsed.ignored.split()[0] if parsed.ignored and flag is parsed.flags[-1] else ""
        form = f"{name}={word}" if word else f"{name}=…"
        return f"{name} needs its value in the same word ({form}): {dies}"
    if judgement.verdict is Verdict.UNKNOWN:
        if judgement.belongs_to:
            return f"{name} belongs in {judgement.belongs_to}, not in {variable}: {dies}"
        meant = f" (--{judgement.nearest} is meant)" if judgement.nearest else ""
        whose = title(framework) if judgement.certain else "TensorFlow 2.21 or jaxlib 0.10.2"
        gone = (
            f" ({judgement.row.note})" if judgement.row and judgement.row.note and judgement.certain else ""
        )
        return f"{name} is no flag of {whose}{gone}{meant}: {dies}"
    meant = f" ({judgement.nearest} is meant)" if judgement.nearest else ""
    return f"{flag.text}: {name} takes {judgement.expected}{meant}: {dies}"


def _takes_next_word(parsed: ParsedFlags, variable: str, build: str) -> bool:
    from envdoctor.knowledge.flags import Verdict  # noqa: PLC0415

    return bool(parsed.flags) and (
        _judged(parsed.flags[-1], variable, build).verdict is Verdict.NO_VALUE
        or not _judged(parsed.flags[-1], variable, build).row
    )


def _corrected(parsed: ParsedFlags, variable: str, build: str) -> str:
    """The flags as they should be written; what cannot be corrected is left out."""
    from envdoctor.knowledge.flags import parse_flag_text  # noqa: PLC0415

    words: list[str] = []
    while parsed.flags:
        for flag in parsed.flags[:-1]:
            words.append(_respelling(flag, "", variable, build))
        rest = parsed.ignored.split()
        words.append(_respelling(parsed.flags[-1], rest[0] if rest else "", variable, build))
        place = next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))
        parsed = parse_flag_text(" ".join(rest[place:]))
    return " ".join(filter(None, words))


def _respelling(flag: Flag, next_word: str, variable: str, build: str) -> str:
    """One flag as it was probably meant; "" where that cannot be told."""
    from envdoctor.knowledge.flags import Verdict  # noqa: PLC0415

    judgement = _judged(flag, variable, build)
    name, value = flag.name, flag.value
    if value is None and next_word:
        wants = judgement
        if judgement.nearest:
            wants = _judged(_respelt(judgement.nearest, None), variable, build)
        if wants.verdict is Verdict.NO_VALUE:
            value = next_word
    if judgement.verdict is Verdict.UNKNOWN:
        name = judgement.nearest
    elif judgement.verdict in {Verdict.WRONG_TYPE, Verdict.WRONG_VALUE}:
        value = judgement.nearest or _BOOLEANS.get((value or "").lower())
        name = name if value else ""
    elif judgement.verdict is Verdict.NO_VALUE and value is None:
        name = ""
    return _respelt(name, value).text if name else ""


def _respelt(name: str, value: str | None) -> Flag:
    from envdoctor.knowledge.flags import Flag  # noqa: PLC0415

    if value is None:
        return Flag(text=f"--{name}", name=name, value=None)
    shown = f"'{value}'" if not value or any(c.isspace() for c in value) else value
    return Flag(text=f"--{name}={shown}", name=name, value=value)


def _no_file(framework: Framework, variable: str, file: FlagFile, code: str) -> Finding:
    """People forget the dashes, or keep a quotation mark: then the flag itself is the file's name."""
    from envdoctor.knowledge.flags import parse_flag_text, tf_xla_flags, xla_flags  # noqa: PLC0415

    bare = file.path.strip().strip("\"'").strip()
    meant = bare if bare.startswith("--") else f"--{bare}"
    flags = parse_flag_text(meant).flags
    rows = xla_flags() if variable == XLA_FLAGS else tf_xla_flags()
    is_flag = bool(flags) and flags[0].name in rows
    hint = f"; {meant} is meant" if is_flag else ""
    return Finding(
        code=code,
        subject=variable,
        framework=framework.name,
        severity_here=Severity.ERROR,
        message=f"{variable} does not begin with a dash, so that {file.path!r} is taken for a file "
        f"with flags, and cannot be opened ({file.missing}){hint}: {DIES[variable]}",
        evidence=(
            Evidence(variable, file.path, f'printf "[%s]\\n" "${variable}"'),
            Evidence(file.path, file.missing, f"ls -l {quoted(file.path)}"),
        ),
        remedy=f"export {variable}={quoted(meant)}" if is_flag else f"unset {variable}",
    )


def _without_effect(
    framework: Framework, flag: Flag, needs: str, parsed: ParsedFlags, source: str
) -> Iterator[Finding]:
    """A flag that does nothing unless another is set. Off is what both are by default."""
    if (flag.value or "true").lower() in {"false", "0"}:
        return
    other = [f.value for f in parsed.flags if f.name == needs]
    if other and other[-1] not in {None, "0", "-1"}:
        return
    both = f"--{needs}=2 {flag.text}"
    yield Finding(
        code="XLA007",
        subject=flag.text,
        framework=framework.name,
        severity_here=Severity.WARNING,
        message=f"{flag.text} has no effect without --{needs}, but for programs that switch the compiler on "
        "themselves (tf.config.optimizer.set_jit)",
        evidence=(
            Evidence(TF_XLA_FLAGS, " ".join(f.text for f in parsed.flags), source),
            Evidence(f"--{needs}", "not set" if not other else str(other[-1])),
        ),
        remedy=f"export {TF_XLA_FLAGS}={quoted(both)}    # or unset {TF_XLA_FLAGS}",
    )
