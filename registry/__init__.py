"""The life of registered versions: what is in Production, how it got there, and whether the evidence holds.

The rules rest on one protocol; MLflow is one folder's business. Knows no flow, no Prefect and no DVC.
"""
