"""The schema's history. Revisions are four digits in one line; ``store.engine.SCHEMA`` names the newest."""
