"""Apache Iceberg tables inside a commit."""
