"""Which law holds when teachers are known by their size? One bowl shared by all students, fitted jointly."""
