# ---
# jupyter:
#   jupytext:
#     formats: py:percent
# ---
# ruff: noqa: D100, T201

# %% [markdown]
# # Tomorrow's glucose
#
# A model on a person's own baseline, from raw readings to a score that can be believed. It runs on whichever
# servers hyperfeast uses; the readings are 200 days of a real sensor that come with `bokeh-sampledata`.

# %%
import polars as pl

from hyperfeast.app import App
from hyperfeast.demo import data
from hyperfeast.features import table
from hyperfeast.ingest import Metrics, read_file
from hyperfeast.migrate import migrate

app = App()
migrate(app.database)

# %% [markdown]
# ## Readings
# Rows that break a rule go to quarantine; the same file again adds nothing.

# %%
taken_in = app.ingest(
    [read_file(data.glucose())],
    Metrics(
        source=data.SOURCE,
        user=data.USER,
        metric=data.METRIC,
        device=data.DEVICE,
        columns={"value": "glucose", "ts": "datetime"},
    ),
)
print(f"{taken_in.rows_in:,} readings, {taken_in.inserted:,} of them new")

# %% [markdown]
# ## Each day against its own 30 days
# `z_score` counts in deviations of single readings, `day_z_score` in deviations of the days' means. Readings
# scatter far more than days do, so hardly a day is odd by the first.

# %%
personal_baseline = app.repo.feature_set("personal_baseline")
app.compute_features("personal_baseline")
days = (
    table.newest(app.database, personal_baseline)
    .filter(user_id=data.USER, metric=data.METRIC, day_hours=24.0)
    .sort("event_timestamp")
)
odd = days.select((pl.col("z_score", "day_z_score").abs() > 1).mean())
print(
    f"{days.height} days; odd by readings {odd['z_score'][0]:.0%}, by days {odd['day_z_score'][0]:.0%}"
)

# %% [markdown]
# ## Walk forward
# Each fold's model knows only labels that had ended before its test period began.

# %%
app.feast.apply()
result = app.train("glucose_deviation")
for fold in result.metrics["folds"]:
    print(
        f"trained on {fold['train_rows']:3} days, tested {fold['test_first'][:10]} to {fold['test_last'][:10]}"
    )

# %% [markdown]
# ## The score, beside what needs no model
# Persistence says of tomorrow what was so today; the base rate says what was more frequent.

# %%
scores = pl.DataFrame([{"": name, **one} for name, one in result.metrics["pooled"].items()])
print(scores)

# %% [markdown]
# The model is no better than the base rate, and its log loss is worse: 195 days of one person do not tell
# tomorrow. More people would be the next thing to try, and the same two lines would say whether it helped.

# %%
app.close()
