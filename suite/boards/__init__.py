"""Boards: records of one task grouped, selected, compared and ranked, and their views."""
