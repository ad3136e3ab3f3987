"""What other programs ask of a lake over HTTP: the Iceberg REST catalog."""
