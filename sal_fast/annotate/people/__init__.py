"""A query that people answer: the question that is put to them, and the tools that carry their answers.

`folder` (a table and an image editor) and `label_studio` have the same two functions. `export(question, out)`
writes what an annotator needs, and `read_answers(path, question)` reads back what they said.
"""
