"""The command line: parse, call, print."""

from __future__ import annotations


def main() -> None:
    """Run `instahide` with the arguments of this process."""
    from instahide.cli.main import app

    app()
