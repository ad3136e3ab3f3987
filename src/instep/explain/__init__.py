"""Why an output is what it is."""
