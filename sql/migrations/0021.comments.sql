-- depends: 0018.lifecycle

-- What every column says, where its own migration does not.

COMMENT ON COLUMN instruments.symbol IS 'What the instrument is called here.';
COMMENT ON COLUMN instruments.asset_class IS 'equity, crypto, future, fx; null if nobody said.';
COMMENT ON COLUMN instruments.currency IS 'ISO 4217 code of its prices.';
COMMENT ON COLUMN instruments.listed_at IS 'Its first session; null if unknown.';
COMMENT ON COLUMN instruments.delisted_at IS 'Its last session; null while it trades.';
COMMENT ON COLUMN instruments.metadata IS 'Whatever else is known of it.';

COMMENT ON COLUMN corporate_actions.symbol IS 'The instrument.';
COMMENT ON COLUMN corporate_actions.kind IS 'split, dividend, rename or delisting.';
COMMENT ON COLUMN corporate_actions.amount IS 'Money a share, in the instrument''s currency: of a dividend.';
COMMENT ON COLUMN corporate_actions.source IS 'Where it comes from.';

COMMENT ON COLUMN candles.symbol IS 'The instrument.';
COMMENT ON COLUMN candles.tf IS 'The bar''s width: 1m 5m 15m 1h 4h 1d 1w.';
COMMENT ON COLUMN candles.o IS 'First price, unadjusted.';
COMMENT ON COLUMN candles.h IS 'Highest price.';
COMMENT ON COLUMN candles.l IS 'Lowest price.';
COMMENT ON COLUMN candles.c IS 'Last price.';
COMMENT ON COLUMN candles.v IS 'Units traded.';
COMMENT ON COLUMN candles.vwap IS 'Volume-weighted mean price, where the source has it.';
COMMENT ON COLUMN candles.taker_buy_vol IS 'Units that buyers took, where the source has it.';
COMMENT ON COLUMN candles.source IS 'Where this revision comes from.';
COMMENT ON COLUMN candles.features IS 'Values that a notebook keeps beside the bar; a correction clears them.';

COMMENT ON COLUMN candle_revisions.symbol IS 'The instrument.';
COMMENT ON COLUMN candle_revisions.tf IS 'The bar''s width.';
COMMENT ON COLUMN candle_revisions.ts IS 'The bar''s open, UTC.';
COMMENT ON COLUMN candle_revisions.o IS 'First price.';
COMMENT ON COLUMN candle_revisions.h IS 'Highest price.';
COMMENT ON COLUMN candle_revisions.l IS 'Lowest price.';
COMMENT ON COLUMN candle_revisions.c IS 'Last price.';
COMMENT ON COLUMN candle_revisions.v IS 'Units traded.';
COMMENT ON COLUMN candle_revisions.vwap IS 'Volume-weighted mean price.';
COMMENT ON COLUMN candle_revisions.taker_buy_vol IS 'Units that buyers took.';
COMMENT ON COLUMN candle_revisions.source IS 'Where the replaced revision came from.';
COMMENT ON COLUMN candle_revisions.recorded_at IS 'When this database learned of the replaced revision.';
COMMENT ON COLUMN candle_revisions.replaced_at IS 'When another took its place.';
COMMENT ON COLUMN candle_revisions.reason IS 'Why it was replaced.';

COMMENT ON COLUMN ingest_batches.batch_id IS 'The batch.';
COMMENT ON COLUMN ingest_batches.source IS 'Where its rows come from.';
COMMENT ON COLUMN ingest_batches.symbol IS 'The instrument, of a batch of one.';
COMMENT ON COLUMN ingest_batches.tf IS 'The bars'' width; null for other rows.';
COMMENT ON COLUMN ingest_batches.range IS 'The event times of its good rows.';
COMMENT ON COLUMN ingest_batches.inserted IS 'Rows whose key was new.';
COMMENT ON COLUMN ingest_batches.corrected IS 'Rows that replaced other values.';
COMMENT ON COLUMN ingest_batches.unchanged IS 'Rows that were there already, or twice in the batch.';
COMMENT ON COLUMN ingest_batches.quarantined IS 'Rows refused.';
COMMENT ON COLUMN ingest_batches.status IS 'RUNNING, COMPLETED or FAILED.';
COMMENT ON COLUMN ingest_batches.started_at IS 'When it began.';
COMMENT ON COLUMN ingest_batches.finished_at IS 'When it ended.';
COMMENT ON COLUMN ingest_batches.error IS 'What went wrong, if anything did.';
COMMENT ON COLUMN ingest_batches.idempotency_key IS 'The sender''s name for it: the same name again has no second effect.';

