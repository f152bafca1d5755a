"""`python -m ssd_lightning.report`: write an HTML page for one run, or a comparison of several."""

from functools import partial

from ssd_lightning.run_command import run_command

main = partial(run_command, "report")

if __name__ == "__main__":
    main()
