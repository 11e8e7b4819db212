"""The answer to a query: labels, and maps from the query's map source."""

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
from sal_fast.experiment.answers import controls, people
from sal_fast.experiment.answers.labelled import MACHINE, NOBODY, PEOPLE, Labelled, answered
from sal_fast.experiment.answers.people import Waiting, map_in_frame
from sal_fast.experiment.answers.turns import Turns
from sal_fast.experiment.budget import Plan
from sal_fast.experiment.config import Config
from sal_fast.experiment.networks import load_kept, new_model, teacher_arch
from sal_fast.experiment.record import RunFolder
from sal_fast.experiment.regimes import GENERATED, Source
from sal_fast.models import Classifier
from sal_fast.people.answers import Answers
from sal_fast.people.entry import entry

SEVERAL = 5  # maps that people left empty tell that a class has nothing to show


class Answering:
    """Answers the queries of a run.

    Queries have to come in order, because earlier answers may decide who draws the maps of later ones. Every
    rank takes every step. The first alone reads and writes files, and tells the others. The classes that
    people give are written to `store.labels`.

    teacher_store: what the teacher sees; the store itself, unless features of each are kept.
    loss_size: the resolution at which maps are compared.
    segmented: a segmenter's mask for every row of the pool, or None.
    generator: the function that the run names, or None.
    skipped: the rows that people did not want to label.
    own: the rows whose masks in the data are taken as people's maps, bool [N].
    trials: for each query, how well a model foresaw the maps that people drew (`budget.takes_over`).
    """

    def __init__(
        self,
        config: Config,
        plan: Plan,
        store: Store,
        teacher_store: Store,
        folder: RunFolder,
        loss_size: tuple[int, int],
        segmented: Masks | None,
        generator: Generator | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.store, self.folder = config, store, folder
        self.teacher_store, self.loss_size, self.ranks = teacher_store, loss_size, ranks
        self.segmented, self.generator = segmented, generator
        self.pool = store.rows("train")
        self.plan, self.turns = plan, Turns.of(config, plan)
        self.skipped = self.pool[:0]
        self.own = store.has_mask & config.uses_own_masks
        self.trials: list[float | None] = []
        # the maps that people drew of each class, and those of them that are not empty
        self._human_maps = torch.zeros(2, len(store.table.classes), dtype=torch.int64, device=store.device)

    def drawer(self, query_index: int) -> Source:
        """The machine that draws for a query, perhaps on trial beside people; `none` if no machine does."""
        return self.turns.drawer(query_index, self.trials)

    def drawer_after(self, round_index: int) -> Source:
        """The machine that draws for the query after a round; `none` after the last round."""
        return self.turns.drawer_after(round_index, self.trials)

    def answer(
        self, query_index: int, rows: Tensor, model: Classifier | None, aside: Path | None
    ) -> Labelled:
        """Answer a query: its labelled images with their maps.

        Args:
            rows: int64, the images of the query.
            model: the model that draws the maps. None: no model draws, or its weights are read from the
                folder.
            aside: the folder of the round, if it is not finished yet.

        Raises Waiting if people have not answered yet.
        """
        folder, source = aside or self.folder.asked(query_index), self.turns.source(query_index, self.trials)
        if self.config.annotator == "people":
            rows = self._labelled_by_people(query_index, rows, folder, source == "human")
        foreseen = None
        if source == "human" and self.drawer(query_index) != "none":
            foreseen = self._drawn(query_index, rows, model, folder / "predicted")
        if source == "human":
            answer = self._by_people(query_index, rows)
            self._count(answer)
        elif source == "segmenter":
            assert self.segmented is not None
            answer = self._by_machine(rows, self.segmented[torch.searchsorted(self.pool, rows)], rows >= 0)
        elif source in GENERATED:
            maps = Masks.pack(self._drawn(query_index, rows, model, folder / "maps"))
            answer = self._by_machine(rows, maps, ~self._shows_nothing()[self.store.labels[rows]])
        else:
            none = torch.zeros_like(rows, dtype=torch.bool)
            empty = Masks.empty(len(rows), self.store.image_size, self.store.device)
            answer = answered(rows, empty, none, NOBODY, self.loss_size)
        self.trials.append(None if foreseen is None else _agreement(foreseen, answer))
        return answer

    def tally(self, query_index: int) -> dict[str, Any]:
        """Counts, times and agreement of the people who answered the queries up to this one."""
        numbers = range(query_index + 1)
        without_maps = (one for one in numbers[1:] if self.turns.source(one, self.trials) != "human")
        return entry([Answers(self.folder.asked(one)) for one in numbers], next(without_maps, None))

    # --- a machine's maps --------------------------------------------------------------------------------

    def _by_machine(self, rows: Tensor, maps: Masks, used: Tensor) -> Labelled:
        return answered(rows, maps, used, MACHINE, self.loss_size)

    def _count(self, answer: Labelled) -> None:
        """Count people's maps by class."""
        labels = self.store.labels[answer.rows]
        for number, counted in enumerate((answer.drawn_by == PEOPLE, answer.says_where)):
            self._human_maps[number] += labels[counted].bincount(minlength=self._human_maps.shape[1])

    def _shows_nothing(self) -> Tensor:
        """The classes of which people drew several maps and left all of them empty, bool [K].

        Such a class is "free of defects", or "no lesion". Every map that a model draws has a foreground, so
        its maps of such a class would be wrong, and are not used.
        """
        drawn, useful = self._human_maps
        return (drawn >= SEVERAL) & (useful == 0)

    def _drawn(self, query_index: int, rows: Tensor, model: Classifier | None, folder: Path) -> Tensor:
        """The maps that a machine draws for a query, uint8 [k, F, F]. They are made once, and kept as PNG.

        Without `model`, it is read from its file: the run waited for people in between.
        """
        size, drawer = self.store.image_size, self.drawer(query_index)
        maps = torch.empty(len(rows), size, size, dtype=torch.uint8, device=self.store.device)
        if self.ranks.number(self.ranks.first and folder.is_dir()):
            return self.ranks.of_first(lambda: annotate.read_maps(folder, self._ids(rows), size), maps)
        if drawer == "callable":
            generator = self.generator
            assert generator is not None
            maps = self.ranks.of_first(lambda: annotate.draw_maps(generator, self.store, rows), maps)
        else:
            probe, cam_class = self.config.probe, self.config.cam_class
            model = model or self._kept_model(query_index, drawer)
            store = self.teacher_store if drawer == "teacher" else self.store
            maps = annotate.generate(model, store, rows, probe, self.ranks, cam_class)
        if self.ranks.first:
            annotate.write_maps(folder, self._ids(rows), maps)
        return maps

    def _kept_model(self, query_index: int, drawer: Source) -> Classifier:
        """The model that draws for a query, from the weights that the round before it kept."""
        arch, path = self.config.arch, self.folder.asked(query_index) / f"{drawer}.safetensors"
        if drawer == "teacher":
            arch, path = teacher_arch(self.config), self.folder.teacher
        model = new_model(self.config, len(self.store.table.classes), drawer == "teacher")
        model.to(self.store.device)
        load_kept(model, arch, path, self.ranks)
        return model

    # --- people's labels and maps ------------------------------------------------------------------------

    def _labelled_by_people(self, query_index: int, rows: Tensor, folder: Path, maps: bool) -> Tensor:
        """Store the classes that people gave. Returns the rows with a class; the others count as skipped.

        Raises Waiting if answers are missing; the question is then in `folder`. Raises InputError if too few
        images of the start set have a class.
        """
        waiting = int(self.ranks.of_first(lambda: self._open(query_index, rows), rows.new_empty(1)))
        if waiting:
            if self.ranks.first:
                table, own = self.store.table, self.config.uses_own_masks
                people.pose(
                    folder,
                    people.question(
                        self.folder, query_index, self._ids(rows), table, table.classes, maps, own
                    ),
                )
            draw = maps and not bool(self.own[rows].all())
            raise Waiting(self.folder.path, query_index, len(rows) - waiting, len(rows), draw)
        labels = self.ranks.of_first(lambda: self._classes(query_index, rows), torch.empty_like(rows))
        known, least = int((labels >= 0).sum()), min(2, len(rows))
        if query_index == 0 and known < least:
            raise InputError(
                f"{self.folder.path}: {known} images of the start set have a class, the others were skipped, "
                f"and training needs {least} at least; import classes for some that were skipped"
            )
        self.store.labels[rows] = labels
        self.skipped = torch.cat((self.skipped, rows[labels < 0]))
        return rows[labels >= 0]

    def _open(self, query_index: int, rows: Tensor) -> Tensor:
        return torch.tensor([len(Answers(self.folder.asked(query_index)).open(self._ids(rows)))])

    def _classes(self, query_index: int, rows: Tensor) -> Tensor:
        """The class numbers that people gave, int64 [k]; -1 for an image that everybody skipped."""
        there = Answers(self.folder.asked(query_index))
        given, classes = there.verdicts(), self.store.table.classes
        found = [given[name].label for name in self._ids(rows)]
        unknown = [label for label in found if label is not None and label not in classes]
        if unknown:
            raise InputError(f"{there.folder / 'answers.json'}: {unknown[0]!r} is no class; restore it")
        return torch.tensor([-1 if label is None else classes.index(label) for label in found])

    def _by_people(self, query_index: int, rows: Tensor) -> Labelled:
        if self.config.annotator == "data":
            maps = controls.people_maps(self.store, rows, self.config.control_maps, self.config.seed)
            has_map = self.store.has_mask[rows]
        else:
            size = self.store.image_size
            drawn = torch.empty(len(rows), size, size, dtype=torch.uint8, device=rows.device)
            maps = Masks.pack(self.ranks.of_first(lambda: self._maps(query_index, rows), drawn))
            has_map = self.ranks.of_first(
                lambda: self._has_map(query_index, rows), rows.new_empty(len(rows)).bool()
            )
        return answered(rows, maps, has_map, PEOPLE, self.loss_size)

    def _maps(self, query_index: int, rows: Tensor) -> Tensor:
        """The maps that people drew, uint8 [k, F, F]; zeros for an image without a map.

        If nobody drew a map of an image, it has its own mask, if such masks are used.
        """
        size = self.store.image_size
        maps = torch.zeros(len(rows), size, size, dtype=torch.uint8)
        own = self.own[rows]
        if bool(own.any()):
            maps[own.cpu()] = self.store.masks.unpack(rows[own]).cpu()
        given = Answers(self.folder.asked(query_index)).verdicts()
        for i, (row, name) in enumerate(zip(rows.tolist(), self._ids(rows), strict=True)):
            if given[name].masks:
                image = self.store.table.images[row]
                maps[i] = torch.from_numpy(map_in_frame(given[name].masks, image, size))
        return maps

    def _has_map(self, query_index: int, rows: Tensor) -> Tensor:
        given = Answers(self.folder.asked(query_index)).verdicts()
        drawn = torch.tensor([bool(given[name].masks) for name in self._ids(rows)], dtype=torch.bool)
        return drawn | self.own[rows].cpu()

    def _ids(self, rows: Tensor) -> list[str]:
        return [self.store.table.ids[row] for row in rows.tolist()]


def _agreement(foreseen: Tensor, answer: Labelled) -> float | None:
    """The mean Dice, 2 |A and B| / (|A| + |B|), between predicted maps and those that people drew.

    None if people drew no map. It is computed in float64, because a run that goes on compares it with earlier
    trials, and `ops.dice` gives float32.
    """
    drawn = answer.maps.unpack(torch.arange(len(answer), device=foreseen.device)) > 127
    known = (answer.drawn_by == PEOPLE) & drawn.any((-2, -1))
    if not bool(known.any()):
        return None
    a, b = (foreseen > 127)[known], drawn[known]
    both = (a & b).sum((-2, -1)).double()
    return float((2 * both / (a.sum((-2, -1)) + b.sum((-2, -1)))).mean())
