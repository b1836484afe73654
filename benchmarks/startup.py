"""Wall time of `instahide --help` as a whole process: what the shortest command costs."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.measure import medians, quick, report

COMMAND = [sys.executable, "-m", "instahide", "--help"]


def main() -> None:
    runs = 2 if quick(__doc__) else 10
    # An installed package has its bytecode: let the run before the timed ones write it.
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }

    def show_help() -> None:
        subprocess.run(COMMAND, env=environment, stdout=subprocess.DEVNULL, check=True)

    def start_python() -> None:
        subprocess.run([sys.executable, "-c", ""], env=environment, check=True)

    seconds = medians({"help": show_help, "python": start_python}, runs)
    rows = [
        ("instahide --help", f"{1e3 * seconds['help']:,.0f} ms"),
        ("Python alone", f"{1e3 * seconds['python']:,.0f} ms"),
    ]
    figures = {"help_seconds": seconds["help"], "python_seconds": seconds["python"]}
    report("Start of the command line", rows, figures)


if __name__ == "__main__":
    main()
