"""Files and locks of this machine: where they are, and how they are read and written safely."""
