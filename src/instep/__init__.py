"""Instep: change management for data and for the models trained on it."""
