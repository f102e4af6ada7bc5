"""The methods that train an adapter, prompt and prefix tuning, one small file each behind one protocol.

Each ends in a KVPrefix. Knows nothing of steps, losses and rows.
"""
