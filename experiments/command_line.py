"""The option that all experiments share."""

from __future__ import annotations

import argparse

import torch


def parsed(parser: argparse.ArgumentParser, threads: int | None = None) -> argparse.Namespace:
    """Return the options of the command line, with as many threads of PyTorch as they ask for.

    Args:
        parser: parser of the other options.
        threads: by default; if None, PyTorch's own number.
    """
    shown = "all processors" if threads is None else "%(default)s"
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"of PyTorch; {shown} by default"
    )
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    return options
