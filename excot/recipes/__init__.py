"""Training recipes: thin TRL scripts and one YAML a model and stage."""
