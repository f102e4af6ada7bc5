"""Rows become prepared data: examples with ids, splits and limits, their wording, and a report of every row.

The same inputs give the same bytes. Knows no model and no training.
"""
