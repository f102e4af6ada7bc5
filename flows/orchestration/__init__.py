"""Prefect's own matters: its server, deployments, events, limits, logs, and what becomes of runs that were killed.

Knows which flow is deployed, and nothing of what happens in it.
"""
