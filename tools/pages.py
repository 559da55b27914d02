"""Tables in the documents that programs write."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent


def write_table(page: str, title: str, lines: list[str]) -> None:
    """Put lines between the marks `<!-- title -->` and `<!-- end of the table -->` that follows, in a page of docs/."""
    path = ROOT / "docs" / page
    head, rest = path.read_text().split(f"<!-- {title} -->\n")
    end = "<!-- end of the table -->"
    path.write_text(head + f"<!-- {title} -->\n" + "\n".join(lines) + "\n" + end + rest.split(end, 1)[1])
