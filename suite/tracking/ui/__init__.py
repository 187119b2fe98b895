"""The MLflow UI: its server, and the state that it shows boards with."""
