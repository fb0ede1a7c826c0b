"""Pure numpy and scipy: no files, no datasets, no models."""
