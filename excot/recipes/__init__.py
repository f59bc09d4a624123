"""The place of the training recipes, reachable as ``recipes/`` from the root of a checkout as well."""
