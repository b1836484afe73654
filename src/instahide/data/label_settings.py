"""Settings of commands and runs that say how images are labelled and which values are kept."""

from __future__ import annotations

from pydantic import BaseModel, Field

from instahide.data.labels import Task
from instahide.data.readers.tables.label_table import LabelTable
from instahide.data.readers.window import Window, read_window


class LabelSettings(BaseModel):
    """A table of labels for a folder of images, and a window; also the options of commands.

    Examples:
        >>> from instahide.data.label_settings import LabelSettings
        >>> LabelSettings(labels="labels.csv", label_columns="mass,nodule").label_table()
        LabelTable(path='labels.csv', image_column='file', label_columns=('mass', 'nodule'), \
group_column=None, split_column=None, task=None)
    """

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

    def label_table(self) -> LabelTable | None:
        """The table of labels, if one is named."""
        if self.labels is None:
            return None
        columns = tuple(name.strip() for name in self.label_columns.split(","))
        return LabelTable(
            self.labels,
            self.image_column,
            columns,
            self.group_column,
            self.split_column,
            self.task,
        )

    def pixel_window(self) -> Window:
        """The window.

        Raises:
            DataError: it is none.
        """
        return read_window(self.window)
