-- depends: 0010.baselines

-- The tables of definitions, models, predictions, signals, operations and quality.

CREATE TABLE data_quality_results (
    "check" text NOT NULL,
    scope text NOT NULL,
    ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    passed boolean NOT NULL,
    observed jsonb NOT NULL DEFAULT '{}',
    expectation jsonb NOT NULL DEFAULT '{}',
    batch_id uuid
);
CREATE INDEX data_quality_results_newest ON data_quality_results ("check", scope, ts DESC);
COMMENT ON TABLE data_quality_results IS 'What each check of the data found, one row a check, scope and run.';
COMMENT ON COLUMN data_quality_results."check" IS 'The check''s name: gate, prices, sessions.';
COMMENT ON COLUMN data_quality_results.scope IS 'What was checked: candles/1d, market_technical v1.';
COMMENT ON COLUMN data_quality_results.ts IS 'When it was checked.';
COMMENT ON COLUMN data_quality_results.passed IS 'Whether what was observed is as expected.';
COMMENT ON COLUMN data_quality_results.observed IS 'What was found: rows looked at, rows that broke which rule.';
COMMENT ON COLUMN data_quality_results.expectation IS 'What was expected: the suite or the statement, as data.';
COMMENT ON COLUMN data_quality_results.batch_id IS 'The batch that was judged at the gate; null for a scheduled check.';

CREATE TABLE feature_definitions (
    name text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    description text NOT NULL,
    data_type text NOT NULL,
    source_table text NOT NULL,
    computation_rule text NOT NULL,
    warmup integer NOT NULL DEFAULT 0 CHECK (warmup >= 0),
    definition_hash text NOT NULL CHECK (definition_hash ~ '^[0-9a-f]{64}$'),
    tags text[] NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, version)
);
COMMENT ON TABLE feature_definitions IS 'Every version of every feature. A rule never changes under its version.';
COMMENT ON COLUMN feature_definitions.name IS 'The feature''s name.';
COMMENT ON COLUMN feature_definitions.version IS 'The version, from 1.';
COMMENT ON COLUMN feature_definitions.description IS 'What it says, in one sentence, with its unit.';
COMMENT ON COLUMN feature_definitions.data_type IS 'Its type: float64, int64.';
COMMENT ON COLUMN feature_definitions.source_table IS 'The relation that it is computed from.';
COMMENT ON COLUMN feature_definitions.computation_rule IS 'The rule, as text.';
COMMENT ON COLUMN feature_definitions.warmup IS 'How many source rows come before the first value.';
COMMENT ON COLUMN feature_definitions.definition_hash IS 'SHA-256 of what defines it.';
COMMENT ON COLUMN feature_definitions.tags IS 'Words to find it by.';
COMMENT ON COLUMN feature_definitions.is_active IS 'Whether it is still computed.';
COMMENT ON COLUMN feature_definitions.created_at IS 'When it was first declared here.';

CREATE TABLE feature_sets (
    name text NOT NULL,
    version integer NOT NULL CHECK (version > 0),
    entity text NOT NULL,
    description text NOT NULL,
    features text[] NOT NULL,
    metadata jsonb NOT NULL DEFAULT '{}',
    is_active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (name, version)
);
COMMENT ON TABLE feature_sets IS 'Every version of every feature set.';
COMMENT ON COLUMN feature_sets.name IS 'The set''s name.';
COMMENT ON COLUMN feature_sets.version IS 'The version, from 1.';
COMMENT ON COLUMN feature_sets.entity IS 'What a row describes: symbol; user, metric.';
COMMENT ON COLUMN feature_sets.description IS 'What it says, in one sentence.';
COMMENT ON COLUMN feature_sets.features IS 'The names of its features, in order.';
COMMENT ON COLUMN feature_sets.metadata IS 'Whatever else its declaration says.';
COMMENT ON COLUMN feature_sets.is_active IS 'Whether it is still computed.';
COMMENT ON COLUMN feature_sets.created_at IS 'When it was first declared here.';

