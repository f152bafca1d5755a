"""What each command does, except train. These modules are imported after the check of the command line."""
