"""Options that several commands share: how files are read, and where a model runs."""

from dataclasses import dataclass

from sal_fast._util.words import DecoderName
from sal_fast.data import Table, load_originals
from sal_fast.data.meaning import Rule
from sal_fast.data.readers import Options


@dataclass(frozen=True, kw_only=True)
class Files:
    """How the files of a data set are read."""

    root: str | None = None
    """The folder of the official archives, unpacked or not, if the data are one of the paper's sets."""
    format: str = "auto"
    """The format of the data, such as coco; auto takes what it looks like."""
    columns: str = ""
    """The names in the data by ours, such as image=filename,label=dx."""
    white: float | None = None
    """The number that is white in files of more than 8 bits, such as 4095."""

    @property
    def its_format(self) -> Options:
        """The format and the columns. Raises InputError for columns that are no pairs of names."""
        return Options.of(self.format, self.columns)


@dataclass(frozen=True, kw_only=True)
class FilesWithMasks(Files):
    """How the files of a data set are read, and what the pixels of its masks mean."""

    foreground: str | None = None
    """The values of masks that are foreground, such as 1,2, or grades."""
    ignore: str | None = None
    """The values of masks that are neither foreground nor background."""
    foreground_colour: str | None = None
    """The colours of masks that are foreground, such as 255,0,0."""

    @property
    def its_rule(self) -> Rule:
        """How mask files are read. Raises InputError for options that are no numbers."""
        return Rule.of(self.foreground, self.ignore, self.foreground_colour, self.white)

    def table(self, data: str) -> Table:
        """Read the samples that `data` names. Raises InputError for a prepared folder, too."""
        return load_originals(data, self.root, self.its_rule, self.its_format)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The device that a trained model runs on, and the decoder of its images."""

    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:1, ..."""
    decoder: DecoderName = "auto"
    """dali, torch, pillow, or auto (dali on a GPU where it is installed, else torch)."""
