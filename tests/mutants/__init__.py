"""A catalogue of planted defects and a tool that counts how many the tests catch: `make mutants`.

Measured on 2026-11-27: commands 13 of 13. The other areas have not been measured in full yet.
"""
