"""How values meet what a variable holds already; the same rules as the shells' (shells.py)."""

from __future__ import annotations

from envdoctor.fixes.plan import Join

SEPARATORS = {Join.PATH: ":", Join.WORDS: " ", Join.DEFAULT: ""}


def extended(value: str, values: tuple[str, ...], join: Join) -> str:
    """What the variable holds afterwards; `value` itself where it stands in front already."""
    separator = SEPARATORS[join]
    ours = separator.join(values)
    if not value:
        return ours
    if (
        join is Join.DEFAULT
        or not joinable(value, join)
        or f"{value}{separator}".startswith(ours + separator)
    ):
        return value
    return f"{ours}{separator}{value}"


def joinable(value: str, join: Join) -> bool:
    """False where XLA would take the value for a file's name: it does not start with a dash.

    Source: xla/parse_flags_from_env.cc (SetArgvFromEnv).
    """
    return join is not Join.WORDS or not value or value.startswith("-") or (value[0] == " " and "-" in value)


def merged(values: tuple[str, ...], earlier: tuple[str, ...], join: Join) -> tuple[str, ...]:
    """`values`, and behind them what an earlier repair put there; of a default there is one.

    A flag that is given anew takes the earlier one's place: of two, XLA takes the last (seen in TensorFlow
    2.21 with --xla_gpu_cuda_data_dir).
    """
    if join is Join.DEFAULT:
        return values
    if join is Join.WORDS:
        given = {value.partition("=")[0] for value in values}
        earlier = tuple(value for value in earlier if value.partition("=")[0] not in given)
    return tuple(dict.fromkeys(values + earlier))