CREATE TABLE feature_importance (
    model_id uuid NOT NULL,
    feature_name text NOT NULL,
    method text NOT NULL CHECK (method IN ('gain', 'permutation', 'shap')),
    importance double precision NOT NULL,
    rank integer NOT NULL CHECK (rank > 0),
    ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (model_id, feature_name, method, ts)
);
COMMENT ON TABLE feature_importance IS 'How much each feature matters to a model.';
COMMENT ON COLUMN feature_importance.model_id IS 'The model version.';
COMMENT ON COLUMN feature_importance.feature_name IS 'The feature.';
COMMENT ON COLUMN feature_importance.method IS 'How it was measured: gain, permutation or shap.';
COMMENT ON COLUMN feature_importance.importance IS 'The measure; its unit is the method''s.';
COMMENT ON COLUMN feature_importance.rank IS '1 for the most important by this method.';
COMMENT ON COLUMN feature_importance.ts IS 'When it was measured.';

CREATE TABLE baseline_history (
    user_id uuid NOT NULL,
    baseline jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (user_id, created_at)
);
COMMENT ON TABLE baseline_history IS 'A user''s baselines as they were; the last ten of each are kept.';
COMMENT ON COLUMN baseline_history.user_id IS 'The user.';
COMMENT ON COLUMN baseline_history.baseline IS 'Metric -> mean, deviation, count, days present.';
COMMENT ON COLUMN baseline_history.created_at IS 'When it was taken.';

CREATE TABLE model_deployments (
    deployment_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model_name text NOT NULL,
    model_id uuid NOT NULL REFERENCES model_registry,
    role text NOT NULL CHECK (role IN ('champion', 'challenger', 'shadow')),
    traffic_share double precision NOT NULL DEFAULT 1 CHECK (traffic_share BETWEEN 0 AND 1),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz CHECK (ended_at >= started_at),
    actor text NOT NULL DEFAULT current_user,
    reason text NOT NULL
);
CREATE INDEX model_deployments_newest ON model_deployments (model_name, started_at DESC);
CREATE UNIQUE INDEX model_deployments_one_champion ON model_deployments (model_name)
WHERE role = 'champion' AND ended_at IS NULL;
COMMENT ON TABLE model_deployments IS
    'Which model was live, when, and who decided it. Rows are added and ended, never changed or deleted.';
COMMENT ON COLUMN model_deployments.deployment_id IS 'The order in which they were decided.';
COMMENT ON COLUMN model_deployments.model_name IS 'The model''s name.';
COMMENT ON COLUMN model_deployments.model_id IS 'The version that was deployed.';
COMMENT ON COLUMN model_deployments.role IS 'champion, challenger or shadow.';
COMMENT ON COLUMN model_deployments.traffic_share IS 'The share of requests that it answers, 0 to 1.';
COMMENT ON COLUMN model_deployments.started_at IS 'From when it was live.';
COMMENT ON COLUMN model_deployments.ended_at IS 'Until when; null while it is.';
COMMENT ON COLUMN model_deployments.actor IS 'Who or what decided it.';
COMMENT ON COLUMN model_deployments.reason IS 'Why.';

CREATE TABLE model_performance (
    model_id uuid NOT NULL,
    evaluation_date timestamptz NOT NULL,
    symbol text NOT NULL,
    predictions jsonb NOT NULL,
    actual_values jsonb NOT NULL,
    metrics jsonb NOT NULL,
    UNIQUE (model_id, symbol, evaluation_date)
);
COMMENT ON TABLE model_performance IS 'What a model predicted, and what came of it.';
COMMENT ON COLUMN model_performance.model_id IS 'The model version.';
COMMENT ON COLUMN model_performance.evaluation_date IS 'When it was evaluated.';
COMMENT ON COLUMN model_performance.symbol IS 'The instrument.';
COMMENT ON COLUMN model_performance.predictions IS 'Time -> what was predicted.';
COMMENT ON COLUMN model_performance.actual_values IS 'Time -> what happened.';
COMMENT ON COLUMN model_performance.metrics IS 'Name of a score -> its value.';

