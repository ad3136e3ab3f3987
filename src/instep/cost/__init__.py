"""Estimates before a run, and what it cost after."""
