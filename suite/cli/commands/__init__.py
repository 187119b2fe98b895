"""One module per command, or per group of related commands: its options, the values it reports and their table.

Heavy libraries (torch, pydantic, mlflow) are imported inside functions, so that `suite --help` answers at once.
"""
