"""Settings of commands and runs that say how images are read and labelled."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from instahide.data.labels import Task
from instahide.data.pixels import MOST_SIDE
from instahide.data.readers.tables.label_table import LabelTable, column_names
from instahide.data.readers.window import read_window
from instahide.data.sources import ReadOptions
from instahide.errors import DataError

#: Settings that say how a table of labels is read.
_OF_TABLES = ("image_column", "label_columns", "group_column", "split_column", "task")


class ReadSettings(BaseModel):
    """Size, labels and window of images; the fields are also options of commands.

    Examples:
        >>> from instahide.data.read_settings import ReadSettings
        >>> from instahide import open_images
        >>> open_images("mnist-5k", **ReadSettings(size=14).read_options())
        ImageTable(4000 of (1, 14, 14), 10 classes)
    """

    size: Annotated[int, Field(ge=1, le=MOST_SIDE)] | None = Field(
        default=None, description="resize the short side to so many pixels and crop the center"
    )
    skip_bad: bool = Field(default=False, description="leave out image files that cannot be read")
    labels: str | None = Field(
        default=None, description="CSV or Parquet table with the labels of the images in a folder"
    )
    image_column: str = Field(
        default="file", description="column of the table of labels that names the image file"
    )
    label_columns: str = Field(
        default="label",
        description="columns of the table of labels with labels: class, or mass,nodule",
    )
    group_column: str | None = Field(
        default=None,
        description="column of the table of labels that names a patient or other group to protect",
    )
    split_column: str | None = Field(
        default=None,
        description="column of the table of labels that says train, test or validation",
    )
    task: Task | None = Field(
        default=None,
        description="what labels are; if omitted, multi-label where there are several columns",
    )
    window: str = Field(
        default="full",
        description="range of pixel values to keep: full, LO,HI, 1%,99%, or file (DICOM)",
    )

    rescale: bool = Field(
        default=False,
        description="scale the window's values to 0 to 1, so that scanners are alike",
    )

    def label_table(self) -> LabelTable | None:
        """The table of labels, if one is named.

        Raises:
            DataError: there is none, and a setting is for a table.
        """
        if self.labels is None:
            self._require_no_table()
            return None
        return LabelTable(
            self.labels,
            self.image_column,
            column_names(self.label_columns),
            self.group_column,
            self.split_column,
            self.task,
        )

    def _require_no_table(self) -> None:
        fields = ReadSettings.model_fields
        unused = [name for name in _OF_TABLES if getattr(self, name) != fields[name].default]
        if unused:
            raise DataError(
                f"`{unused[0]}` is for a table of labels, and no table is named.",
                f"Name the table by `labels=`, or leave `{unused[0]}=` out.",
            )

    def read_options(self, *, progress: bool = True) -> ReadOptions:
        """The arguments of `open_images`, `open_split` and `open_test`.

        Raises:
            DataError: the window is none, or as for `label_table`.
        """
        return {
            "size": self.size,
            "skip_bad": self.skip_bad,
            "progress": progress,
            "window": read_window(self.window),
            "rescale": self.rescale,
            "labels": self.label_table(),
        }
