"""What comes back for a query: labels, and maps by whoever's turn it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sal_fast import annotate
from sal_fast.annotate import Generator
from sal_fast.data.masks import Masks
from sal_fast.data.store import Store
from sal_fast.distributed import Ranks
from sal_fast.errors import InputError
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.labelled import MACHINE, NOBODY, PEOPLE, Labelled, answered
from sal_fast.experiment.networks import load_kept, new_model, teacher_arch
from sal_fast.experiment.people import Answers, Waiting, map_in_frame, tally
from sal_fast.experiment.regimes import GENERATED, REGIMES, Source
from sal_fast.experiment.run_folder import RunFolder
from sal_fast.models import Classifier


class Answering:
    """Answers queries in their order: whose turn it is follows from how the ones before went.

    Every rank takes every step; the first alone reads and writes files, and tells the others.

    skipped: rows that people would not label; trials: by query, how well a model foresaw what people drew
    (`budget.takes_over`). `store.labels` takes the classes that people give.
    """

    def __init__(
        self,
        config: Config,
        store: Store,
        plan: Plan,
        folder: RunFolder,
        loss_size: tuple[int, int],
        segmented: Masks | None,
        generator: Generator | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.store, self.plan, self.folder = config, store, plan, folder
        self.loss_size, self.ranks = loss_size, ranks
        self.segmented = segmented  # a mask for every row of the pool
        self.generator = generator  # what --generator names
        self.regime = REGIMES[config.regime]
        self.pool = store.rows("train")
        self.skipped = self.pool[:0]
        self.trials: list[float | None] = []

    def source(self, number: int) -> Source:
        """Who draws the maps of query `number` (0 is the start set)."""
        return self.regime.source(self.plan.asks_people(number, self.trials), self.config.generator)

    def drawer(self, number: int) -> Source:
        """The model that draws for query `number`, be it on trial beside people; none where none does."""
        source = self.source(number)
        if self.plan.auto and source == "human" and number:
            source = self.regime.drawer(self.config.generator)
        return source if source in GENERATED else "none"

    def answer(self, number: int, rows: Tensor, model: Classifier | None, aside: Path | None) -> Labelled:
        """The labelled images of query `number`; `model` draws their maps, if one does.

        `aside`: the folder of a round that is not finished yet. Raises Waiting for people who have not
        answered.
        """
        folder, source = aside or self.folder.asked(number), self.source(number)
        if self.config.annotator == "people":
            rows = self._labelled_by_people(number, rows)
        foreseen = None
        if source == "human" and self.drawer(number) != "none":
            foreseen = self._drawn(number, rows, model, folder / "predicted")
        if source == "human":
            answer = self._by_people(number, rows)
        elif source == "segmenter":
            assert self.segmented is not None
            answer = self._by_machine(rows, self.segmented[torch.searchsorted(self.pool, rows)])
        elif source in GENERATED:
            answer = self._by_machine(rows, Masks.pack(self._drawn(number, rows, model, folder / "maps")))
        else:
            none = torch.zeros_like(rows, dtype=torch.bool)
            empty = Masks.empty(len(rows), self.store.image_size, self.store.device)
            answer = answered(rows, empty, none, NOBODY, self.loss_size)
        self.trials.append(None if foreseen is None else _agreement(foreseen, answer))
        return answer

    def tally(self, number: int) -> dict[str, Any]:
        """What people have done up to query `number`."""
        return tally(Answers(self.folder.asked(one)) for one in range(number + 1))

    # --- a machine's maps --------------------------------------------------------------------------------

    def _by_machine(self, rows: Tensor, maps: Masks) -> Labelled:
        return answered(rows, maps, torch.ones_like(rows, dtype=torch.bool), MACHINE, self.loss_size)

    def _drawn(self, number: int, rows: Tensor, model: Classifier | None, folder: Path) -> Tensor:
        """The maps that the query's drawer makes, uint8 [k, F, F]: once, kept as `folder`/<id>.png.

        Where people answered in between, the round's model is read from its file.
        """
        size, drawer = self.store.image_size, self.drawer(number)
        maps = torch.empty(len(rows), size, size, dtype=torch.uint8, device=self.store.device)
        if self.ranks.number(self.ranks.first and folder.is_dir()):
            return self.ranks.of_first(lambda: annotate.read(folder, self._ids(rows), size), maps)
        if drawer == "callable":
            generator = self.generator
            assert generator is not None
            maps = self.ranks.of_first(lambda: annotate.drawn(generator, self.store, rows), maps)
        else:
            probe, cam_class = self.config.probe, self.config.cam_class
            model = model or self._kept_model(number, drawer)
            maps = annotate.generate(model, self.store, rows, probe, self.ranks, cam_class)
        if self.ranks.first:
            annotate.write(folder, self._ids(rows), maps)
        return maps

    def _kept_model(self, number: int, drawer: Source) -> Classifier:
        """The model that the round before query `number` left for it."""
        arch, path = self.config.arch, self.folder.asked(number) / f"{drawer}.safetensors"
        if drawer == "teacher":
            arch, path = teacher_arch(self.config), self.folder.teacher
        model = new_model(self.config, len(self.store.table.classes), drawer == "teacher")
        model.to(self.store.device)
        load_kept(model, arch, path, self.ranks)
        return model

    # --- people's labels and maps ------------------------------------------------------------------------

    def _labelled_by_people(self, number: int, rows: Tensor) -> Tensor:
        """Take over the classes that people gave; the rows that they labelled, the others are skipped."""
        waiting = int(self.ranks.of_first(lambda: self._open(number, rows), rows.new_empty(1)))
        if waiting:
            raise Waiting(self.folder.path, number, len(rows) - waiting, len(rows))
        labels = self.ranks.of_first(lambda: self._classes(number, rows), torch.empty_like(rows))
        known, least = int((labels >= 0).sum()), min(2, len(rows))
        if number == 0 and known < least:
            raise InputError(
                f"{self.folder.path}: {known} images of the start set have a class, the others were skipped, "
                f"and training needs {least} at least; import classes for some that were skipped"
            )
        self.store.labels[rows] = labels
        self.skipped = torch.cat((self.skipped, rows[labels < 0]))
        return rows[labels >= 0]

    def _open(self, number: int, rows: Tensor) -> Tensor:
        return torch.tensor([len(Answers(self.folder.asked(number)).open(self._ids(rows)))])

    def _classes(self, number: int, rows: Tensor) -> Tensor:
        """Numbers of the classes; -1 where all skipped the image."""
        there = Answers(self.folder.asked(number))
        given, classes = there.verdicts(), self.store.table.classes
        found = [given[name].label for name in self._ids(rows)]
        unknown = [label for label in found if label is not None and label not in classes]
        if unknown:
            raise InputError(f"{there.folder / 'answers.json'}: {unknown[0]!r} is no class; restore it")
        return torch.tensor([-1 if label is None else classes.index(label) for label in found])

    def _by_people(self, number: int, rows: Tensor) -> Labelled:
        if self.config.annotator == "data":
            maps, has_map = annotate.human(self.store, rows)
        else:
            size = self.store.image_size
            drawn = torch.empty(len(rows), size, size, dtype=torch.uint8, device=rows.device)
            maps = Masks.pack(self.ranks.of_first(lambda: self._maps(number, rows), drawn))
            has_map = self.ranks.of_first(
                lambda: self._has_map(number, rows), rows.new_empty(len(rows)).bool()
            )
        return answered(rows, maps, has_map, PEOPLE, self.loss_size)

    def _maps(self, number: int, rows: Tensor) -> Tensor:
        """uint8 [k, F, F]; zeros where nobody drew one."""
        size = self.store.image_size
        maps = torch.zeros(len(rows), size, size, dtype=torch.uint8)
        given = Answers(self.folder.asked(number)).verdicts()
        for i, (row, name) in enumerate(zip(rows.tolist(), self._ids(rows), strict=True)):
            if given[name].masks:
                image = self.store.table.images[row]
                maps[i] = torch.from_numpy(map_in_frame(given[name].masks, image, size))
        return maps

    def _has_map(self, number: int, rows: Tensor) -> Tensor:
        given = Answers(self.folder.asked(number)).verdicts()
        return torch.tensor([bool(given[name].masks) for name in self._ids(rows)], dtype=torch.bool)

    def _ids(self, rows: Tensor) -> list[str]:
        return [self.store.table.ids[row] for row in rows.tolist()]


def _agreement(foreseen: Tensor, answer: Labelled) -> float | None:
    """Mean Dice, 2 |A and B| / (|A| + |B|), of predicted maps and those people drew; None without any."""
    drawn = answer.maps.unpack(torch.arange(len(answer), device=foreseen.device)) > 127
    known = (answer.drawn_by == PEOPLE) & drawn.any((-2, -1))
    if not bool(known.any()):
        return None
    a, b = (foreseen > 127)[known], drawn[known]
    both = (a & b).sum((-2, -1)).double()
    return float((2 * both / (a.sum((-2, -1)) + b.sum((-2, -1)))).mean())
