"""What the tracking store shows of records: runs, boards and their rows."""
