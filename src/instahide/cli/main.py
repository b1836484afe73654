"""`instahide`: the table of its commands. A command is imported when it is called.

To add a command, write `cli/NAME.py` with a function `NAME` under `options.command`, and add its
name and the first line of its docstring to `COMMANDS`. In the name of module and function, a hyphen
is an underscore, and `import`, a word of Python, is `import_`.
"""

from __future__ import annotations

import keyword
from importlib import import_module
from typing import Annotated, Any

import typer
from click import Context
from typer.core import TyperCommand

from instahide._version import __version__
from instahide.cli.console import SafeGroup, out

#: Groups of commands in the help text: each command, and what it does.
COMMANDS = {
    "Train": {
        "train": "Train a network on encrypted images, or on folders of encodings.",
        "predict": "Classify images with a trained network, as encrypted or plain queries.",
        "calibrate": "Correct the probabilities of a trained network with further images.",
        "export-model": "Write a trained network for use elsewhere, with its preprocessing.",
        "public": "Cut a public pool of patches from photographs, volumes or images of 16 bits.",
    },
    "Publish encodings": {
        "encrypt": "Encrypt images into a folder of encodings that others can train on.",
        "verify": "Check every byte and every value of a folder of encodings.",
        "info": "Show a folder's contents, the exposure of its images and what noise guarantees.",
        "ledger": "Show how often your images have been encrypted, over all runs.",
        "export": "Export encodings to another format.",
        "import": "Import encodings from another format.",
    },
    "Audit": {
        "advise": "Search for settings that meet your targets, on your own images.",
        "audit": "Run published attacks on your own images and report what they recover.",
        "hardness": "Estimate what attacks would cost, by published formulas.",
        "challenge": "Make challenges for attackers, score submissions and rank them.",
        "reproduce": "Measure one of the paper's claims again, or list the claims.",
    },
    "Try it": {
        "demo": "Train on plain and on encrypted digits, and compare the accuracies.",
        "show": "Draw each step of the encryption of some images.",
        "bench": "Measure how many images per second this machine encrypts.",
        "app": "Open a web page on this machine that shows encryption and attacks.",
    },
}

app = typer.Typer(
    name="instahide",
    cls=SafeGroup,
    help="Train on encrypted images: InstaHide (Huang et al., ICML 2020, arXiv:2010.02772).\n\n"
    "InstaHide is not a formal guarantee: published attacks recover images from its encodings. "
    "See docs/threat-model.md before you trust it with anything.",
    no_args_is_help=True,
    # Commands inherit it.
    context_settings={"help_option_names": ["-h", "--help"]},
    # Local variables may be keys.
    pretty_exceptions_show_locals=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        out.print(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Read the options before a command."""


class LazyCommand(TyperCommand):
    """A command of `COMMANDS`, whose module is imported once the command is called."""

    def make_context(self, info_name: str | None, *given: Any, **extra: Any) -> Context:
        """As `TyperCommand.make_context`, of the command itself."""
        from instahide.cli.options import click_command

        name = str(self.name).replace("-", "_")
        name = f"{name}_" if keyword.iskeyword(name) else name
        found = click_command(getattr(import_module(f"instahide.cli.{name}"), name))
        return found.make_context(info_name, *given, **extra)


for panel, commands in COMMANDS.items():
    for name, purpose in commands.items():
        app.command(name, cls=LazyCommand, help=purpose, rich_help_panel=panel)(lambda: None)
