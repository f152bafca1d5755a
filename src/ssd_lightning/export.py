"""`python -m ssd_lightning.export`: export a network and verify the file, or convert its weight names."""

from ssd_lightning.config import run_command


def main() -> None:
    """Run the command."""
    run_command("export", "ssd_lightning.commands.export:export")


if __name__ == "__main__":
    main()
