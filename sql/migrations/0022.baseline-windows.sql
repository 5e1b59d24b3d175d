-- depends: 0021.comments

-- What a reading that comes now is held against: the current window of every series, refreshed each night for all
-- in one statement a metric, and for one user when a late reading changes it. The windows of other days are in
-- user_baseline_30d, which computes them when it is read.
CREATE TABLE user_baseline_windows (
    user_id uuid NOT NULL,
    metric text NOT NULL,
    source text NOT NULL,
    as_of timestamptz NOT NULL,
    n bigint NOT NULL CHECK (n > 0),
    mean double precision NOT NULL,
    std double precision CHECK (std >= 0),
    days_present integer NOT NULL CHECK (days_present BETWEEN 1 AND 30),
    confidence double precision NOT NULL CHECK (confidence > 0 AND confidence <= 1),
    refreshed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, metric, source)
);
COMMENT ON TABLE user_baseline_windows IS 'The trailing 30 days of every series, up to the last refresh.';
COMMENT ON COLUMN user_baseline_windows.user_id IS 'The user.';
COMMENT ON COLUMN user_baseline_windows.metric IS 'What is measured.';
COMMENT ON COLUMN user_baseline_windows.source IS 'The device: a segment of its own.';
COMMENT ON COLUMN user_baseline_windows.as_of IS
    'Available time: the end of the last day counted, UTC. The day that begins then is not in it.';
COMMENT ON COLUMN user_baseline_windows.n IS 'Number of readings.';
COMMENT ON COLUMN user_baseline_windows.mean IS 'Mean of the window''s readings.';
COMMENT ON COLUMN user_baseline_windows.std IS 'Their sample deviation; null of fewer than two.';
COMMENT ON COLUMN user_baseline_windows.days_present IS 'Days out of 30 with readings.';
COMMENT ON COLUMN user_baseline_windows.confidence IS 'The same as a share.';
COMMENT ON COLUMN user_baseline_windows.refreshed_at IS 'When it last changed.';

COMMENT ON COLUMN baseline_history.baseline IS
    'The document of schema 1: as_of, known_at, time_zone, and of each metric its statistics.';
COMMENT ON COLUMN baseline_history.created_at IS
    'When it was saved, by the database''s clock and after the one before; as it was, of one taken over from files.';
