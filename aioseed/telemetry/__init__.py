"""Count what a run does: the ledger of steps, counters, quantiles, episode returns, and where figures are written."""
