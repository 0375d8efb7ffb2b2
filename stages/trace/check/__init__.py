"""What a check of a cut is made of: the two networks, what labels promise, how calls differ."""
