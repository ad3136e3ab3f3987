"""Configuration to plan to run."""