COMMENT ON COLUMN quarantine.batch_id IS 'The batch that it came with.';
COMMENT ON COLUMN quarantine.rule IS 'The first rule that it broke.';
COMMENT ON COLUMN quarantine.row IS 'The row as it came.';
COMMENT ON COLUMN quarantine.recorded_at IS 'When it was refused.';

COMMENT ON COLUMN user_baseline_raw.user_id IS 'The user.';
COMMENT ON COLUMN user_baseline_raw.metric IS 'What is measured: glucose, heart_rate.';
COMMENT ON COLUMN user_baseline_raw.value IS 'The reading, in the metric''s unit.';
COMMENT ON COLUMN user_baseline_raw.ts IS 'When it was taken, UTC.';
COMMENT ON COLUMN user_baseline_raw.recorded_at IS 'When this database learned of this value.';

COMMENT ON COLUMN features_market_technical_v1.symbol IS 'The instrument.';
COMMENT ON COLUMN features_market_technical_v1.recorded_at IS 'When this revision was written: the newest is served.';
COMMENT ON COLUMN features_market_technical_v1.ema_12 IS 'Exponential moving average, 12 sessions; price.';
COMMENT ON COLUMN features_market_technical_v1.ema_26 IS 'Exponential moving average, 26 sessions; price.';
COMMENT ON COLUMN features_market_technical_v1.ema_50 IS 'Exponential moving average, 50 sessions; price.';
COMMENT ON COLUMN features_market_technical_v1.rsi_14 IS 'Relative strength index, 14 sessions; 0 to 100.';
COMMENT ON COLUMN features_market_technical_v1.macd IS 'EMA 12 less EMA 26; price.';
COMMENT ON COLUMN features_market_technical_v1.macd_signal IS 'EMA 9 of the MACD line; price.';
COMMENT ON COLUMN features_market_technical_v1.macd_histogram IS 'MACD less its signal; price.';
COMMENT ON COLUMN features_market_technical_v1.bollinger_upper IS '20-session mean + 2 deviations; price.';
COMMENT ON COLUMN features_market_technical_v1.bollinger_middle IS '20-session mean; price.';
COMMENT ON COLUMN features_market_technical_v1.bollinger_lower IS '20-session mean - 2 deviations; price.';
COMMENT ON COLUMN features_market_technical_v1.bollinger_percent_b IS 'Close between the bands; 0 lower, 1 upper.';
COMMENT ON COLUMN features_market_technical_v1.bollinger_width IS 'Distance of the bands over the mean; ratio.';
COMMENT ON COLUMN features_market_technical_v1.atr_14 IS 'Average true range, 14 sessions; price.';
COMMENT ON COLUMN features_market_technical_v1.log_return_1 IS 'Log return over 1 session.';
COMMENT ON COLUMN features_market_technical_v1.log_return_5 IS 'Log return over 5 sessions.';
COMMENT ON COLUMN features_market_technical_v1.log_return_20 IS 'Log return over 20 sessions.';
COMMENT ON COLUMN features_market_technical_v1.realized_volatility_20 IS 'Deviation of 20 daily log returns; a year.';
COMMENT ON COLUMN features_market_technical_v1.volume_z_score_20 IS 'Volume against its last 20 sessions; deviations.';
COMMENT ON COLUMN features_market_technical_v1.distance_to_52w_high IS 'Close over the 252-session high, less 1.';

COMMENT ON COLUMN features_personal_baseline_v1.user_id IS 'The user.';
COMMENT ON COLUMN features_personal_baseline_v1.metric IS 'What is measured.';
COMMENT ON COLUMN features_personal_baseline_v1.recorded_at IS 'When this revision was written: the newest is served.';
COMMENT ON COLUMN features_personal_baseline_v1.day_mean IS 'Mean of the day''s readings; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.mean_30d IS 'Mean of the readings of the 30 days before; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.std_30d IS 'Sample deviation of the same readings; the metric''s unit.';
COMMENT ON COLUMN features_personal_baseline_v1.n_30d IS 'Number of the same readings.';
COMMENT ON COLUMN features_personal_baseline_v1.days_present_30d IS 'Days out of 30 with readings.';
COMMENT ON COLUMN features_personal_baseline_v1.z_score IS 'Day''s mean less mean_30d, in std_30d. Null without a baseline.';

