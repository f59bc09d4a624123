"""What the recipes add to TRL's own scripts: checks before training, execution accuracy during it, a card after it."""
