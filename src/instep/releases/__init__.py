"""Environments, and what moves them."""
