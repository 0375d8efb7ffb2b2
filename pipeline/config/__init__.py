"""Settings: what there is, and how a YAML file becomes them."""
