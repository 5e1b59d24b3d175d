"""The offline store: point-in-time reading, latest rows and writing, over PostgreSQL and TimescaleDB."""
