"""The layouts of CSV files of series, and what is wrong in one: its cells, its times."""
