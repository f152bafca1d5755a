"""`python -m ssd_lightning.show`: draw the priors, augmentation and matches of a run."""

from ssd_lightning.config import run_command


def main() -> None:
    """Run the command."""
    run_command("show", "ssd_lightning.commands.show:show")


if __name__ == "__main__":
    main()
