"""`python -m ssd_lightning.show`: draw priors, augmented images, and the priors that are matched to each object."""

from functools import partial

from ssd_lightning.run_command import run_command

main = partial(run_command, "show")

if __name__ == "__main__":
    main()
