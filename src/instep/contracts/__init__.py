"""What tables promise."""
