"""Run SQL over Parquet file sets, and write Parquet with field ids."""
