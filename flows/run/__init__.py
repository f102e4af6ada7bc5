"""What the steps of one run share: its job, its bases and adapters, its candidate, and who is asked on the test rows.

Knows no Prefect and no order of steps.
"""
