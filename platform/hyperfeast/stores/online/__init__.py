"""The online store: Feast's wire format on Redis, encoded, written and read in bulk."""
