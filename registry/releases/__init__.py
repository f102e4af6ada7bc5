"""What may go into Production and out of it: promotions, rollbacks, and the marks that follow the release log.

Pure rules upon the protocol. Knows no MLflow, and loads no weights.
"""
