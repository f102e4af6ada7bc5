"""What one machine keeps running: schedules, a worker, the pages of Prefect and MLflow, or a server for one command.

Starts, watches and ends processes. What runs inside of them is not known here.
"""
