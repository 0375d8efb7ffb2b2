"""How things run: artefacts, configs, models, data and the terminal. Imports no stage."""
