"""Benchmarks, which run from a clone and never as tests."""
