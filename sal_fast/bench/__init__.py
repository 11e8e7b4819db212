"""What the parts of a run cost here, against what one would otherwise write: `sal-fast bench`."""
