-- depends: 0018.lifecycle

-- Nothing to make: `hyperfeast lifecycle apply` sets compression and policies as sql/lifecycle.toml
-- declares them, which is the one place. The rollback takes back what it has set.
SELECT 1;
