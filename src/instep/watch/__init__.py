"""What changed since a model was made, in sentences."""
