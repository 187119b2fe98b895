"""The formats of files of text: lines of JSON, lists of JSON, Parquet and Arrow."""
