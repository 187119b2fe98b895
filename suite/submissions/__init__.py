"""Entries: what an author submits to the boards, and the checks that an entry must pass. No code of theirs is run."""
