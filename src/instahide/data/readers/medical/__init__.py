"""Readers of medical and scientific formats: DICOM, NIfTI and TIFF."""
