"""What goes wrong in a way the user can mend."""

import errno

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class InputError(Exception):
    """Bad input: one clear line; the command exits with status 2 and writes nothing over."""
