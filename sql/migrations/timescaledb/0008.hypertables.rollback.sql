-- Nothing to take back: a hypertable does all that its table did, and goes with it when the rollbacks of
-- the earlier migrations drop it.
SELECT 1;
