"""Endpoints: predictions with receipts, guarded and logged."""
