"""Which law holds when teachers are known by their loss? Competing forms, stacked."""
