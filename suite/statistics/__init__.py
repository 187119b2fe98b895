"""The statistics of boards: pure functions of scores, which know nothing of records, tasks or tables."""
