"""Time-series forecasting: embedded and published series, GluonTS's data sets and users' own files."""
