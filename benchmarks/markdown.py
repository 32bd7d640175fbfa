"""Tables in Markdown, each between a marker of its name and `<!-- end -->`."""

import re
from pathlib import Path


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def replace(path: Path, name: str, lines: list[str]) -> None:
    """Replace the lines between the markers."""
    new = "\n".join(lines) + "\n"
    replaced, count = re.subn(_pattern(name), lambda _: new, path.read_text(), flags=re.DOTALL)
    if count != 1:
        raise SystemExit(f"{path} has {count} tables named {name!r}; expected 1.")
    path.write_text(replaced)


def find(path: Path, name: str) -> list[str]:
    """Return the lines between the markers."""
    (found,) = re.findall(_pattern(name), path.read_text(), flags=re.DOTALL)
    return found.splitlines()


def _pattern(name: str) -> str:
    marker = re.escape(f"<!-- {name} -->\n")
    return rf"(?<={marker}).*?(?=<!-- end -->\n)"
