"""Programs that train, compare and export binary networks; run from a clone."""
