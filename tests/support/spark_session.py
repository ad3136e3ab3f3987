"""One Spark session in a process of its own: SQL comes in a line, its rows go out in one.

Runs in Spark's own virtual environment, where nothing of Instep is installed:
`python spark_session.py JAR,JAR URL TOKEN WAREHOUSE...`. Each warehouse is a catalog of its own,
named by its first letters up to what is no letter or digit. Rows are JSON texts.
"""

from __future__ import annotations

import json
import re
import sys

from pyspark.sql import SparkSession

PLAIN = {
    "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.sql.session.timeZone": "UTC",
    "spark.log.level": "OFF",
}


def main() -> None:
    jars, url, token, *warehouses = sys.argv[1:]
    builder = SparkSession.builder.master("local[1]").config("spark.jars", jars)
    for name, text in PLAIN.items():
        builder = builder.config(name, text)
    for warehouse in warehouses:
        catalog = f"spark.sql.catalog.{re.split('[^a-z0-9]', warehouse)[0]}"
        builder = builder.config(catalog, "org.apache.iceberg.spark.SparkCatalog")
        options = {"type": "rest", "uri": url, "warehouse": warehouse, "cache-enabled": "false"}
        who = {"token": token, "header.Instep-Actor": "spark"}
        for name, text in {**options, **who}.items():
            builder = builder.config(f"{catalog}.{name}", text)
    session = builder.getOrCreate()
    answer({"ready": session.version})
    for line in sys.stdin:
        try:
            found = session.sql(json.loads(line)).toJSON().collect()
            answer({"rows": [json.loads(row) for row in found]})
        except Exception as error:
            answer({"error": str(error)[:1000]})  # the rest is where in Spark
    session.stop()


def answer(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


main()
