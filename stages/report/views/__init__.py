"""From the artefacts of a run to the sentences, rows and plots that the page shows."""
