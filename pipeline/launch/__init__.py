"""Where the commands of a run are started."""
