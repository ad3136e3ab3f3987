"""Sources and arrivals: from a file to a verdict."""
