"""Errors that a user can mend."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(Exception):
    """Bad input. The message is one clear line. The command exits with status 2 and overwrites nothing."""
