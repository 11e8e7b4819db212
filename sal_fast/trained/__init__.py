"""A trained model in use: its folder and card, as an object, and what the commands do with it.

`metadata.py` says what a weights file tells of its model, `folder.py` keeps the folder RUN/model, and
`card.py` writes the model card in it. `model.py` makes a `SalModel` of a folder. `predict.py`, `explain.py`,
`export.py` and `evaluate.py` use one. `named.py` and `pictures.py` read images, and `blocks.py` goes through
them.
"""
