"""What a network's widths are, how they are cut, and what they cost."""
