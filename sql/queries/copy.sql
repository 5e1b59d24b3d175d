-- name: column_types
-- Of the table that COPY would write to: a temporary one hides another of its name. An unknown one is
-- an error. A type that is not PostgreSQL's own comes with its schema, and so is none that is known.
SELECT a.attname,
       CASE WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text
            ELSE t.typnamespace::regnamespace || '.' || t.typname END
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE a.attrelid = quote_ident(%(table)s)::regclass AND a.attnum > 0 AND NOT a.attisdropped
