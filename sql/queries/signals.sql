-- name: insert
-- Every answered prediction, before it is answered.
INSERT INTO signals
    (label, pred, proba, ts, symbol, tf, features, feature_ages, model_id, request_id, latency_ms)
VALUES (
    %(label)s, %(pred)s, %(proba)s, %(ts)s, %(symbol)s, %(tf)s, %(features)s, %(feature_ages)s,
    %(model_id)s, %(request_id)s, %(latency_ms)s
)

-- name: known_symbols
SELECT symbol FROM instruments ORDER BY symbol
