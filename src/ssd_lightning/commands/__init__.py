"""What each command does, except train. These modules are imported after the check of the command line.

All raise `UserError` for what the user can change: a setting, data, a checkpoint or an output that is not usable.
"""
