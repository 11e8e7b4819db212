"""Small helpers that know nothing of the experiment: files, locks, memory, progress, suggestions."""
