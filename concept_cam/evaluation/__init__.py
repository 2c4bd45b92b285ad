"""Measures methods against known answers: data sets, metrics, tables with intervals, and the search for good settings."""
