"""Errors that a user can mend."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(Exception):
    """Bad input from a user. Its message is one line; the command exits with status 2 and overwrites nothing."""
