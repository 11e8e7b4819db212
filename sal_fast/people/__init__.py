"""The questions to people, the tools by which they answer, and their answers. Nothing here imports torch.

`folder` (a table and an image editor) and `label_studio` have the same two functions. `export(question, out)`
writes what an annotator needs, and `read_answers(path, question)` reads back what they said. `page` is our
own page, which serves a run in a browser.
"""
