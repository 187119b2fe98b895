"""Tracking in MLflow: a journal per run, a worker process that delivers it, the store, the UI."""
