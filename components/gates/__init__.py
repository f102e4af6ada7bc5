"""Whether a candidate may go on: rules as data, a decision with reasons. Records and numbers only.

Knows no model, no store and no clock.
"""
