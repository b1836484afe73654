"""Settings that say how images are read: none is accepted and then ignored."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from instahide.cli.main import app
from instahide.data.read_settings import ReadSettings
from instahide.errors import DataError


@pytest.mark.parametrize(
    "named",
    [
        {"group_column": "patient"},
        {"split_column": "part"},
        {"label_columns": "mass,nodule"},
        {"image_column": "path"},
        {"task": "regression"},
    ],
    ids=str,
)
def test_what_is_for_a_table_of_labels_is_refused_without_one(named: dict[str, Any]) -> None:
    (name,) = named
    with pytest.raises(DataError, match=f"`{name}` is for a table of labels") as refused:
        ReadSettings(**named).read_options()
    assert f"leave `{name}=` out" in refused.value.remedy
    table = ReadSettings(labels="labels.csv", **named).read_options()["labels"]
    assert table is not None


def test_groups_without_a_table_are_refused_by_a_command() -> None:
    done = CliRunner().invoke(
        app, ["encrypt", "digits", "--group-column", "patient", "--dry-run", "--out", "encoded"]
    )
    assert done.exit_code == 2
    assert "leave `--group-column` out" in " ".join(done.output.split())
