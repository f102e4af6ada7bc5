"""MLflow, the only place that imports it: the store of versions and runs, its addresses, faults and model flavour.

Keeps what the rules need kept. No rule stands here.
"""
