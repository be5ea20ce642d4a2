"""Metrics: running tasks, failures, and the state of pumps, for exporters.

What can be read is read when an exporter asks; what can't is counted where it happens, which is
rare (`_util/counts.py`). A request that has no failure pays nothing.
"""
