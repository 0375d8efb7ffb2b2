"""What the written pages share."""

from __future__ import annotations

NOTE = "<!-- written by `make docs`; edit the source it names, not this page -->"


def cell(text: str) -> str:
    """One cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
