"""Feast's data quality monitoring over sources whose columns are not named as the features are.

Feast computes its metrics in the database, of columns that bear the features' names, and forgets the
source's field mapping.
"""

from feast.data_source import DataSource
from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import (
    PostgreSQLSource,
)
from psycopg import sql


def as_features(source: DataSource) -> DataSource:
    """The source with its columns under the features' names too; itself where nothing is mapped."""
    if not source.field_mapping:
        return source
    renamed = sql.SQL(", ").join(
        sql.SQL("source.{} AS {}").format(sql.Identifier(column), sql.Identifier(feature))
        for column, feature in source.field_mapping.items()
    )
    query = sql.SQL("SELECT source.*, {} FROM {} AS source").format(
        renamed, sql.SQL(source.get_table_query_string())
    )
    return PostgreSQLSource(
        name=source.name, query=query.as_string(None), timestamp_field=source.timestamp_field
    )
