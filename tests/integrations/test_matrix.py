"""The table of libraries and orders in the documentation is what the tests show."""

from __future__ import annotations

from pathlib import Path

from tests.integrations.matrix import documented

TESTS = Path(__file__).resolve().parents[1]


def test_the_sentence_above_the_table_counts_its_rows() -> None:
    results = list(documented().values())
    shared = f"{results.count('encodings')} give encodings, {results.count('refused')} are refused"
    page = " ".join((TESTS.parent / "docs" / "pipelines.md").read_text("utf-8").split())
    assert f"Of {len(results)} orders, {shared}" in page


def test_every_row_of_the_table_has_its_test() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("integrations", "torchvision")
        for path in (TESTS / folder).glob("test_*.py")
    )
    table = documented()
    assert {library for library, _ in table} >= {
        "Accelerate", "Fabric", "Hugging Face `Trainer`", "JAX", "Keras", "Lightning `Trainer`",
        "MONAI", "Opacus", "Ray Train", "timm", "torchdata `StatefulDataLoader`",
    }  # fmt: skip
    for library, order in table:
        assert f'"{library}"' in sources, library
        assert f'"{order}"' in sources, order
