"""Benches: `make bench`, or `python -m bench PREFIX`; one JSON line per figure."""
