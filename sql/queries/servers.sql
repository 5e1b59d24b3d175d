-- name: create_database
-- The database of an embedded cluster; its owner is the cluster's superuser.
CREATE DATABASE hyperfeast OWNER hyperfeast;

-- name: set_password
-- The password of an embedded cluster's superuser, when the recorded one was lost.
ALTER ROLE hyperfeast PASSWORD {password};

-- name: whereabouts
-- Where the server that answers keeps its data, and the process that speaks for it.
SELECT current_setting('data_directory') AS folder, pg_backend_pid() AS pid
