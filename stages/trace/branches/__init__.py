"""Residual branches that may go altogether: found in the recorded calls, then tried."""
