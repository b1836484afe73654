"""`instahide info`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.table import Table

from instahide.cli.console import WARNING, notes, out
from instahide.cli.options import Baseline, Delta, EncodedSource, Prior, command, prior_of
from instahide.data.labels import Task

if TYPE_CHECKING:
    from instahide.encodings.manifest import Manifest

#: What `Manifest.ended` means.
STATES = {"all": "complete", "limit": "ended at its exposure limit", None: "not finished"}

#: What the columns of labels are called.
COLUMNS: dict[Task, str] = {
    "single-label": "classes", "multi-label": "findings", "regression": "values measured",
}  # fmt: skip


@command
def info(
    folder: EncodedSource, delta: Delta = 1e-5, baseline: Baseline = 0.001, prior: Prior = None
) -> None:
    """Show a folder's contents, the exposure of its images and what noise guarantees.

    With --json: the manifest.
    """
    from instahide.encodings.folder import EncodedFolder
    from instahide.encodings.guarantees import folder_guarantees, folders_statements

    manifest = EncodedFolder.open(folder, partial=True).manifest
    table = Table("", "", show_header=False)
    for name, value in _facts(manifest).items():
        table.add_row(name, value)
    statements = folders_statements([manifest], delta, baseline)
    if prior is not None:
        loss = folder_guarantees(manifest, delta).loss
        shape = manifest.image_shape or manifest.shape
        statements["error_floor_with_a_prior"] = prior_of(prior, shape).statement(
            loss, manifest.std, " from this folder alone"
        )
    out.results(json.loads(manifest.to_json()), table, *statements.values())
    notes.print(WARNING)


def _facts(manifest: Manifest) -> dict[str, str]:
    from instahide.encryption.encoders.registry import is_builtin

    mixed = {}
    if is_builtin(manifest.encoder):
        private_k = manifest.instance_encoder().private_k
        exposures = len(manifest) * private_k / manifest.private_images
        # Of a limited folder, private images may have been drawn from the public pool too.
        least = "at least " if manifest.limited else ""
        mixed = {"an image is in": f"{least}{exposures:,.1f} of them on average"}
    return {
        "participant": manifest.participant or "(no name)",
        "created": f"{manifest.created} by {manifest.library}",
        "state": STATES[manifest.ended],
        "encodings": f"{len(manifest):,} of {manifest.total:,}",
        "private images": f"{manifest.private_images:,}, {manifest.copies} copies each",
        **mixed,
        "encoder": manifest.encoder,
        "scheme" if manifest.of_scheme else "settings": ", ".join(
            f"{name} = {value}" for name, value in manifest.scheme.items()
        ),
        "shape": " x ".join(map(str, manifest.shape)),
        COLUMNS[manifest.task]: f"{len(manifest.classes)}: {', '.join(manifest.classes[:20])}",
        "normalization": f"mean {_short(manifest.mean)}, std {_short(manifest.std)}",
        "values": f"{manifest.values}, at most {manifest.max_quantization_error:.2g} off",
        "shards": f"{len(manifest.shards)}, {decimal(sum(s.bytes for s in manifest.shards))}",
    }


def _short(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
