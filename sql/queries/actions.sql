-- name: stage
CREATE TEMPORARY TABLE staged_actions ON COMMIT DROP AS
SELECT symbol, ex_date, kind, ratio, amount, source FROM corporate_actions WITH NO DATA

-- name: correct
-- A revision of its own for each action whose newest revision says otherwise; the earlier ones stay.
INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, amount, source, recorded_at)
SELECT s.symbol, s.ex_date, s.kind, s.ratio, s.amount, s.source, %(moment)s
FROM staged_actions AS s
JOIN LATERAL (
    SELECT a.ratio, a.amount
    FROM corporate_actions AS a
    WHERE a.symbol = s.symbol AND a.ex_date = s.ex_date AND a.kind = s.kind
    ORDER BY a.recorded_at DESC
    LIMIT 1
) AS newest ON true
WHERE ROW(newest.ratio, newest.amount) IS DISTINCT FROM ROW(s.ratio, s.amount)

-- name: insert
INSERT INTO corporate_actions (symbol, ex_date, kind, ratio, amount, source, recorded_at)
SELECT s.symbol, s.ex_date, s.kind, s.ratio, s.amount, s.source, %(moment)s
FROM staged_actions AS s
WHERE NOT EXISTS (
    SELECT FROM corporate_actions AS a
    WHERE a.symbol = s.symbol AND a.ex_date = s.ex_date AND a.kind = s.kind
)
