"""Labels of images in CSV and Parquet files."""