CREATE TABLE prediction_runs (
    run_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    interval_type text NOT NULL,
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    symbols_requested integer NOT NULL CHECK (symbols_requested >= 0),
    symbols_processed integer NOT NULL DEFAULT 0 CHECK (symbols_processed >= 0),
    signals_generated integer NOT NULL DEFAULT 0 CHECK (signals_generated >= 0),
    execution_time_ms double precision CHECK (execution_time_ms >= 0),
    data_fetch_ms double precision CHECK (data_fetch_ms >= 0),
    indicator_calc_ms double precision CHECK (indicator_calc_ms >= 0),
    signal_generation_ms double precision CHECK (signal_generation_ms >= 0),
    notification_ms double precision CHECK (notification_ms >= 0),
    status text NOT NULL CHECK (status IN ('SUCCESS', 'PARTIAL', 'FAILED')),
    errors text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX prediction_runs_newest ON prediction_runs (started_at DESC);
COMMENT ON TABLE prediction_runs IS 'One row a scheduled run of predictions.';
COMMENT ON COLUMN prediction_runs.run_id IS 'The run.';
COMMENT ON COLUMN prediction_runs.interval_type IS 'The schedule that asked for it: 5m, 1h, daily.';
COMMENT ON COLUMN prediction_runs.started_at IS 'When it began.';
COMMENT ON COLUMN prediction_runs.symbols_requested IS 'How many instruments it was to predict.';
COMMENT ON COLUMN prediction_runs.symbols_processed IS 'How many it did predict.';
COMMENT ON COLUMN prediction_runs.signals_generated IS 'How many signals came of it.';
COMMENT ON COLUMN prediction_runs.execution_time_ms IS 'Milliseconds in all.';
COMMENT ON COLUMN prediction_runs.data_fetch_ms IS 'Milliseconds reading.';
COMMENT ON COLUMN prediction_runs.indicator_calc_ms IS 'Milliseconds computing indicators.';
COMMENT ON COLUMN prediction_runs.signal_generation_ms IS 'Milliseconds deciding signals.';
COMMENT ON COLUMN prediction_runs.notification_ms IS 'Milliseconds notifying.';
COMMENT ON COLUMN prediction_runs.status IS 'SUCCESS, PARTIAL or FAILED.';
COMMENT ON COLUMN prediction_runs.errors IS 'What went wrong, one line each.';

CREATE TABLE generated_signals (
    run_id uuid NOT NULL REFERENCES prediction_runs,
    symbol text NOT NULL,
    signal_type text NOT NULL
        CHECK (signal_type IN ('LONG', 'SHORT', 'EXIT_LONG', 'EXIT_SHORT')),
    ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    entry_price double precision NOT NULL CHECK (entry_price > 0),
    stop_loss double precision CHECK (stop_loss > 0),
    target_price double precision CHECK (target_price > 0),
    confidence double precision NOT NULL CHECK (confidence BETWEEN 0 AND 1),
    signal_strength double precision NOT NULL CHECK (signal_strength BETWEEN 0 AND 1),
    timeframe_alignment double precision NOT NULL CHECK (timeframe_alignment BETWEEN 0 AND 1),
    htf_trend text,
    trading_tf_state text,
    confluence_zones_count integer NOT NULL DEFAULT 0 CHECK (confluence_zones_count >= 0),
    pattern_context jsonb NOT NULL DEFAULT '{}',
    notification_sent boolean NOT NULL DEFAULT false,
    notification_channels text[] NOT NULL DEFAULT '{}',
    notification_ts timestamptz,
    outcome text NOT NULL DEFAULT 'PENDING'
        CHECK (outcome IN ('WIN', 'LOSS', 'NEUTRAL', 'PENDING')),
    actual_high double precision,
    actual_low double precision,
    actual_close double precision,
    pnl_pct double precision,
    UNIQUE (run_id, symbol, signal_type, ts)
);
CREATE INDEX generated_signals_newest ON generated_signals (symbol, ts DESC);
COMMENT ON TABLE generated_signals IS 'What a run advised, with its levels, and what came of it.';
COMMENT ON COLUMN generated_signals.run_id IS 'The run that advised it.';
COMMENT ON COLUMN generated_signals.symbol IS 'The instrument.';
COMMENT ON COLUMN generated_signals.signal_type IS 'LONG, SHORT, EXIT_LONG or EXIT_SHORT.';
COMMENT ON COLUMN generated_signals.ts IS 'When it was advised.';
COMMENT ON COLUMN generated_signals.entry_price IS 'The price to enter at.';
COMMENT ON COLUMN generated_signals.stop_loss IS 'The price that ends it at a loss.';
COMMENT ON COLUMN generated_signals.target_price IS 'The price that ends it at a gain.';
COMMENT ON COLUMN generated_signals.confidence IS '0 to 1.';
COMMENT ON COLUMN generated_signals.signal_strength IS '0 to 1.';
COMMENT ON COLUMN generated_signals.timeframe_alignment IS 'How far the timeframes agree, 0 to 1.';
COMMENT ON COLUMN generated_signals.htf_trend IS 'The trend of the higher timeframe.';
COMMENT ON COLUMN generated_signals.trading_tf_state IS 'The state of the traded timeframe.';
COMMENT ON COLUMN generated_signals.confluence_zones_count IS 'How many zones support it.';
COMMENT ON COLUMN generated_signals.pattern_context IS 'The patterns that were seen.';
COMMENT ON COLUMN generated_signals.notification_sent IS 'Whether anyone was told.';
COMMENT ON COLUMN generated_signals.notification_channels IS 'By which channels.';
COMMENT ON COLUMN generated_signals.notification_ts IS 'When.';
COMMENT ON COLUMN generated_signals.outcome IS 'WIN, LOSS, NEUTRAL, or PENDING until it is known.';
COMMENT ON COLUMN generated_signals.actual_high IS 'The highest price until its end.';
COMMENT ON COLUMN generated_signals.actual_low IS 'The lowest price until its end.';
COMMENT ON COLUMN generated_signals.actual_close IS 'The price at its end.';
COMMENT ON COLUMN generated_signals.pnl_pct IS 'Gain or loss in percent of the entry price.';

CREATE TABLE prediction_metrics (
    metric_type text NOT NULL,
    metric_value double precision NOT NULL,
    aggregation_period text NOT NULL
        CHECK (aggregation_period IN ('hourly', 'daily', 'weekly', 'monthly')),
    ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    metadata jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX prediction_metrics_newest ON prediction_metrics (metric_type, aggregation_period, ts DESC);
COMMENT ON TABLE prediction_metrics IS 'How well and how fast predictions were, a period at a time.';
COMMENT ON COLUMN prediction_metrics.metric_type IS 'latency_p95, throughput_avg, win_rate, accuracy, calibration_error.';
COMMENT ON COLUMN prediction_metrics.metric_value IS 'Its value; milliseconds for latencies, a second for throughput.';
COMMENT ON COLUMN prediction_metrics.aggregation_period IS 'hourly, daily, weekly or monthly.';
COMMENT ON COLUMN prediction_metrics.ts IS 'The end of the period.';
COMMENT ON COLUMN prediction_metrics.metadata IS 'What it was measured over: model, symbols, count.';

CREATE TABLE scheduler_state (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    last_run_timestamp timestamptz,
    next_scheduled_run timestamptz,
    status text NOT NULL DEFAULT 'IDLE' CHECK (status IN ('IDLE', 'RUNNING', 'STOPPED', 'ERROR')),
    current_run_id uuid,
    error_message text
);
COMMENT ON TABLE scheduler_state IS 'Where the scheduler of predictions stands: one row.';
COMMENT ON COLUMN scheduler_state.only_row IS 'Always true: there is one row.';
COMMENT ON COLUMN scheduler_state.last_run_timestamp IS 'When a run last began.';
COMMENT ON COLUMN scheduler_state.next_scheduled_run IS 'When the next is due.';
COMMENT ON COLUMN scheduler_state.status IS 'IDLE, RUNNING, STOPPED or ERROR.';
COMMENT ON COLUMN scheduler_state.current_run_id IS 'The run that runs.';
COMMENT ON COLUMN scheduler_state.error_message IS 'What stopped it, if anything did.';

CREATE TABLE retrain_queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    signal_id uuid,
    reason text NOT NULL,
    inserted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'completed', 'failed')),
    priority smallint NOT NULL DEFAULT 3 CHECK (priority BETWEEN 1 AND 5),
    started_at timestamptz,
    completed_at timestamptz,
    error_message text,
    attempt integer NOT NULL DEFAULT 0 CHECK (attempt >= 0)
);
CREATE INDEX retrain_queue_waiting ON retrain_queue (priority DESC, inserted_at) WHERE status = 'pending';
COMMENT ON TABLE retrain_queue IS 'What asks for a new training, and what came of it.';
COMMENT ON COLUMN retrain_queue.id IS 'The request.';
COMMENT ON COLUMN retrain_queue.signal_id IS 'The signal whose outcome asked; null for drift or degradation.';
COMMENT ON COLUMN retrain_queue.reason IS 'Why.';
COMMENT ON COLUMN retrain_queue.inserted_at IS 'When it was asked.';
COMMENT ON COLUMN retrain_queue.status IS 'pending, processing, completed or failed.';
COMMENT ON COLUMN retrain_queue.priority IS '1 (low) to 5 (high).';
COMMENT ON COLUMN retrain_queue.started_at IS 'When the last attempt began.';
COMMENT ON COLUMN retrain_queue.completed_at IS 'When it ended.';
COMMENT ON COLUMN retrain_queue.error_message IS 'What went wrong, if anything did.';
COMMENT ON COLUMN retrain_queue.attempt IS 'How often it was tried.';

