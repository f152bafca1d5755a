"""`python -m ssd_lightning.predict`: detect objects in images, videos or a camera stream, and save the results."""

from functools import partial

from ssd_lightning.run_command import run_command

main = partial(run_command, "predict")

if __name__ == "__main__":
    main()
