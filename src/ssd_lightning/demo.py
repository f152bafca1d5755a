"""`python -m ssd_lightning.demo`: start a local web page and a JSON endpoint for a detector."""

from functools import partial

from ssd_lightning.run_command import run_command

main = partial(run_command, "demo")

if __name__ == "__main__":
    main()
