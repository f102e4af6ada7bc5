"""The console script. Ctrl-C while the command line itself is being imported ends it as Ctrl-C does later on."""

from __future__ import annotations

import sys


def main() -> None:
    """Do what was typed."""
    try:
        from cli import main as cli

        cli.main()
    except KeyboardInterrupt:
        sys.stderr.write("\nAborted!\n")  # click's words, and click is not there yet
        sys.exit(1)
