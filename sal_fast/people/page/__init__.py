"""The page on which people label a run in a browser (`sal-fast label`).

`desk` knows who has which picture, and keeps answers. `first` asks for the classes and maps of the images
that a run is tested on, if none has a class yet. `program` runs the rounds in a process of its own. `session`
goes from query to query, and `server` speaks HTTP. `static` is the page itself.

Nothing here imports torch, because that takes longer than a person likes to wait.
"""