COMMENT ON COLUMN training_runs.run_id IS 'The run.';
COMMENT ON COLUMN training_runs.model_name IS 'The declared model.';
COMMENT ON COLUMN training_runs.start_time IS 'When it began.';
COMMENT ON COLUMN training_runs.end_time IS 'When it ended.';
COMMENT ON COLUMN training_runs.status IS 'RUNNING, COMPLETED or FAILED.';
COMMENT ON COLUMN training_runs.data_range IS 'The dates that its rows span.';
COMMENT ON COLUMN training_runs.symbols IS 'The instruments that it learned from.';
COMMENT ON COLUMN training_runs.total_samples IS 'How many rows it learned from.';
COMMENT ON COLUMN training_runs.training_params IS 'Everything that was set.';
COMMENT ON COLUMN training_runs.metrics IS 'Name of a score -> its value, out of sample.';
COMMENT ON COLUMN training_runs.feature_service IS 'The feature service that its rows come from.';
COMMENT ON COLUMN training_runs.definition_hashes IS 'Feature set -> SHA-256 of its definition.';
COMMENT ON COLUMN training_runs.git_commit IS 'The commit of the feature repository.';
COMMENT ON COLUMN training_runs.random_seed IS 'The seed of everything random.';
COMMENT ON COLUMN training_runs.as_known_at IS 'The rows were read as known at this moment.';
COMMENT ON COLUMN training_runs.error_log IS 'What went wrong, if anything did.';
COMMENT ON COLUMN training_runs.created_by IS 'Who ran it.';

COMMENT ON COLUMN model_registry.model_id IS 'The version.';
COMMENT ON COLUMN model_registry.model_name IS 'The declared model.';
COMMENT ON COLUMN model_registry.model_type IS 'xgboost.';
COMMENT ON COLUMN model_registry.version IS 'From 1, in each name.';
COMMENT ON COLUMN model_registry.training_date IS 'When it was trained.';
COMMENT ON COLUMN model_registry.metrics IS 'Name of a score -> its value, out of sample.';
COMMENT ON COLUMN model_registry.hyperparameters IS 'The parameters of the trees.';
COMMENT ON COLUMN model_registry.feature_columns IS 'The model''s inputs, in order.';
COMMENT ON COLUMN model_registry.feature_service IS 'The feature service that serves them.';
COMMENT ON COLUMN model_registry.artifact_path IS 'The model''s file, under the root of artifacts.';
COMMENT ON COLUMN model_registry.artifact_sha256 IS 'SHA-256 of the file.';
COMMENT ON COLUMN model_registry.run_id IS 'The training that made it.';
COMMENT ON COLUMN model_registry.is_active IS 'Whether it is its name''s champion.';
COMMENT ON COLUMN model_registry.created_at IS 'When it was registered.';

COMMENT ON COLUMN signals.id IS 'The answer.';
COMMENT ON COLUMN signals.label IS 'BUY, SELL or HOLD.';
COMMENT ON COLUMN signals.pred IS 'The model''s raw output.';
COMMENT ON COLUMN signals.proba IS 'Probability of a rise, 0 to 1.';
COMMENT ON COLUMN signals.symbol IS 'The instrument.';
COMMENT ON COLUMN signals.tf IS 'The width of the bars that it is about.';
COMMENT ON COLUMN signals.model_id IS 'The model version that answered.';
COMMENT ON COLUMN signals.request_id IS 'The request that it answers.';
COMMENT ON COLUMN signals.outcome IS 'What came of it; null until it is known.';
COMMENT ON COLUMN signals.realized_rr IS 'Realized reward over risk; null until it is known.';
COMMENT ON COLUMN signals.latency_ms IS 'Milliseconds to answer the request.';

COMMENT ON COLUMN user_baseline_daily.user_id IS 'The user.';
COMMENT ON COLUMN user_baseline_daily.metric IS 'What is measured.';
COMMENT ON COLUMN user_baseline_daily.source IS 'The device.';
COMMENT ON COLUMN user_baseline_daily.n IS 'Number of readings.';
COMMENT ON COLUMN user_baseline_daily.sum IS 'Sum of the readings, in the order of their times.';
COMMENT ON COLUMN user_baseline_daily.sum_of_squares IS 'Sum of their squares, in the same order.';
COMMENT ON COLUMN user_baseline_daily.min IS 'Least reading.';
COMMENT ON COLUMN user_baseline_daily.max IS 'Greatest reading.';

COMMENT ON COLUMN user_baseline_30d.user_id IS 'The user.';
COMMENT ON COLUMN user_baseline_30d.metric IS 'What is measured.';
COMMENT ON COLUMN user_baseline_30d.source IS 'The device: a segment of its own.';
COMMENT ON COLUMN user_baseline_30d.mean IS 'Mean of the window''s readings.';
COMMENT ON COLUMN user_baseline_30d.std IS 'Their sample deviation; null of fewer than two.';
COMMENT ON COLUMN user_baseline_30d.n IS 'Number of readings.';
COMMENT ON COLUMN user_baseline_30d.days_present IS 'Days out of 30 with readings.';
