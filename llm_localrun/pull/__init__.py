"""Getting models onto this machine: the only part that speaks to anything but model servers."""
