-- Nothing to take back: see 0008.
SELECT 1;
