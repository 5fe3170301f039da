"""Write docs/conditions from the catalogue: `python docs/generate.py`; with --check, only compare."""  # noqa: INP001

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from envdoctor.catalog import CONDITIONS
from envdoctor.catalog.page import file_name, render_index, render_markdown

PAGES = Path(__file__).resolve().parent / "conditions"


def expected() -> dict[str, str]:
    """Every file of docs/conditions by its name."""
    return {"README.md": render_index()} | {file_name(row): render_markdown(row) for row in CONDITIONS}


def differing(directory: Path = PAGES) -> list[str]:
    """The names of files that are missing, out of date, or of no condition."""
    wanted = expected()
    present = {p.name: p.read_text(encoding="utf-8") for p in directory.glob("*.md")}
    return sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))


def write(directory: Path = PAGES) -> list[str]:
    """Bring the directory up to date; the names of the files that changed."""
    directory.mkdir(exist_ok=True)
    changed = differing(directory)
    wanted = expected()
    for name in changed:
        if name in wanted:
            (directory / name).write_text(wanted[name], encoding="utf-8")
        else:
            (directory / name).unlink()
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit 1 and name what is out of date"
    )
    if parser.parse_args().check:
        stale = differing()
        for name in stale:
            print(f"docs/conditions/{name} is not what the catalogue says", file=sys.stderr)
        if stale:
            print("run: python docs/generate.py", file=sys.stderr)
        return 1 if stale else 0
    for name in write():
        print(f"docs/conditions/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
