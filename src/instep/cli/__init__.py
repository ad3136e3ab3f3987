"""The command line: a thin reader of the rooms."""
