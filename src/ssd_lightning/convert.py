"""`python -m ssd_lightning.convert`: write annotated images in another annotation format."""

from functools import partial

from ssd_lightning.run_command import run_command

main = partial(run_command, "convert")

if __name__ == "__main__":
    main()
