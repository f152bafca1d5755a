"""`python -m ssd_lightning.export`: write a trained detector in another format, and verify the file."""

from functools import partial

from ssd_lightning.run_command import run_command

main = partial(run_command, "export")

if __name__ == "__main__":
    main()