CREATE TABLE drift_results (
    feature_view text NOT NULL,
    feature text NOT NULL,
    ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    method text NOT NULL,
    reference_window tstzrange NOT NULL,
    statistic double precision NOT NULL,
    threshold double precision NOT NULL,
    drifted boolean NOT NULL
);
CREATE INDEX drift_results_newest ON drift_results (feature_view, feature, ts DESC);
COMMENT ON TABLE drift_results IS 'How far a feature has moved from its reference.';
COMMENT ON COLUMN drift_results.feature_view IS 'The feature view.';
COMMENT ON COLUMN drift_results.feature IS 'The feature.';
COMMENT ON COLUMN drift_results.ts IS 'When it was measured.';
COMMENT ON COLUMN drift_results.method IS 'How: psi, ks, wasserstein.';
COMMENT ON COLUMN drift_results.reference_window IS 'The event times that it was compared with.';
COMMENT ON COLUMN drift_results.statistic IS 'The distance.';
COMMENT ON COLUMN drift_results.threshold IS 'From which distance it counts as drift.';
COMMENT ON COLUMN drift_results.drifted IS 'Whether it does.';

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ts timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor text NOT NULL DEFAULT current_user,
    action text NOT NULL,
    object text NOT NULL,
    before jsonb,
    after jsonb
);
CREATE INDEX audit_log_object ON audit_log (object, ts DESC);
COMMENT ON TABLE audit_log IS 'Who changed what. Rows are added, never changed or deleted.';
COMMENT ON COLUMN audit_log.id IS 'The order in which they were written.';
COMMENT ON COLUMN audit_log.ts IS 'When.';
COMMENT ON COLUMN audit_log.actor IS 'Who, or which process.';
COMMENT ON COLUMN audit_log.action IS 'What was done: promote, roll back, lift retention.';
COMMENT ON COLUMN audit_log.object IS 'To what: model/market_direction/3.';
COMMENT ON COLUMN audit_log.before IS 'How it stood.';
COMMENT ON COLUMN audit_log.after IS 'How it stands.';

