"""Tracking in MLflow: each run's journal, the worker process that delivers it, the store, the UI."""
