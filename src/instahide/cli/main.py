"""`instahide` and its commands. PyTorch is imported inside the commands that need it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from click import Context
from typer.core import TyperCommand
from typer.main import get_command

from instahide._version import __version__
from instahide.cli import encodings
from instahide.cli.challenge import challenge
from instahide.cli.console import SafeGroup, explained, out
from instahide.cli.options import MOST, MOST_PIXELS, Noise, Pool, Size, SkipBad, Source

app = typer.Typer(
    name="instahide",
    cls=SafeGroup,
    help="Train on encrypted images: InstaHide (Huang et al., ICML 2020, arXiv:2010.02772).\n\n"
    "InstaHide is not a formal guarantee: published attacks recover images from its encodings. "
    "See docs/threat-model.md before you trust it with anything.",
    no_args_is_help=True,
    add_completion=False,
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
    """Take the options that stand before a command."""


@explained
def train(
    given: dict[str, Any],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the run.")] = Path(
        "runs/run"
    ),
    config: Annotated[
        Path | None, typer.Option(help="YAML, TOML or JSON file of settings; options come on top.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, under new keys.")
    ] = False,
) -> None:
    """Train a network on encodings of private images, or on folders of encodings.

    Examples: instahide train mnist-5k --scheme cross --k 4, and
    instahide train encoded-by-anna encoded-by-ben --test fashion-mnist
    """
    from instahide.cli.train import run_training

    run_training(given, out_folder, config, resume)


class _Train(TyperCommand):
    """`train`, with its options once it is called: other commands start without them."""

    def make_context(self, *given: Any, **extra: Any) -> Context:
        from instahide.cli.train_options import with_settings

        whole = typer.Typer(add_completion=False)
        whole.command()(with_settings(train))
        return get_command(whole).make_context(*given, **extra)


app.add_typer(challenge)
app.command("train", cls=_Train, help=train.__doc__)(lambda: None)
for command in encodings.COMMANDS:
    # `import` is Python's own word: the function is called `import_`.
    app.command(command.__name__.rstrip("_"))(command)


@app.command()
@explained
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    source: Annotated[str, typer.Argument(help="Images to ask about, as for train --test.")],
    public: Pool = "photos",
    queries: Annotated[
        int, typer.Option(help="Encodings of each query; 0: plain queries.", min=0, max=MOST)
    ] = 10,
    coefficient: Annotated[float, typer.Option(help="Least coefficient of a query.")] = 0.5,
    size: Size = None,
    skip_bad: SkipBad = False,
    out_file: Annotated[Path, typer.Option("--out", help="CSV file to write.")] = Path(
        "predictions.csv"
    ),
) -> None:
    """Ask a trained network about images, encrypted as many times as --queries says."""
    from instahide.cli.predict import run_prediction

    run_prediction(run, source, public, queries, coefficient, size, skip_bad, out_file)


@app.command()
@explained
def public(
    source: Annotated[str, typer.Argument(help="Folder of photographs, or `photos`.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the pool.")],
    patch: Annotated[
        int, typer.Option(help="Height and width of a patch.", min=1, max=MOST_PIXELS)
    ] = 32,
    per_image: Annotated[
        int, typer.Option(help="Patches of a photograph, at most.", min=1, max=MOST)
    ] = 100,
    min_keypoints: Annotated[int, typer.Option(help="SIFT key points of a patch, at least.")] = 40,
    grey: Annotated[bool, typer.Option("--grey", help="One channel instead of three.")] = False,
    skip_bad: SkipBad = False,
) -> None:
    """Cut a public pool of patches from photographs, flat ones left out."""
    from instahide.data import make_pool

    pool = make_pool(
        source,
        out_folder,
        patch=patch,
        per_image=per_image,
        min_keypoints=min_keypoints,
        grey=grey,
        skip_bad=skip_bad,
    )
    out.print(f"{len(pool)} patches of {patch} x {patch} pixels in {out_folder}")


@app.command()
@explained
def show(
    source: Source = "mnist-5k",
    public: Pool = "photos",
    scheme: Annotated[str, typer.Option(help="inside, cross, mixup or plain.")] = "cross",
    k: Annotated[int, typer.Option(help="Images in a mix.")] = 4,
    noise: Noise = None,
    images: Annotated[int, typer.Option(help="Rows of the picture.")] = 4,
    size: Size = None,
    skip_bad: SkipBad = False,
    out_file: Annotated[Path, typer.Option("--out", help="PNG file to write.")] = Path("show.png"),
) -> None:
    """Draw what encryption does: originals, their partners, the mix, the encoding, |encoding|."""
    from instahide.cli.show import draw_picture

    draw_picture(source, public, scheme, k, noise or 0.0, images, size, skip_bad, out_file)
    out.print(f"Picture: {out_file}")


@app.command()
@explained
def bench(
    k: Annotated[int, typer.Option(help="Images in a mix.")] = 4,
    side: Annotated[
        int, typer.Option(help="Height and width of an image.", min=1, max=MOST_PIXELS)
    ] = 32,
    channels: Annotated[int, typer.Option(help="1 or 3.")] = 3,
    images: Annotated[int, typer.Option(help="How many to encode.", min=1, max=MOST)] = 50_000,
) -> None:
    """Measure how fast this machine encodes, beside a plain conversion of the same pixels."""
    from instahide.cli.bench import measure_speed

    measure_speed(k, side, channels, images)


@app.command()
@explained
def demo(
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the results.")] = Path(
        "runs/demo"
    ),
    epochs: Annotated[int, typer.Option(help="Epochs of either run.")] = 24,
) -> None:
    """Train on plain and on encrypted digits, side by side, and draw what encryption does."""
    from instahide.cli.demo import run_demo

    run_demo(out_folder, epochs)


@app.command()
@explained
def audit(
    target: Annotated[
        str, typer.Argument(metavar="RUN_OR_ENCODED", help="A training run, or encodings.")
    ],
    images: Annotated[str, typer.Option(help="The private images that it was made of.")],
    public: Annotated[
        str | None, typer.Option(help="A public pool's folder, or `photos`; the run's own if any.")
    ] = None,
    budget: Annotated[str, typer.Option(help="Time for all attacks: 90s, 10m, 1.5h.")] = "10m",
    only: Annotated[
        list[str] | None, typer.Option(metavar="ATTACK", help="Only this attack; repeatable.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(metavar="BOUND", help='Exit with 3 if it holds: "ssim>0.4"; repeatable.'),
    ] = None,
    size: Size = None,
    skip_bad: SkipBad = False,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the audit.")] = Path("audit"),
) -> None:
    """Run the published attacks on one's own images, and say what they recover at what cost.

    Stopped or killed, the same command goes on. Example:
    instahide audit runs/demo/cross --images mnist-5k
    """
    from instahide.cli.audit import Asked, run_audit
    from instahide.cli.audit_target import Given

    given = Given(images, public, size, skip_bad)
    run_audit(Asked(target, given, budget, only or [], fail_if or [], out_folder))


@app.command()
@explained
def hardness(
    images: Annotated[int, typer.Option(help="Images that partners are drawn from, all known.")],
    k: Annotated[int, typer.Option(help="Images in a mix.")] = 4,
    private: Annotated[int, typer.Option(help="Private images.")] = 100,
    private_k: Annotated[int, typer.Option(help="Private images in a mix.")] = 2,
    encodings: Annotated[int, typer.Option(help="Published encodings, in all.")] = 1,
    values: Annotated[int, typer.Option(help="Values of an image.")] = 3072,
    rate: Annotated[float, typer.Option(help="Steps that a core takes in a second.")] = 1e9,
    price: Annotated[float, typer.Option(help="Dollars for a core and hour.")] = 0.05,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what attacks would cost by published formulas, with what each of them assumes.

    No figure is a guarantee. Example: instahide hardness --images 10000 --k 4
    """
    from instahide.audit.hardness import Setting
    from instahide.cli.hardness import show_hardness

    setting = Setting(images, k, private, private_k, encodings, values)
    show_hardness(setting, rate, price, as_json)


@app.command()
@explained
def reproduce(
    claim: Annotated[str | None, typer.Argument(help="Which claim; none: list them all.")] = None,
) -> None:
    """Measure one of the paper's claims again, in the root of a checkout, or list them.

    What is measured is added to the files in experiments/results. Some take hours.
    """
    from instahide.cli import reproduce

    if claim is None:
        reproduce.show_claims(Path.cwd())
    else:
        reproduce.reproduce(claim, Path.cwd())


@app.command("app")
@explained
def page(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 7860,
    reports: Annotated[Path, typer.Option(help="Folder of audit reports to show.")] = Path("audit"),
) -> None:
    """Show what encryption does and what attacks recover, on a page that this machine alone sees.

    Nothing that is put in leaves the process or stays on disk.
    """
    from instahide.app.server import serve

    serve(port, reports)