-- A log that can be rewritten proves nothing.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: its rows are not changed or deleted', TG_TABLE_NAME;
END
$$;
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER model_deployments_append_only BEFORE DELETE OR TRUNCATE ON model_deployments
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
-- To end a deployment is the one change there is.
CREATE TRIGGER model_deployments_only_end BEFORE UPDATE ON model_deployments
FOR EACH ROW WHEN (
    OLD.ended_at IS NOT NULL
    OR (OLD.deployment_id, OLD.model_name, OLD.model_id, OLD.role, OLD.traffic_share, OLD.started_at, OLD.actor, OLD.reason)
        IS DISTINCT FROM
        (NEW.deployment_id, NEW.model_name, NEW.model_id, NEW.role, NEW.traffic_share, NEW.started_at, NEW.actor, NEW.reason)
)
EXECUTE FUNCTION refuse_change();

CREATE VIEW market_data AS
SELECT ts AS time, symbol, o AS open, h AS high, l AS low, c AS close, v AS volume
FROM candles
WHERE tf = '1d';
COMMENT ON VIEW market_data IS 'Daily candles by the names that notebooks use.';
COMMENT ON COLUMN market_data.time IS 'The session''s date at 00:00 UTC: the bar''s open, not when it was known.';
COMMENT ON COLUMN market_data.symbol IS 'The instrument.';
COMMENT ON COLUMN market_data.open IS 'First price, unadjusted.';
COMMENT ON COLUMN market_data.high IS 'Highest price.';
COMMENT ON COLUMN market_data.low IS 'Lowest price.';
COMMENT ON COLUMN market_data.close IS 'Last price.';
COMMENT ON COLUMN market_data.volume IS 'Units traded.';

-- A row of every set as one JSON document: the newest revision of each.
CREATE VIEW feature_store AS
SELECT
    symbol, event_timestamp AS timestamp, 'market_technical' AS set_name,
    to_jsonb(newest) - '{symbol,event_timestamp,recorded_at}'::text[] AS feature_set,
    1 AS version, recorded_at AS created_at
