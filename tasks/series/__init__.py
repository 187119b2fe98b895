"""Time-series forecasting: embedded, published, GluonTS's and users' own series."""
