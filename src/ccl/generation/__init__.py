"""From prompts to clips, and to files of clips."""