FROM (
    SELECT DISTINCT ON (symbol, event_timestamp) *
    FROM features_market_technical_v1
    ORDER BY symbol, event_timestamp, recorded_at DESC
) AS newest
UNION ALL
SELECT
    user_id || '/' || metric, event_timestamp, 'personal_baseline',
    to_jsonb(newest) - '{user_id,metric,event_timestamp,recorded_at}'::text[],
    1, recorded_at
FROM (
    SELECT DISTINCT ON (user_id, metric, event_timestamp) *
    FROM features_personal_baseline_v1
    ORDER BY user_id, metric, event_timestamp, recorded_at DESC
) AS newest;
COMMENT ON VIEW feature_store IS 'Every feature row as it is served: one JSON document each.';
COMMENT ON COLUMN feature_store.symbol IS 'The entity: a symbol, or user/metric.';
COMMENT ON COLUMN feature_store.timestamp IS 'Available time.';
COMMENT ON COLUMN feature_store.set_name IS 'The feature set.';
COMMENT ON COLUMN feature_store.feature_set IS 'Feature -> value.';
COMMENT ON COLUMN feature_store.version IS 'The set''s version.';
COMMENT ON COLUMN feature_store.created_at IS 'When this revision was recorded.';

CREATE VIEW feature_values AS
SELECT
    feature.key AS feature_name, symbol AS entity_id, timestamp,
    (feature.value #>> '{}')::double precision AS value,
    jsonb_build_object('set', set_name, 'version', version, 'recorded_at', created_at) AS metadata
FROM feature_store
CROSS JOIN LATERAL jsonb_each(feature_set) AS feature;
COMMENT ON VIEW feature_values IS 'Every feature value as it is served: one row each.';
COMMENT ON COLUMN feature_values.feature_name IS 'The feature.';
COMMENT ON COLUMN feature_values.entity_id IS 'The entity: a symbol, or user/metric.';
COMMENT ON COLUMN feature_values.timestamp IS 'Available time.';
COMMENT ON COLUMN feature_values.value IS 'The value; null where there is none.';
COMMENT ON COLUMN feature_values.metadata IS 'Its set, the set''s version, when it was recorded.';

-- The queue makes its own tables when a worker first runs: until then there are no jobs.
CREATE FUNCTION computation_jobs_now() RETURNS TABLE (
    job_id bigint, feature_set text, scope jsonb, status text, priority integer, attempts integer,
    enqueued timestamptz, started timestamptz, finished timestamptz, error text
) LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF to_regclass('procrastinate_jobs') IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY EXECUTE $jobs$
        SELECT
            j.id, coalesce(j.args ->> 'feature_set', j.task_name), j.args, j.status::text,
            j.priority, j.attempts, happened.enqueued, happened.started, happened.finished,
            CASE WHEN j.status = 'failed' THEN 'failed: the log of the worker that ran it says why' END
        FROM procrastinate_jobs AS j
        LEFT JOIN LATERAL (
            SELECT
                min(e.at) FILTER (WHERE e.type IN ('deferred', 'scheduled')) AS enqueued,
                max(e.at) FILTER (WHERE e.type = 'started') AS started,
                max(e.at) FILTER (
                    WHERE e.type IN ('succeeded', 'failed', 'cancelled', 'aborted')) AS finished
            FROM procrastinate_events AS e
            WHERE e.job_id = j.id
        ) AS happened ON true
    $jobs$;
END
$$;
CREATE VIEW computation_jobs AS SELECT * FROM computation_jobs_now();
COMMENT ON VIEW computation_jobs IS 'The jobs of the queue.';
COMMENT ON COLUMN computation_jobs.job_id IS 'The job.';
COMMENT ON COLUMN computation_jobs.feature_set IS 'What it computes, or its task.';
COMMENT ON COLUMN computation_jobs.scope IS 'Its arguments.';
COMMENT ON COLUMN computation_jobs.status IS 'todo, doing, succeeded, failed, cancelled or aborted.';
COMMENT ON COLUMN computation_jobs.priority IS 'Higher runs first.';
COMMENT ON COLUMN computation_jobs.attempts IS 'How often it was tried.';
COMMENT ON COLUMN computation_jobs.enqueued IS 'When it was asked for.';
COMMENT ON COLUMN computation_jobs.started IS 'When the last attempt began.';
COMMENT ON COLUMN computation_jobs.finished IS 'When it ended.';
COMMENT ON COLUMN computation_jobs.error IS 'Where to read what went wrong; null if nothing did.';
