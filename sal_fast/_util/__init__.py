"""Small tools that know nothing of the experiment: files, locks, memory, progress, suggestions."""
