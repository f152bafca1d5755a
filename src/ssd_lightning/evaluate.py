"""`python -m ssd_lightning.evaluate`: score a trained detector on annotated images."""

from functools import partial

from ssd_lightning.run_command import run_command

main = partial(run_command, "evaluate")

if __name__ == "__main__":
    main()
