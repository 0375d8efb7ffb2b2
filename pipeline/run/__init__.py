"""How a run goes: stages, freshness, commits, rounds."""
