-- What is traded, where, and what happened to its shares.
CREATE TABLE instruments (
    symbol text PRIMARY KEY CHECK (symbol ~ '^[A-Za-z0-9^][A-Za-z0-9._:/^=-]{0,31}$'),
    asset_class text NOT NULL DEFAULT 'equity',
    calendar text NOT NULL DEFAULT '24/7',
    currency text NOT NULL DEFAULT 'USD' CHECK (currency ~ '^[A-Z]{3,5}$'),
    listed_at date,
    delisted_at date CHECK (delisted_at >= listed_at),
    metadata jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE instruments IS 'What can have candles. One row a symbol.';
COMMENT ON COLUMN instruments.calendar IS 'An exchange_calendars code (XNYS), or 24/7.';

CREATE TABLE corporate_actions (
    symbol text NOT NULL REFERENCES instruments,
    ex_date date NOT NULL,
    kind text NOT NULL CHECK (kind IN ('split', 'dividend', 'rename', 'delisting')),
    ratio double precision CHECK (ratio > 0 AND ratio < 'Infinity'),
    amount double precision CHECK (amount >= 0 AND amount < 'Infinity'),
    source text NOT NULL,
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (symbol, ex_date, kind, recorded_at),
    CHECK (kind <> 'split' OR ratio IS NOT NULL),
    CHECK (kind <> 'dividend' OR amount IS NOT NULL)
);
COMMENT ON TABLE corporate_actions IS
    'Splits, dividends, renames, delistings. The newest revision of (symbol, ex_date, kind) counts.';
COMMENT ON COLUMN corporate_actions.ratio IS 'New shares for one old share: 2 for a 2:1 split.';
COMMENT ON COLUMN corporate_actions.ex_date IS
    'The first session at the new price. No price before it is adjusted until this date is reached.';
COMMENT ON COLUMN corporate_actions.recorded_at IS 'When this database learnt of it.';
