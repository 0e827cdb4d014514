"""Which clips there are: CSV in and out, folders, groups, published data sets."""
