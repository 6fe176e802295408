"""Timings; run from a clone, never as tests."""
